"""runs/projection.py: the stages of a short generation in, the latency of a long one out."""

from __future__ import annotations

import dataclasses
import json
import runpy
from pathlib import Path
from typing import Any

import pytest

from perf_tests.harness.runs.projection import composed, is_steady, least_samples, pairs, steady_step_ms
from perf_tests.protocol.errors import UsageError
from perf_tests.protocol.reports import Sample
from perf_tests.tables.cases import Case, Weights
from perf_tests.tables.matrix import MATRIX
from perf_tests.tables.pipelines.flux import FLUX1_DEV
from perf_tests.tables.pipelines.spec import Workload
from perf_tests.tables.platforms import CPU, H100, H200, Platform

TOOL = runpy.run_path(str(Path(__file__).resolve().parents[4] / "tools" / "projection.py"))

LONG = Workload(height=1024, width=1024, steps=28, measured_steps=4)
MEASURED = {
    "encode_ms": (40.0,),
    "first_step_ms": (130.0,),
    "denoise_step_ms": (100.0, 90.0, 101.0),
    "decode_ms": (60.0,),
    "device_latency_s": (0.521,),
    "latency_s": (0.531,),
}


def sample(values: dict[str, tuple[float, ...]] = MEASURED) -> Sample:
    return Sample(values=values, output_sha256="a" * 64)


def stepping(*steps_ms: float) -> Sample:
    return sample({"denoise_step_ms": steps_ms})


def test_every_step_but_the_first_takes_the_mean_of_the_steady_ones() -> None:
    values = composed(sample(), LONG).values
    # 40 + 130 + 27 x 97 + 60 ms
    assert values["device_latency_s"] == (2.849,)


@pytest.mark.parametrize(
    ("steps_ms", "steady_ms"),
    [
        pytest.param((360.0, 382.0, 361.0, 365.0, 377.0), 369.0, id="a pattern of the data counts fully"),
        pytest.param((100.0, 100.0, 100.0, 128.0), 100.0, id="a stall counts as the median"),
        pytest.param((100.0, 108.0, 100.0), 308.0 / 3, id="exactly at the bound it is not yet a stall"),
        pytest.param((100.0, 60.0, 101.0), 87.0, id="no step is too fast"),
    ],
)
def test_a_steady_step_is_the_mean_without_stalls(steps_ms: tuple[float, ...], steady_ms: float) -> None:
    assert steady_step_ms(steps_ms) == pytest.approx(steady_ms)


def test_the_hosts_share_is_paid_once() -> None:
    assert composed(sample(), LONG).values["latency_s"] == pytest.approx((2.859,))


def test_a_device_clock_ahead_of_the_hosts_does_not_shorten_the_latency() -> None:
    values = composed(sample({**MEASURED, "latency_s": (0.5,)}), LONG).values
    assert values["latency_s"] == values["device_latency_s"] == (2.849,)


def test_measured_latencies_are_kept_under_their_own_names() -> None:
    values = composed(sample(), LONG).values
    assert values["measured_device_latency_s"] == (0.521,)
    assert values["measured_latency_s"] == (0.531,)
    assert values["denoise_step_ms"] == (100.0, 90.0, 101.0)


def test_a_workload_measured_in_full_is_not_composed() -> None:
    whole = sample()
    assert composed(whole, dataclasses.replace(LONG, measured_steps=None)) is whole


@pytest.mark.parametrize("stage", ["encode_ms", "first_step_ms", "denoise_step_ms", "decode_ms"])
@pytest.mark.parametrize("how", ["absent", "empty"])
def test_a_latency_is_not_composed_if_a_stage_is_missing(stage: str, how: str) -> None:
    values: dict[str, tuple[float, ...]] = {**MEASURED, stage: ()}
    if how == "absent":
        del values[stage]
    composition = composed(sample(values), LONG).values
    assert composition.keys() & {"latency_s", "device_latency_s"} == set()
    assert composition["measured_latency_s"] == (0.531,)


def test_only_the_device_latency_is_composed_without_the_hosts_time() -> None:
    values = {name: each for name, each in MEASURED.items() if name != "latency_s"}
    composition = composed(sample(values), LONG).values
    assert composition["device_latency_s"] == (2.849,)
    assert "latency_s" not in composition


@pytest.mark.parametrize(
    ("generations", "steady"),
    [
        pytest.param([], False, id="none"),
        pytest.param([stepping(100.0)], False, id="one"),
        pytest.param([stepping(100.0), stepping(101.0)], True, id="1 % slower"),
        pytest.param([stepping(100.0), stepping(98.9)], False, id="1.1 % faster"),
        pytest.param([stepping(150.0), stepping(100.0), stepping(100.5)], True, id="settled after the first"),
        pytest.param([stepping(100.0), stepping(100.0), stepping(103.0)], False, id="no longer"),
        pytest.param([stepping(100.0, 180.0, 100.0), stepping(100.0)], True, id="one stalled step"),
        pytest.param([stepping(100.0), stepping()], False, id="no steady step"),
        pytest.param([sample({}), sample({})], False, id="nothing measured"),
    ],
)
def test_a_process_is_steady_once_two_generations_agree_within_a_percent(
    generations: list[Sample], steady: bool
) -> None:
    assert is_steady(generations) is steady


# tools/projection.py, as far as it works without torch


def result(**changes: Any) -> Any:
    default = {
        "case": "flux1-dev-b1-bf16-eager",
        "steps": 28,
        "measured_steps": 6,
        "warmups": 2,
        "composed_s": 5.05,
        "full_s": 5.0,
        "composed_step_ms": 182.0,
        "full_step_ms": 183.0,
        "spent_s": 61.0,
        "samples": [],
        "fulls": [],
    }
    return TOOL["Result"](**{**default, **changes})


@pytest.mark.parametrize(
    ("composed_s", "within"), [(4.89, False), (4.91, True), (5.0, True), (5.09, True), (5.11, False)]
)
def test_a_composed_latency_may_be_two_percent_off(composed_s: float, within: bool) -> None:
    assert result(composed_s=composed_s).is_within is within


def test_the_table_of_the_tool_names_what_is_off() -> None:
    good, bad = TOOL["table"]([result(), result(case="cogvideox-5b-b1-bf16-eager", composed_s=5.2)])[1:]
    assert good.endswith("6/28   2         182      183     5.05        5       1.0100  61")
    assert bad.endswith("1.0400  61       more than 2 % off")


@pytest.mark.parametrize(
    ("row", "asked", "measured"),
    [
        pytest.param(None, None, 6, id="six of a row that measures all"),
        pytest.param(8, None, 8, id="what the row says"),
        pytest.param(8, 3, 3, id="what is asked for"),
        pytest.param(None, 99, 28, id="all there are"),
    ],
)
def test_the_tool_measures(row: int | None, asked: int | None, measured: int) -> None:
    workload = dataclasses.replace(FLUX1_DEV.workload, measured_steps=row)
    assert TOOL["shortened"](workload, asked).measured_steps == measured


def test_a_single_step_is_refused() -> None:
    with pytest.raises(UsageError, match="measuring 1 of 28 steps leaves no steady one"):
        TOOL["shortened"](FLUX1_DEV.workload, 1)


def test_each_case_of_several_has_a_process_whose_failure_is_not_overlooked(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    cases = ["flux-mini-b1-bf16-eager", "flux-mini-b1-int8wo-eager"]
    commands: list[list[str]] = []

    def run(command: list[str], *, check: bool) -> None:
        commands.append(command)
        if command[2] == cases[0]:
            values = {name: getattr(result(), name) for name in TOOL["Result"].__slots__}
            Path(command[4]).write_text(json.dumps([{**values, "case": cases[0]}]))

    monkeypatch.setattr("subprocess.run", run)
    assert TOOL["main"]([*cases, "--platform", "cpu", "--measured-steps", "3"]) == 1
    assert [command[5:] for command in commands] == [["--platform", "cpu", "--measured-steps", "3"]] * 2
    output = capsys.readouterr()
    assert output.out.splitlines()[-1].startswith(cases[0])
    assert output.err == f"projection: {cases[1]} was not measured, see above\n"


def test_an_unknown_case_is_refused_with_its_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert TOOL["main"](["flux-mini-b1-bf16-eagre"]) == 2
    assert "no case 'flux-mini-b1-bf16-eagre'" in (text := capsys.readouterr().err)
    assert "nearest: flux-mini-b1-bf16-eager" in text


# How many generations of how many pairs

CASES: dict[str, Case] = {case.id: case for case in (row.case(Weights.SYNTHETIC) for row in MATRIX)}


@pytest.mark.parametrize(
    ("case_id", "platform", "expected"),
    [
        pytest.param("flux1-dev-b16-fp8dq-regional", H100, (2, 3), id="composed"),
        pytest.param("flux1-dev-b8-int8dq-eager-m3", H200, (2, 3), id="of-a-slow-scheme"),
        pytest.param("flux1-dev-b1-fp8dqrow-regional", H100, (4, 5), id="whole"),
        pytest.param("cogvideox-5b-b1-bf16-regional-fused", H100, (2, 3), id="composed-video"),
        pytest.param("cogvideox-5b-b1-bf16-eager-s4", H100, (4, 5), id="whole-video"),
        pytest.param("flux-mini-b1-int8wo-eager", CPU, (4, 5), id="cpu"),
    ],
)
def test_few_pairs_are_those_of_composed_rows(
    case_id: str, platform: Platform, expected: tuple[int, int]
) -> None:
    assert (pairs(CASES[case_id], platform), least_samples(CASES[case_id], platform)) == expected


def test_the_first_pair_is_repeated_wherever_the_platform_has_it_so() -> None:
    for case in CASES.values():
        for platform in (CPU, H100):
            assert least_samples(case, platform) > pairs(case, platform)


def test_a_platform_that_asks_for_fewer_samples_gets_them() -> None:
    hasty = dataclasses.replace(H100, samples=1)
    assert least_samples(CASES["flux1-dev-b16-fp8dq-regional"], hasty) == 1
