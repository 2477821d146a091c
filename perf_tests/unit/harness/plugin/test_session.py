"""A session without pytest."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from perf_tests.harness.baselines import files
from perf_tests.harness.execution.launcher import Launcher
from perf_tests.harness.plugin.options import parse_drill
from perf_tests.harness.records.process_ends import SamplingEnd
from perf_tests.harness.runs.record import Status
from perf_tests.harness.runs.record_file import read_record
from perf_tests.harness.runs.store import RunStore
from perf_tests.protocol.errors import BaselineError, PerfError
from perf_tests.tables.metrics.spec import Group
from perf_tests.tables.platforms import H100
from perf_tests.unit.conftest import BF16, CASES, FP8DQROW, INT8WO, Misbehave
from perf_tests.unit.harness.plugin.sessions import QUICK, Open, on_h100


def test_a_selected_case_owes_what_its_tests_judge(open_session: Open) -> None:
    assert open_session().judging.ledger.missing() == (
        f"{INT8WO}: build",
        f"{INT8WO}: quantized_modules",
        f"{INT8WO}: text_encoder_2_bytes",
        f"{INT8WO}: text_encoder_bytes",
        f"{INT8WO}: transformer_bytes",
        f"{INT8WO}: vae_bytes",
        f"{INT8WO}: weight_bytes",
    )


def test_a_session_measures_judges_and_closes_its_ledger(open_session: Open, tmp_path: Path) -> None:
    session = open_session()
    run = session.measure(INT8WO)
    session.settle_build(run)
    verdicts = session.judge(run, Group.QUANTIZATION)
    session.close(cut_short=False)

    assert [(each.metric, each.status) for each in verdicts] == [
        ("quantized_modules", Status.PASS),
        ("weight_bytes", Status.PASS),
        ("transformer_bytes", Status.PASS),
        ("text_encoder_bytes", Status.PASS),
        ("text_encoder_2_bytes", Status.PASS),
        ("vae_bytes", Status.PASS),
    ]
    record = read_record(tmp_path / "run")
    assert (record.cases[0].status, record.missing) == (Status.PASS, ())
    assert record.command == "-m 'a marker'"
    assert {run.id for run in record.references} == {"flux-mini-b1-fp32-eager", BF16}


def test_the_status_of_a_case_is_the_worst_of_all_its_groups(open_session: Open) -> None:
    session = open_session(drills=(parse_drill("latency:+150%"),))
    for group in (Group.LATENCY, Group.QUANTIZATION):
        session.judge(session.measure(INT8WO), group)
    session.close(cut_short=False)

    assert session.record is not None
    (run,) = session.record.cases
    assert (run.status, run.reason[:18]) == (Status.REGRESSED, "time_ratio_vs_fp32")


def test_a_closed_session_records_the_missing_verdicts(open_session: Open, tmp_path: Path) -> None:
    session = open_session()
    session.measure(INT8WO)
    session.close(cut_short=False)
    assert f"{INT8WO}: weight_bytes" in read_record(tmp_path / "run").missing


def test_a_session_that_measured_nothing_leaves_no_directory(open_session: Open, tmp_path: Path) -> None:
    session = open_session()
    assert session.close(cut_short=False) is None
    assert not (tmp_path / "run").exists()


def test_a_baseline_file_that_cannot_be_read_stops_the_selection(open_session: Open, tmp_path: Path) -> None:
    path = files.path_of(tmp_path, "cpu", "flux-mini", INT8WO)
    path.parent.mkdir(parents=True)
    path.write_text("{")
    with pytest.raises(BaselineError, match="is not JSON"):
        open_session(baselines=tmp_path)


def test_a_run_directory_that_holds_something_else_is_refused(open_session: Open, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("a year of work")
    with pytest.raises(PerfError, match=r"holds 'thesis.tex', which is not part of a run"):
        open_session(out=tmp_path).measure(INT8WO)
    assert (tmp_path / "thesis.tex").exists()


# What an interruption leaves


def test_what_was_measured_before_an_interruption_is_judged(open_session: Open, tmp_path: Path) -> None:
    session = open_session(drills=(parse_drill("latency:+150%"),))
    session.select(CASES[INT8WO], QUICK, Group.LATENCY)
    session.measure(INT8WO)
    session.close(cut_short=True)

    record = read_record(tmp_path / "run")
    assert record.missing == ()
    assert {each.metric: each.status for each in record.cases[0].verdicts} == {
        "time_ratio_vs_fp32": Status.REGRESSED,
        "step_tflop": Status.PASS,
        "quantize_s": Status.PASS,
        "quantized_modules": Status.PASS,
        "weight_bytes": Status.PASS,
        "transformer_bytes": Status.PASS,
        "text_encoder_bytes": Status.PASS,
        "text_encoder_2_bytes": Status.PASS,
        "vae_bytes": Status.PASS,
    }


def test_nothing_is_measured_to_judge_what_was_interrupted(
    open_session: Open, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a worker is started")

    session = open_session()
    session.measure(INT8WO)
    monkeypatch.setattr(RunStore, "usable_references", lambda *_, **__: [])
    monkeypatch.setattr(Launcher, "spawn", refuse)
    session.close(cut_short=True)

    assert f"{INT8WO}: build" not in read_record(tmp_path / "run").missing
    assert f"{INT8WO}: weight_bytes" in read_record(tmp_path / "run").missing


def test_a_time_that_calls_for_another_stack_stays_owed_after_an_interruption(
    tmp_path: Path, recorded: Path
) -> None:
    drills = (parse_drill("latency:+6%"),)
    session = on_h100(tmp_path / "run", recorded, drills=drills, against=sys.executable)
    session.select(CASES[FP8DQROW], H100, Group.MEMORY)
    session.measure(FP8DQROW)
    session.close(cut_short=True)

    record = read_record(tmp_path / "run")
    assert f"{FP8DQROW}: denoise_step_ms" in record.missing
    assert not [each for each in record.missing if "peak" in each]
    assert {each.status for each in record.cases[0].verdicts} == {Status.PASS}


def test_a_failure_before_an_interruption_is_owed_nothing(open_session: Open, tmp_path: Path) -> None:
    session = open_session(drills=(parse_drill(f"oom@{INT8WO}"),))
    session.measure(INT8WO)
    session.close(cut_short=True)

    record = read_record(tmp_path / "run")
    assert (record.cases[0].status, record.cases[0].verdicts, record.missing) == (Status.OOM, (), ())


# How many processes, how many samples


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
    session.close(cut_short=False)
    assert (len(run.processes), verdicts["denoise_step_ms"]) == (processes, status)


def test_processes_beyond_the_bound_are_not_asked_for(tmp_path: Path, recorded: Path) -> None:
    drills = (parse_drill("latency:+6%"),)
    session = on_h100(tmp_path / "run", recorded, drills=drills, max_processes=1)
    run = session.measure(FP8DQROW)
    (verdict, *_) = session.judge(run, Group.LATENCY)
    session.close(cut_short=False)
    assert (len(run.processes), verdict.status) == (1, Status.REGRESSED)


@pytest.mark.parametrize(
    ("switch", "metric", "processes", "status", "retaken"),
    [
        pytest.param("", "leaked_mib_per_image", 1, Status.PASS, 0, id="unchanged"),
        pytest.param("leaks:8", "leaked_mib_per_image", 1, Status.REGRESSED, 0, id="leak"),
        pytest.param("leaks:17", "host_growth_mib_per_image", 1, Status.REGRESSED, 0, id="host-leak"),
        pytest.param("slows:2", "slowing_pct", 2, Status.REGRESSED, 0, id="slows-down"),
        pytest.param("stalls:1", "stalled_images", 1, Status.PASS, 1, id="one-stall"),
        pytest.param("stalls:2", "stalled_images", 1, Status.REGRESSED, 2, id="two-stalls"),
    ],
)
def test_leaks_slowing_down_and_stalls_are_red(
    tmp_path: Path,
    recorded: Path,
    misbehave: Misbehave,
    switch: str,
    metric: str,
    processes: int,
    status: Status,
    retaken: int,
) -> None:
    misbehave(f"{switch}@{FP8DQROW}" if switch else "")
    session = on_h100(tmp_path / "run", recorded)
    session.select(CASES[FP8DQROW], H100, Group.MEMORY)
    run = session.measure(FP8DQROW)
    verdicts = [each for group in (Group.LATENCY, Group.MEMORY) for each in session.judge(run, group)]
    session.close(cut_short=False)
    verdict = next(each for each in verdicts if each.metric == metric)
    assert (verdict.status, len(run.processes)) == (status, processes), verdict.reason
    # What stalled does not stay among the samples.
    assert len(run.processes[0].retaken) == retaken


def test_a_process_that_is_precise_early_is_sampled_no_further(tmp_path: Path, recorded: Path) -> None:
    session = on_h100(tmp_path / "run", recorded)
    (process,) = session.measure(FP8DQROW).processes
    session.close(cut_short=False)
    assert (len(process.samples), process.sampling_end) == (5, SamplingEnd.PRECISE)
