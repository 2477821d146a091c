"""A session without pytest."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from perf_tests.harness.baselines import files
from perf_tests.harness.plugin.options import parse_drill
from perf_tests.harness.plugin.selection import check_globs, nearest
from perf_tests.harness.plugin.session import Session
from perf_tests.harness.rebaseline import candidates
from perf_tests.harness.runs.record import STATUS_OF_FAILURE, SamplingEnd, Status, read_record
from perf_tests.protocol.errors import BaselineError, PerfError, UsageError
from perf_tests.protocol.messages import FailureKind
from perf_tests.tables.metrics import Group
from perf_tests.tables.platforms import CPU, H100, Platform
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
)
from perf_tests.unit.conftest import BF16, CASES, FP8DQROW, INT8WO, make_options

Open = Callable[..., Session]
UUID = "GPU-00000000-fake"
"""Of the fake worker's card."""
QUICK = dataclasses.replace(CPU, samples=2)


@pytest.fixture
def open_session(tmp_path: Path, recorded: Path) -> Open:
    """A session that has planned the build and the quantization of int8wo, one process, two samples."""

    def start(platform: Platform = QUICK, **changes: Any) -> Session:
        options = make_options(**{"out": tmp_path / "run", "baselines": recorded, **changes})
        session = Session(options, ("-m", "a marker"))
        session.select(CASES[INT8WO], platform, None)
        session.select(CASES[INT8WO], platform, Group.QUANTIZATION)
        return session

    return start


def test_planned_is_what_each_test_owes(open_session: Open) -> None:
    assert open_session().judging.ledger.missing() == (
        f"{INT8WO}: build",
        f"{INT8WO}: quantized_modules",
        f"{INT8WO}: weight_bytes",
    )


def test_a_session_measures_judges_and_closes_its_books(open_session: Open, tmp_path: Path) -> None:
    session = open_session()
    run = session.measure(INT8WO)
    session.settle_build(run)
    verdicts = session.judge(run, Group.QUANTIZATION)
    session.close(interrupted=False)

    assert [(each.metric, each.status) for each in verdicts] == [
        ("quantized_modules", Status.PASS),
        ("weight_bytes", Status.PASS),
    ]
    record = read_record(tmp_path / "run")
    assert (record.cases[0].status, record.missing) == (Status.PASS, ())
    assert record.command == "-m 'a marker'"
    assert {run.id for run in record.references} == {"flux-mini-b1-fp32-eager", BF16}


def test_the_status_of_a_case_is_the_worst_of_all_its_groups(open_session: Open) -> None:
    session = open_session(drills=(parse_drill("latency:+150%"),))
    for group in (Group.LATENCY, Group.QUANTIZATION):
        session.judge(session.measure(INT8WO), group)
    session.close(interrupted=False)

    assert session.record is not None
    (run,) = session.record.cases
    assert (run.status, run.reason[:18]) == (Status.REGRESSED, "time_ratio_vs_fp32")


def test_closing_enters_what_nobody_said(open_session: Open, tmp_path: Path) -> None:
    session = open_session()
    session.measure(INT8WO)
    session.close(interrupted=True)
    assert f"{INT8WO}: weight_bytes" in read_record(tmp_path / "run").missing


def test_a_session_that_measured_nothing_leaves_no_directory(open_session: Open, tmp_path: Path) -> None:
    session = open_session()
    assert session.close(interrupted=False) is None
    assert not (tmp_path / "run").exists()


def test_throttling_invalidates_times_and_leaves_counters(open_session: Open) -> None:
    session = open_session()
    session.measure(INT8WO)
    hot = make_sample(telemetry=make_telemetry(throttle_reasons=("HwThermalSlowdown",)))
    run = make_run(CASES[INT8WO], processes=(make_process(samples=(hot,)),))

    (time,) = session.judge(run, Group.LATENCY)
    counters = session.judge(run, Group.COMPILE)
    session.close(interrupted=False)

    assert (time.status, time.measured) == (Status.INVALID, None)
    assert "HwThermalSlowdown" in time.reason
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
def test_only_a_scheme_that_nobody_requires_may_be_missing(
    open_session: Open, kind: FailureKind, required: tuple[str, ...], green: bool
) -> None:
    session = open_session(dataclasses.replace(CPU, required_schemes=required))
    run = make_run(CASES[INT8WO], status=STATUS_OF_FAILURE[kind], failure=make_failure(kind=kind))
    assert session.judging.is_green(run) is green


# How many processes, how many samples


def on_h100(out: Path, baselines: Path, **changes: Any) -> Session:
    """A session that has planned the latency of one case of an H100, which the store has one process of."""
    session = Session(make_options(out=out, baselines=baselines, **changes), (), UUID)
    session.select(CASES[FP8DQROW], H100, Group.LATENCY)
    return session


@pytest.mark.parametrize(
    ("injected", "processes", "status"),
    [
        pytest.param((), 1, Status.PASS, id="unchanged"),
        pytest.param(("latency:+6%",), 2, Status.REGRESSED, id="slower"),
    ],
)
def test_a_case_gets_as_many_processes_as_its_verdicts_take(
    tmp_path: Path, recorded: Path, injected: tuple[str, ...], processes: int, status: Status
) -> None:
    session = on_h100(tmp_path / "run", recorded, drills=tuple(map(parse_drill, injected)))
    run = session.measure(FP8DQROW)
    verdicts = {each.metric: each.status for each in session.judge(run, Group.LATENCY)}
    session.close(interrupted=False)
    assert (len(run.processes), verdicts["denoise_step_ms"]) == (processes, status)


def test_processes_beyond_the_bound_are_not_asked_for(tmp_path: Path, recorded: Path) -> None:
    drills = (parse_drill("latency:+6%"),)
    session = on_h100(tmp_path / "run", recorded, drills=drills, max_processes=1)
    run = session.measure(FP8DQROW)
    (verdict, *_) = session.judge(run, Group.LATENCY)
    session.close(interrupted=False)
    assert (len(run.processes), verdict.status) == (1, Status.REGRESSED)


def test_a_process_that_is_precise_early_is_sampled_no_further(tmp_path: Path, recorded: Path) -> None:
    session = on_h100(tmp_path / "run", recorded)
    (process,) = session.measure(FP8DQROW).processes
    session.close(interrupted=False)
    assert (len(process.samples), process.sampling_end) == (5, SamplingEnd.PRECISE)


def test_the_level_follows_from_what_the_selected_tests_judge(tmp_path: Path, recorded: Path) -> None:
    session = on_h100(tmp_path / "run", recorded)
    assert session.judging.noisy_metrics == 3  # denoise_step_ms, decode_ms, speedup_vs_bf16
    assert session.judging.level == 0.00085
    session.judging.ledger.owed.update((f"case-{number}", "decode_ms") for number in range(97))
    assert (session.judging.noisy_metrics, session.judging.level) == (100, 0.0005)


def test_what_no_test_judges_does_not_lower_the_level(tmp_path: Path, recorded: Path) -> None:
    session = on_h100(tmp_path / "run", recorded)
    session.select(candidates.CASES["flux1-dev-b1-int8dq-sparse24-regional"].case, H100, Group.LATENCY)
    assert session.judging.noisy_metrics == 4  # three as before, and decode_ms


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
def test_the_control_is_held_against_that_of_the_baselines(
    tmp_path: Path, unit: str, now_ms: float, moved: bool
) -> None:
    entry = make_entry({"control_gemm_ms": [1.0]}, case=CASES[FP8DQROW])
    stored = make_baselines(
        platform="h100",
        pipeline="flux1-dev",
        cases={FP8DQROW: entry},
        provenance={"p1": make_provenance(unit=unit)},
    )
    files.write(files.path_of(tmp_path, "h100", "flux1-dev"), stored)
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
    session.close(interrupted=False)


# Words


def test_several_violations_are_one_text_with_one_command(open_session: Open, tmp_path: Path) -> None:
    session = open_session(baselines=tmp_path / "nowhere")
    run = session.measure(INT8WO)
    text = session.explain(run, session.judge(run, Group.QUANTIZATION))
    session.close(interrupted=False)

    assert text.startswith(f"{INT8WO} on cpu: quantized_modules has no baseline")
    assert "  also       weight_bytes NO_BASELINE: no baseline is recorded" in text.splitlines()
    assert text.count("tools/rebaseline.py") == 1
    assert len(text.splitlines()) <= 24


def test_a_baseline_file_that_cannot_be_read_stops_the_planning(open_session: Open, tmp_path: Path) -> None:
    (tmp_path / "cpu").mkdir()
    (tmp_path / "cpu" / "flux-mini.json").write_text("{")
    with pytest.raises(BaselineError, match="is not JSON"):
        open_session(baselines=tmp_path)


def test_a_run_directory_that_holds_something_else_is_refused(open_session: Open, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("a year of work")
    with pytest.raises(PerfError, match=r"holds 'thesis.tex', which is not part of a run"):
        open_session(out=tmp_path).measure(INT8WO)
    assert (tmp_path / "thesis.tex").exists()


def test_a_drill_that_would_break_nothing_is_refused(open_session: Open) -> None:
    session = open_session(drills=(parse_drill("oom@flux-mini-b1-int8dq*"),))
    with pytest.raises(UsageError, match=rf"matches none of the 1 selected cases; nearest: {INT8WO}"):
        session.check()


def test_each_glob_must_select_a_case() -> None:
    with pytest.raises(
        UsageError, match=r"--perf-case '\*int4\*' matches none of the 2 cases and known issues; nearest: "
    ):
        check_globs(("*bf16*", "*int4*"), (BF16, INT8WO))


def test_nearest_names_what_looks_like_it_or_else_the_first() -> None:
    assert nearest("int8-eager", ["int8wo-eager", "bf16-full"]) == ["int8wo-eager"]
    assert nearest("???", ["a", "b", "c", "d"]) == ["a", "b", "c"]
