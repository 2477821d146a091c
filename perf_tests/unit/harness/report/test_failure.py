from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import msgspec
import pytest

from perf_tests.harness.baselines.entry import Accepted, Entry, Provenance
from perf_tests.harness.fidelity.heatmaps import Drawing, EarlierHeatMaps, HeatMaps, NoHeatMaps
from perf_tests.harness.records.builds import BuildReport
from perf_tests.harness.records.fidelity import Fidelity
from perf_tests.harness.report.failure import explain, explain_failure
from perf_tests.harness.report.wording import format_change, format_value
from perf_tests.harness.runs.record import Process, Run, Status, Verdict
from perf_tests.harness.verdicts.gates import as_judged
from perf_tests.protocol.messages import Failure, FailureKind, Phase
from perf_tests.protocol.reports import Environment, Gpu, ModuleGroup, Quantization, Sample
from perf_tests.tables.metrics.rows import METRIC_BY_NAME, METRICS
from perf_tests.tables.metrics.spec import Metric
from perf_tests.tables.recipes import Recipe
from perf_tests.tables.schemes.rows import INT8DQ_SPARSE24
from perf_tests.unit.builders import FLUX_FP8

STEP = next(metric for metric in METRICS if metric.name == "denoise_step_ms")
CASE_ID = "flux1-dev-b1-fp8dqrow-regional"
ENVIRONMENT = Environment(
    python="3.11.7",
    packages={"torch": "2.13.0", "torchao": "0.19.0", "diffusers": "0.42.1"},
    gpu=Gpu(
        name="NVIDIA H100 80GB HBM3",
        uuid="GPU-1",
        capability=(9, 0),
        memory_gib=79.6,
        power_limit_w=700.0,
        driver="590.2",
    ),
    cpu_model="Xeon",
    cpu_count=16,
    settings={"matmul_precision": "high"},
    variables={},
)
PROVENANCE = Provenance(
    recorded_at="2026-11-20T07:17:00Z",
    reason="first H100 run",
    run_sha256="ab",
    unit="GPU-1",
    gpu="NVIDIA H100 80GB HBM3",
    power_limit_w=700.0,
    driver="580.1",
    python="3.11.7",
    packages={"torch": "2.13.0", "torchao": "0.18.0", "diffusers": "0.42.1"},
    settings={"matmul_precision": "highest"},
)
SAME = msgspec.structs.replace(
    PROVENANCE, driver="590.2", packages=ENVIRONMENT.packages, settings=ENVIRONMENT.settings
)
ENTRY = Entry(
    digest="d1",
    provenance="p1",
    processes=3,
    metrics={"denoise_step_ms": (100.4, 100.5, 100.6)},
)
VERDICT = Verdict(
    metric="denoise_step_ms",
    status=Status.REGRESSED,
    measured=106.3,
    baseline=100.5,
    change_pct=5.77,
    ci_pct=None,
    limit=103.515,
    reason="+5.77 %, beyond the limit 103.515 ms (baseline + 3 %)",
)


def process(step_ms: float, log: str, quantization: Quantization | None = None) -> Process:
    return Process(
        environment=ENVIRONMENT,
        build=BuildReport(
            seconds={}, memory={}, weights={}, quantization=quantization, cache=None, values={}
        ),
        samples=(Sample(values={"denoise_step_ms": (step_ms,)}, output_sha256="00"),),
        log=log,
    )


RUN = Run(
    id=CASE_ID,
    digest="d1",
    platform="h100",
    pipeline="flux1-dev",
    status=Status.REGRESSED,
    processes=(process(106.3, "logs/1.log"), process(105.9, "logs/2.log"), process(106.8, "logs/3.log")),
)


def text(
    *,
    run: Run = RUN,
    verdict: Verdict = VERDICT,
    metric: Metric = STEP,
    entry: Entry = ENTRY,
    provenance: Provenance | None = PROVENANCE,
    environment: Environment | None = ENVIRONMENT,
    heat_maps: Drawing | None = None,
    run_path: str = ".perf/latest",
    is_answered: bool = False,
) -> str:
    return explain(
        run=run,
        verdict=verdict,
        metric=metric,
        accepted=None if provenance is None else Accepted(entry=entry, provenance=provenance),
        environment=environment,
        heat_maps=heat_maps,
        run_path=run_path,
        is_answered=is_answered,
    )


@pytest.mark.parametrize(
    ("value", "unit", "words"),
    [
        pytest.param(None, "ms", "-", id="not-measured"),
        pytest.param(106.2962, "ms", "106.3 ms", id="four-digits"),
        pytest.param(2.9471, "s", "2.947 s", id="seconds"),
        pytest.param(20858.88, "MiB", "20,859 MiB", id="thousands"),
        pytest.param(1.87654, "x", "1.877 x", id="ratio"),
        pytest.param(45.618, "dB", "45.62 dB", id="decibel"),
        pytest.param(11901408256.0, "B", "11,901,408,256 B", id="every-byte"),
        pytest.param(504.0, "", "504", id="count"),
        pytest.param(0.98765, "", "0.9877", id="dimensionless"),
        pytest.param(0.0, "ms", "0 ms", id="zero"),
        pytest.param(-12.345, "MiB", "-12.35 MiB", id="negative"),
        pytest.param(float("nan"), "ms", "nan ms", id="not-a-number"),
    ],
)
def test_a_value_is_written_with_sensible_digits_and_its_unit(
    value: float | None, unit: str, words: str
) -> None:
    assert format_value(value, unit) == words


def test_a_change_carries_its_sign() -> None:
    assert [format_change(change) for change in (5.771, -0.4, None)] == ["+5.77 %", "-0.40 %", "-"]


def test_a_metric_that_is_judged_by_a_limit_is_a_median() -> None:
    lines = text(metric=as_judged(STEP, FLUX_FP8.with_recipe(Recipe(scheme=INT8DQ_SPARSE24)))).splitlines()
    assert lines[1].startswith("  measured   106.3 ms       median of 3 processes, 105.9 to 106.8 ms")


def test_a_regression_is_explained_on_one_screen() -> None:
    assert text().splitlines() == [
        "flux1-dev-b1-fp8dqrow-regional on h100: denoise_step_ms regressed",
        "  measured   106.3 ms       mean of 3 processes, 105.9 to 106.8 ms",
        '  baseline   100.5 ms       2026-11-20, torch 2.13.0, torchao 0.18.0, "first H100 run", same unit',
        "  limit      103.5 ms       +5.77 %, beyond the limit 103.515 ms (baseline + 3 %)",
        "  changed since the baseline:",
        "    torchao 0.18.0 -> 0.19.0",
        "    driver 580.1 -> 590.2",
        "    matmul_precision highest -> high",
        "  accept     python tools/rebaseline.py apply .perf/latest "
        f"--only '{CASE_ID}' --reason \"...\" --write",
        f"  reproduce  pytest --perf-case '{CASE_ID}'",
        "  log        .perf/latest/logs/1.log .perf/latest/logs/2.log .perf/latest/logs/3.log",
    ]


def test_an_environment_that_has_not_changed_is_mentioned() -> None:
    assert "  changed since the baseline: nothing on record" in text(provenance=SAME).splitlines()


def test_another_card_and_a_provisional_baseline_are_named() -> None:
    words = text(
        provenance=msgspec.structs.replace(SAME, unit="GPU-2"),
        entry=msgspec.structs.replace(ENTRY, processes=1),
    )

    assert "another unit (GPU-2), provisional: 1 of 3 processes" in words
    assert "    unit GPU-2 -> GPU-1" in words.splitlines()


def test_a_package_that_came_or_went_is_absent_on_one_side() -> None:
    words = text(provenance=msgspec.structs.replace(SAME, packages={**SAME.packages, "mslk": "1.0"}))

    assert "    mslk 1.0 -> absent" in words.splitlines()


def test_a_missing_baseline_comes_with_the_command_that_records_one() -> None:
    verdict = Verdict(
        metric="denoise_step_ms",
        status=Status.NO_BASELINE,
        measured=106.3,
        baseline=None,
        change_pct=None,
        ci_pct=None,
        limit=None,
        reason="no baseline is recorded",
    )

    lines = text(verdict=verdict, provenance=None).splitlines()

    assert lines[0].endswith(": denoise_step_ms has no baseline")
    assert "  baseline   -              none recorded" in lines
    assert any(line.startswith("  record     python tools/rebaseline.py apply") for line in lines)


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (Status.SURPRISE, "improved without explanation"),
        (Status.INCONCLUSIVE, "is inconclusive"),
        (Status.INVALID, "is invalid"),
    ],
)
def test_a_headline_says_the_outcome(status: Status, words: str) -> None:
    headline = text(verdict=msgspec.structs.replace(VERDICT, status=status)).splitlines()[0]

    assert headline == f"{CASE_ID} on h100: denoise_step_ms {words}"


@pytest.mark.parametrize("status", [Status.INCONCLUSIVE, Status.INVALID])
def test_a_number_that_cannot_be_trusted_is_not_offered_for_acceptance(status: Status) -> None:
    assert "rebaseline" not in text(verdict=msgspec.structs.replace(VERDICT, status=status))


def test_a_fire_drill_is_named_and_not_offered_for_acceptance() -> None:
    words = text(run=msgspec.structs.replace(RUN, injected=("latency:+5%",)))

    assert "  injected   latency:+5%" in words
    assert "rebaseline" not in words


def test_changes_fit_on_one_screen_however_many_there_are() -> None:
    packages = {f"package{number}": "1" for number in range(60)}
    lines = text(
        provenance=msgspec.structs.replace(SAME, packages={**SAME.packages, **packages})
    ).splitlines()

    assert "    and 52 more" in lines
    assert len(lines) <= 24


SSIM = METRIC_BY_NAME["ssim"]


HEAT_MAPS = HeatMaps(
    reference=Path("captures/case.0.reference.png"),
    candidate=Path("captures/case.0.candidate.png"),
    heatmap=Path("captures/case.0.heatmap.png"),
    frames=None,
    video=None,
    no_video=None,
    amplification=1.0,
    where="changed most in the lower left quarter of image 0 (of 0 to 0): 20.0 dB",
)


def pictures_line(heat_maps: Drawing | None) -> list[str]:
    lines = text(metric=SSIM, heat_maps=heat_maps).splitlines()
    assert lines[-1].startswith("  log ")
    return [line for line in lines if line.startswith("  pictures")]


def test_heat_maps_are_listed_with_where_the_picture_changed() -> None:
    assert pictures_line(HEAT_MAPS) == [
        "  pictures   captures/case.0.*.png: changed most in the lower left quarter of image 0 (of 0 to 0): "
        "20.0 dB"
    ]


def test_heat_maps_of_a_video_are_listed_with_its_mp4() -> None:
    of_video = dataclasses.replace(HEAT_MAPS, video=Path("captures/case.0.mp4"))
    (line,) = pictures_line(of_video)
    assert line.startswith("  pictures   captures/case.0.*.png, captures/case.0.mp4: changed most in ")


def test_heat_maps_that_could_not_be_made_are_explained_and_the_rest_is_there() -> None:
    assert pictures_line(NoHeatMaps(reason="cannot read case.0.npy")) == [
        "  pictures   none: cannot read case.0.npy"
    ]


def test_heat_maps_of_an_earlier_session_are_listed() -> None:
    assert pictures_line(EarlierHeatMaps(files=Path("captures/case.0.*.png"))) == [
        "  pictures   captures/case.0.*.png: drawn by the session that measured them"
    ]


def test_pictures_are_not_mentioned_without_heat_maps() -> None:
    assert pictures_line(None) == []


def test_a_run_folder_with_a_space_stays_one_argument() -> None:
    words = text(run_path="my run")
    assert "apply 'my run' --only" in words


FAILED = Run(
    id=CASE_ID,
    digest="d1",
    platform="h100",
    pipeline="flux1-dev",
    status=Status.OOM,
    reason="out of memory",
    failure=Failure(
        kind=FailureKind.OOM,
        phase=Phase.LOAD,
        message="The GPU has 79.6 GiB;\nthe pipeline needs more.",
        details="\n".join(f"frame {number}" for number in range(40)),
    ),
    processes=(process(1.0, "logs/1.log"),),
)


def test_a_failure_names_kind_phase_message_log_and_the_way_to_reproduce() -> None:
    lines = explain_failure(run=FAILED, run_path=".perf/latest").splitlines()

    assert lines[:2] == [
        "flux1-dev-b1-fp8dqrow-regional on h100: ERROR(oom) while the worker was in phase 'load'",
        "  reason     The GPU has 79.6 GiB; the pipeline needs more.",
    ]
    assert lines[2] == "    | frame 30"
    assert lines[-3:] == [
        "    | frame 39",
        f"  reproduce  pytest --perf-case '{CASE_ID}'",
        "  log        .perf/latest/logs/1.log",
    ]


def test_a_failure_without_a_process_points_at_the_folder_of_the_logs() -> None:
    run = msgspec.structs.replace(FAILED, processes=())

    last_line = explain_failure(run=run, run_path=".perf/latest").splitlines()[-1]
    assert last_line == "  log        .perf/latest/logs"


def test_an_unproven_recipe_names_the_layers() -> None:
    quantization = Quantization(
        expected_modules=504,
        groups=(
            ModuleGroup(
                component="transformer",
                subclass="Parameter",
                dtype="bfloat16",
                scale=None,
                dynamic_activation=False,
                count=1,
                examples=("blocks.0.proj",),
            ),
        ),
        excluded={},
        unquantized=("blocks.0.proj",),
    )
    run = Run(
        id=CASE_ID,
        digest="d1",
        platform="h100",
        pipeline="flux1-dev",
        status=Status.UNPROVEN,
        reason="1 module is not quantized",
        processes=(process(1.0, "logs/1.log", quantization),),
    )

    lines = explain_failure(run=run, run_path="r").splitlines()

    assert lines[0].endswith(" on h100: ERROR(unproven)")
    assert lines[1] == "  reason     1 module is not quantized"
    assert lines[2] == "  checks     of 504 modules to quantize, these are not as asked for: blocks.0.proj"


# What is printed of the values


def measured_line(name: str, *processes: Process, status: Status = Status.REGRESSED) -> str:
    run = msgspec.structs.replace(RUN, processes=processes)
    metric = METRIC_BY_NAME[name]
    verdict = msgspec.structs.replace(VERDICT, metric=name, status=status, measured=30.0, baseline=31.0)
    return text(run=run, metric=metric, verdict=verdict).splitlines()[1]


def process_with(values: dict[str, float], fidelity: Fidelity | None = None) -> Process:
    made = process(1.0, "logs/1.log")
    return msgspec.structs.replace(
        made, build=msgspec.structs.replace(made.build, values=values), fidelity=fidelity
    )


def test_pairs_are_not_called_processes() -> None:
    fidelity = Fidelity(
        psnr_db=28.0, ssim=0.9, identical=False, pair_psnrs_db=(28.0, 30.0, 31.0, 31.0), pair_ssims=()
    )
    line = measured_line("psnr_db", process_with({}, fidelity))
    assert line == "  measured   30.00 dB       mean of 4 pairs of 1 process, 28 to 31.00 dB"


def test_count_is_that_of_one_process() -> None:
    two = (process_with({"graph_breaks": 0.0}), process_with({"graph_breaks": 30.0}))
    assert measured_line("graph_breaks", *two).endswith("one of 2 processes, 0 to 30")
    assert measured_line("graph_breaks", two[1]).endswith("       1 process")


# Layers


@pytest.mark.parametrize(
    ("name", "now", "before", "outcome"),
    [
        ("layer_sqnr_db", 41.0, 40.0, "moved"),
        ("layer_sqnr_db", 39.0, 40.0, "regressed"),
        ("layer_gain", 1.001, 0.99, "moved"),
        ("layer_gain", 1.01, 1.001, "regressed"),
    ],
)
def test_a_layer_that_got_better_has_moved(name: str, now: float, before: float, outcome: str) -> None:
    verdict = msgspec.structs.replace(VERDICT, metric=name, measured=now, baseline=before)
    lines = text(metric=METRIC_BY_NAME[name], verdict=verdict).splitlines()
    assert lines[0] == f"{CASE_ID} on h100: {name} {outcome}"
    assert "the layer that moved most, of 3 processes" in lines[1]


# What changed, and what to do


def test_a_setting_that_the_baseline_did_not_record_is_not_said_to_have_changed() -> None:
    now = msgspec.structs.replace(ENVIRONMENT, settings={**ENVIRONMENT.settings, "attention": "native"})
    words = text(provenance=SAME, environment=now)
    assert "attention" not in words
    assert "  changed since the baseline: nothing on record" in words.splitlines()


def next_steps(**changes: Any) -> list[str]:
    return [line for line in text(**changes).splitlines() if line.startswith("  next ")]


def test_where_nothing_changed_the_next_step_is_named() -> None:
    run = msgspec.structs.replace(RUN, reference="flux1-dev-b1-bf16-regional")
    control = f"  next       see whether the control case moves, too: pytest --perf-case '{run.reference}'"
    checkout = "  next       look at what this checkout changed: git log --since 2026-11-20"
    assert next_steps(run=run, provenance=SAME) == [
        control,
        "  next       compare with a stable stack on this card: --perf-against PYTHON",
        checkout,
    ]
    assert next_steps(run=run, provenance=SAME, metric=METRIC_BY_NAME["weight_bytes"]) == [control, checkout]


def test_where_only_the_card_changed_the_other_card_is_the_next_step() -> None:
    first, *_ = next_steps(provenance=msgspec.structs.replace(SAME, unit="GPU-2"))
    assert first == "  next       measure on the card of the baseline, GPU-2"


def test_a_count_is_the_same_on_the_other_card() -> None:
    steps = next_steps(
        provenance=msgspec.structs.replace(SAME, unit="GPU-2"), metric=METRIC_BY_NAME["kernels_per_step"]
    )
    assert steps == ["  next       look at what this checkout changed: git log --since 2026-11-20"]


def test_where_other_stacks_have_answered_no_next_step_is_guessed() -> None:
    assert next_steps(provenance=SAME) != []
    assert next_steps(provenance=SAME, is_answered=True) == []


def test_where_something_changed_no_next_step_is_guessed() -> None:
    assert next_steps() == []


@pytest.mark.parametrize(
    ("provenance", "words"),
    [
        pytest.param(PROVENANCE, "  only if    torchao 0.18.0 -> 0.19.0 explains it", id="a-package"),
        pytest.param(SAME, "  only if    you know the cause: no package has changed", id="none"),
    ],
)
def test_a_count_is_accepted_beside_the_packages_that_may_explain_it(
    provenance: Provenance, words: str
) -> None:
    lines = text(metric=METRIC_BY_NAME["graph_breaks"], provenance=provenance).splitlines()
    number = lines.index(words)
    assert lines[number - 1].startswith("  accept     python tools/rebaseline.py apply")


def test_fewer_processes_than_a_settled_baseline_has_are_not_enough_to_accept() -> None:
    one = msgspec.structs.replace(RUN, processes=RUN.processes[:1])
    first = "  first      measure it with --perf-processes 3: its baseline is of 3 processes"
    assert first in text(run=one).splitlines()
    assert first not in text().splitlines()


def test_what_no_baseline_must_hold_is_not_offered_for_acceptance() -> None:
    assert "rebaseline" not in text(metric=METRIC_BY_NAME["distinct_outputs"])  # a broken relation
    unproven = msgspec.structs.replace(RUN, failure=FAILED.failure)
    assert "rebaseline" not in text(run=unproven, metric=METRIC_BY_NAME["weight_bytes"])


def test_the_guards_that_failed_are_quoted() -> None:
    build = process(1.0, "logs/1.log").build
    guards = (
        "L['x'].size()[0] == 2\n  # in forward",
        "L['x'].size()[0] == 2\n  # in forward",
        "L['y'] is None",
    )
    recompiled = msgspec.structs.replace(
        RUN.processes[0], build=msgspec.structs.replace(build, guard_failures=guards)
    )
    run = msgspec.structs.replace(RUN, processes=(recompiled, RUN.processes[1]))

    assert [
        line for line in text(run=run, metric=METRIC_BY_NAME["recompiles"]).splitlines() if " guard " in line
    ] == [
        "  guard      L['x'].size()[0] == 2 # in forward",
        "  guard      L['y'] is None",
    ]
    assert "guard" not in text(run=run)


def test_a_long_reason_is_continued_and_not_cut() -> None:
    reason = "; ".join(f"transformer.transformer_blocks.{number}.attn.to_q moved" for number in range(8))
    words = text(verdict=msgspec.structs.replace(VERDICT, reason=reason))
    assert reason in " ".join(words.split())
    assert max(map(len, words.splitlines())) <= 160
    failed = msgspec.structs.replace(FAILED, reason=reason, failure=None)
    assert reason in " ".join(explain_failure(run=failed, run_path="r").split())
