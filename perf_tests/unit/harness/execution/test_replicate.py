"""What one process of a case reports."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from perf_tests.harness.execution.planned import Planned
from perf_tests.harness.execution.replicate import _timeout_s
from perf_tests.harness.processes.worker_process import Worker
from perf_tests.harness.records.process_ends import SamplingEnd, WarmUpEnd
from perf_tests.harness.runs.validity import invalidity
from perf_tests.harness.verdicts.build_checks import contradictions
from perf_tests.protocol.messages import (
    Generate,
    Phase,
    Request,
)
from perf_tests.protocol.reports import Sample, SettingReport, TunedChoices
from perf_tests.tables.cases import Case
from perf_tests.tables.pipelines.spec import PROMPTS
from perf_tests.tables.platforms import CPU, Platform
from perf_tests.unit.conftest import Misbehave
from perf_tests.unit.harness.execution.campaigns import (
    BF16,
    CASES,
    COMPILED,
    CPU_ALONE,
    GPU,
    INT8WO,
    Conduct,
    fixed_processes,
    larger,
)


def test_warm_ups_are_kept_apart_from_the_samples(conduct: Conduct) -> None:
    (process,) = conduct(BF16, warmups=3).run(BF16).processes
    assert (len(process.warmups), len(process.samples)) == (3, 2)
    assert process.samples[0].values["denoise_step_ms"] == (20.0, 20.0, 20.0)


def test_the_build_report_has_every_phase(conduct: Conduct) -> None:
    (process,) = conduct(INT8WO).run(INT8WO).processes
    built = {"import", "load", "quantize", "compile"}
    assert set(process.build.seconds) == built | {"generate", "fidelity", "inspect"}
    assert set(process.build.memory) == {"load", "quantize", "compile", "generate"}
    assert process.build.quantization is not None
    assert process.build.quantization.groups[0].count == 24
    assert process.build.values["weight_bytes"] == 24 * 2**20


def test_pictures_are_saved_by_the_first_process_only(conduct: Conduct, tmp_path: Path) -> None:
    platform = dataclasses.replace(CPU_ALONE, samples=5)
    first, second = conduct(BF16, decide=fixed_processes(2), platform=platform).run(BF16).processes
    assert [each.array for each in first.captures] == [
        f"captures/flux-mini-b1-bf16-eager.0.{pair}.npy" for pair in range(PROMPTS)
    ]
    assert all((tmp_path / each.image).exists() for each in first.captures)
    assert second.captures == ()


def test_samples_save_each_pair_once_and_start_again_with_the_first(
    conduct: Conduct, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask, saved = Worker.ask, []

    def asked(worker: Worker, request: Request, *others: Any) -> Any:
        if isinstance(request, Generate):
            saved.append((request.pair, request.capture is not None))
        return ask(worker, request, *others)

    monkeypatch.setattr(Worker, "ask", asked)
    conduct(BF16, platform=dataclasses.replace(CPU_ALONE, samples=5)).run(BF16)
    assert saved == [(0, False), (0, True), (1, True), (2, True), (3, True), (0, False)]


def test_composed_images_are_of_two_pairs(conduct: Conduct) -> None:
    case = larger("flux1-dev-b1-bf16-eager", measured_steps=6)
    selected = (Planned(case, dataclasses.replace(GPU, samples=5)),)
    (process,) = conduct("flux1-dev-b1-bf16-eager", selected=selected).run(case.id).processes
    assert [sample.pair for sample in process.samples] == [0, 1, 0, 1, 0]
    assert [each.array for each in process.captures] == [
        f"captures/flux1-dev-b1-bf16-eager-m6.0.{pair}.npy" for pair in (0, 1)
    ]


def test_sampling_ends_when_the_rule_says_so_and_the_record_says_why(conduct: Conduct) -> None:
    def until_four(case: Case, platform: Platform, samples: Sequence[Sample], /) -> SamplingEnd | None:
        return SamplingEnd.PRECISE if len(samples) == 4 else None

    (process,) = conduct(BF16, end_sampling=until_four).run(BF16).processes
    assert (len(process.samples), process.sampling_end) == (4, SamplingEnd.PRECISE)
    assert process.warmup_end is WarmUpEnd.FIXED


def test_the_first_process_compiles_cold_and_the_next_warm(conduct: Conduct) -> None:
    first, second = conduct(COMPILED, decide=fixed_processes(2)).run(COMPILED).processes
    assert first.build.values["compile_cold_s"] == 6.0
    assert second.build.values["compile_warm_s"] == 1.5
    assert "compile_warm_s" not in first.build.values
    assert "compile_cold_s" not in second.build.values


def test_an_eager_case_has_no_compile_time(conduct: Conduct) -> None:
    (process,) = conduct(BF16).run(BF16).processes
    assert not {"compile_cold_s", "compile_warm_s"} & set(process.build.values)


@pytest.mark.parametrize(("throttled", "retaken", "is_valid"), [(0, 0, True), (2, 2, True), (3, 2, False)])
def test_an_invalid_sample_is_retaken_at_most_twice_in_a_process(
    conduct: Conduct, misbehave: Misbehave, throttled: int, retaken: int, is_valid: bool
) -> None:
    misbehave(f"throttled:{throttled}")
    run = conduct("flux1-dev-b1-bf16-eager", platform=GPU).run("flux1-dev-b1-bf16-eager")
    (process,) = run.processes
    assert (len(process.samples), len(process.retaken)) == (1, retaken)
    assert (invalidity(run) is None) == is_valid


def test_the_roofline_of_a_step_is_in_the_record(conduct: Conduct) -> None:
    (process,) = conduct("flux1-dev-b1-bf16-eager", platform=GPU).run("flux1-dev-b1-bf16-eager").processes
    # 1 TFLOP at 989.4 TFLOP/s.
    assert process.build.roofline_ms == pytest.approx(1.01071, rel=1e-5)


def test_a_composed_latency_is_warmed_up_until_the_step_is_steady(conduct: Conduct) -> None:
    case = larger(BF16, steps=50, measured_steps=4)
    selected = (Planned(case, CPU_ALONE),)
    run = conduct(BF16, selected=selected).run(case.id)
    (process,) = run.processes
    assert run.projected
    assert len(process.warmups) == 2  # the fake worker's second generation is as fast as its first
    assert process.warmup_end is WarmUpEnd.STEADY
    # encode 5 + first 22 + 49 x 20 + decode 10 ms
    assert process.samples[0].values["device_latency_s"] == (1.017,)


TUNED = "flux1-dev-b1-int8dq-regional-tuned"


@pytest.mark.parametrize(
    ("fault", "kernels"), [("", 7), ("ineffective-setting", 0)], ids=["effective", "ineffective"]
)
def test_a_setting_without_effect_is_a_contradiction_of_the_recipe(
    conduct: Conduct, misbehave: Misbehave, fault: str, kernels: int
) -> None:
    misbehave(fault)
    (process,) = conduct(TUNED, platform=GPU).run(TUNED).processes
    values = {"max_autotune_gemm": "True"}
    assert process.build.settings == {"tuned": SettingReport(inductor=values, kernels=kernels)}
    found = [each for each in contradictions(CASES[TUNED], process.build) if "setting tuned" in each]
    assert len(found) == (kernels == 0)


def test_kernels_that_one_case_tuned_are_found_by_another_and_its_compile_time_is_not_a_cold_one(
    conduct: Conduct, tmp_path: Path
) -> None:
    fused = "flux1-dev-b1-int8dq-regional-fused-tuned"
    campaign = conduct(TUNED, fused, platform=GPU, artifacts=tmp_path / "caches")
    first, second = (campaign.run(case_id).processes[0].build for case_id in (TUNED, fused))
    assert (first.cache and first.cache.tuned) == TunedChoices(hits=0, misses=5)
    assert first.values["compile_cold_s"] == 166.0
    assert (second.cache and second.cache.tuned) == TunedChoices(hits=5, misses=0)
    assert "compile_cold_s" not in second.values
    assert "compile" in second.seconds


def test_a_case_tunes_for_itself_where_no_folder_is_named(conduct: Conduct) -> None:
    (process,) = conduct(TUNED, platform=GPU).run(TUNED).processes
    assert (process.build.cache and process.build.cache.tuned) == TunedChoices(hits=0, misses=5)
    assert process.build.values["compile_cold_s"] == 166.0


@pytest.mark.parametrize(
    ("case_id", "phase", "seconds"),
    [
        (BF16, Phase.QUANTIZE, 60.0),
        ("flux-mini-b1-bf16-eager-lora", Phase.QUANTIZE, 120.0),
        (BF16, Phase.INSPECT, 60.0),
        ("flux-mini-b1-bf16-regional-reshaped", Phase.INSPECT, 420.0),
    ],
)
def test_a_phase_in_which_more_is_done_has_more_time(case_id: str, phase: Phase, seconds: float) -> None:
    assert _timeout_s(Planned(CASES[case_id], CPU), phase) == seconds
