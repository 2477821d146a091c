"""Verdicts, the error level, the control and the failure text of selected cases."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from perf_tests.harness.rebaseline import candidates
from perf_tests.harness.runs.record import STATUS_OF_FAILURE, Status
from perf_tests.protocol.messages import FailureKind
from perf_tests.tables.metrics.spec import Group
from perf_tests.tables.platforms import CPU, H100
from perf_tests.unit.builders import (
    GPU,
    H100_UUID,
    make_baselines,
    make_build,
    make_entry,
    make_environment,
    make_failure,
    make_process,
    make_provenance,
    make_record,
    make_run,
    make_sample,
    make_telemetry,
    make_verdict,
    store_baselines,
)
from perf_tests.unit.conftest import CASES, FP8DQROW, INT8WO
from perf_tests.unit.harness.plugin.sessions import QUICK, Open, on_h100


def test_throttling_invalidates_times_and_leaves_counters(open_session: Open) -> None:
    session = open_session()
    session.measure(INT8WO)
    hot = make_sample(telemetry=make_telemetry(throttle_reasons=("HwThermalSlowdown",)))
    run = make_run(CASES[INT8WO], processes=(make_process(samples=(hot,)),))

    by_name = {verdict.metric: verdict for verdict in session.judge(run, Group.LATENCY)}
    time = by_name["time_ratio_vs_fp32"]
    counters = session.judge(run, Group.COMPILE)
    session.close(cut_short=False)

    assert (time.status, time.measured) == (Status.INVALID, None)
    assert "HwThermalSlowdown" in time.reason
    assert by_name["quantize_s"].status is Status.INVALID
    assert by_name["step_tflop"].status is not Status.INVALID
    assert Status.INVALID not in {verdict.status for verdict in counters}


@pytest.mark.parametrize(
    ("kind", "required", "green"),
    [
        (FailureKind.UNSUPPORTED, (), True),
        (FailureKind.UNSUPPORTED, ("int8wo",), False),
        (FailureKind.OOM, (), False),
        (FailureKind.UNPROVEN, (), False),
    ],
)
def test_a_failed_run_is_green_only_where_an_optional_scheme_is_unsupported(
    open_session: Open,
    monkeypatch: pytest.MonkeyPatch,
    kind: FailureKind,
    required: tuple[str, ...],
    green: bool,
) -> None:
    session = open_session(dataclasses.replace(CPU, required_schemes=required))
    monkeypatch.setattr(session.judging, "_accepted", lambda _case_id: None)
    run = make_run(CASES[INT8WO], status=STATUS_OF_FAILURE[kind], failure=make_failure(kind=kind))
    assert session.judging.is_green(run) is green


def test_support_that_is_lost_is_red_where_a_baseline_was_accepted(
    open_session: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = open_session(dataclasses.replace(CPU, required_schemes=()))
    kind = FailureKind.UNSUPPORTED
    run = make_run(CASES[INT8WO], status=STATUS_OF_FAILURE[kind], failure=make_failure(kind=kind))
    assert not session.judging.is_green(run)
    monkeypatch.setattr(session.judging, "_accepted", lambda _case_id: None)
    assert session.judging.is_green(run)


# The error level


def test_the_level_follows_from_what_the_selected_tests_judge(tmp_path: Path, recorded: Path) -> None:
    session = on_h100(tmp_path / "run", recorded)
    assert session.judging.noisy_metrics == 3  # denoise_step_ms, decode_ms, speedup_vs_bf16
    assert session.judging.level == 0.00085
    others = [f"case-{number}" for number in range(97)]
    session.selection.whole.update(dict.fromkeys(others, session.selection.cases[FP8DQROW]))
    session.judging.ledger.owed.update((case_id, "decode_ms") for case_id in others)
    assert (session.judging.noisy_metrics, session.judging.level) == (100, 0.0005)


def test_the_level_is_that_of_all_shards_together(tmp_path: Path, recorded: Path) -> None:
    session = on_h100(tmp_path / "run", recorded)
    others = [f"case-{number}" for number in range(97)]
    session.selection.whole.update(dict.fromkeys(others, session.selection.cases[FP8DQROW]))
    session.judging.ledger.elsewhere.update((case_id, "decode_ms") for case_id in others)
    assert (session.judging.noisy_metrics, session.judging.level) == (100, 0.0005)
    elsewhere = candidates.CASES["flux1-dev-b1-fp8dqrow-eager"].case
    session.select(elsewhere, H100, Group.LATENCY, elsewhere=True)
    assert session.judging.noisy_metrics == 103
    assert list(session.selection.cases) == [FP8DQROW]
    assert session.judging.ledger.owed_on(elsewhere.id) == set()


def test_metrics_judged_by_a_limit_do_not_lower_the_level(tmp_path: Path, recorded: Path) -> None:
    session = on_h100(tmp_path / "run", recorded)
    session.select(candidates.CASES["flux1-dev-b1-int8dq-sparse24-regional"].case, H100, Group.LATENCY)
    assert session.judging.noisy_metrics == 4  # the three of the other case, and decode_ms


def test_a_cpu_session_tests_no_noisy_metric(open_session: Open) -> None:
    session = open_session()
    session.select(CASES[INT8WO], QUICK, Group.LATENCY)
    assert session.judging.noisy_metrics == 0


# The control


@pytest.mark.parametrize(
    ("unit", "now_ms", "moved"),
    [
        pytest.param(H100_UUID, 1.03, True, id="same-card"),
        pytest.param(H100_UUID, 1.01, False, id="same-card-within"),
        pytest.param("GPU-other", 1.03, False, id="another-card"),
        pytest.param("GPU-other", 1.09, True, id="another-card-beyond"),
    ],
)
def test_the_control_is_compared_with_that_of_the_baselines(
    tmp_path: Path, unit: str, now_ms: float, moved: bool
) -> None:
    entry = make_entry({"control_gemm_ms": [1.0]}, case=CASES[FP8DQROW])
    stored = make_baselines(
        platform="h100",
        pipeline="flux1-dev",
        cases={FP8DQROW: entry},
        provenance={"p1": make_provenance(unit=unit)},
    )
    store_baselines(tmp_path, stored)
    environment = make_environment(gpu=GPU)
    process = make_process(environment=environment, build=make_build({"control_gemm_ms": now_ms}))
    run = make_run(CASES[FP8DQROW], H100, processes=(process,))
    control = on_h100(tmp_path / "run", tmp_path).judging.control(make_record(run))
    assert control is not None
    assert control.moved is moved


def test_a_session_without_a_gpu_has_no_control(open_session: Open) -> None:
    session = open_session()
    session.measure(INT8WO)
    assert session.record is not None
    assert session.judging.control(session.record) is None
    session.close(cut_short=False)


# Failure texts


def test_several_violations_are_one_text_with_one_command(open_session: Open, tmp_path: Path) -> None:
    session = open_session(baselines=tmp_path / "nowhere")
    run = session.measure(INT8WO)
    text = session.explain(run, session.judge(run, Group.QUANTIZATION))
    session.close(cut_short=False)

    assert text.startswith(f"{INT8WO} on cpu: quantized_modules has no baseline")
    assert "  also       weight_bytes NO_BASELINE: no baseline is recorded" in text.splitlines()
    assert text.count("tools/rebaseline.py") == 1
    assert len(text.splitlines()) <= 24


def test_what_names_a_cause_is_explained_first(open_session: Open, tmp_path: Path) -> None:
    session = open_session()
    run = session.measure(INT8WO)
    verdicts = [make_verdict(name, Status.REGRESSED) for name in ("psnr_db", "ssim", "distinct_outputs")]
    text = session.explain(run, verdicts)
    session.close(cut_short=False)

    assert text.startswith(f"{INT8WO} on cpu: distinct_outputs regressed")
    assert [line.split()[1] for line in text.splitlines() if line.startswith("  also ")] == [
        "psnr_db",
        "ssim",
    ]


def test_an_unproven_build_is_not_blamed_for_what_it_could_not_tell(open_session: Open) -> None:
    session = open_session()
    session.measure(INT8WO)
    failure = make_failure(kind=FailureKind.UNPROVEN)
    untold = make_process(build=make_build(layers={}), fidelity=None)
    run = make_run(CASES[INT8WO], status=Status.UNPROVEN, failure=failure, processes=(untold,))

    for group in Group:
        assert Status.INCONCLUSIVE not in {each.status for each in session.judge(run, group)}
    session.close(cut_short=False)
