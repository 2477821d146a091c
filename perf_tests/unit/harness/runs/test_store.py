from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from perf_tests.harness.runs.record import Progress, Run, Status
from perf_tests.harness.runs.record_file import read_record
from perf_tests.harness.runs.store import RunStore, SessionStart
from perf_tests.unit.builders import (
    MINI_BF16,
    MINI_INT8WO,
    make_environment,
    make_failure,
    make_process,
    make_record,
    make_reference,
    make_run,
    make_verdict,
)

CASE, REFERENCE = MINI_INT8WO.id, MINI_BF16.id
JUDGED = make_run(
    status=Status.REGRESSED,
    reason="ssim: because of ssim",
    verdicts=(make_verdict("ssim", Status.REGRESSED),),
    progress=Progress.JUDGED,
)
HERE = make_environment().unit


def open_store(out: Path, *cases: Run, references: tuple[Run, ...] = (), unit: str | None = None) -> RunStore:
    """A store for the int8wo case that resumes a record of `cases` and `references`."""
    blank = make_run(processes=(), progress=Progress.PLANNED)
    resumed = make_record(*cases, references=references) if cases or references else None
    start = SessionStart(started_at="2026-01-02T03:04:05+00:00", command_line="x", unit=unit, resumed=resumed)
    return RunStore(out, {CASE: blank}, start, lambda: None)


def elsewhere(run: Run) -> Run:
    """The run as if it was measured on another processor."""
    environment = msgspec.structs.replace(make_environment(), cpu_model="another processor")
    return msgspec.structs.replace(run, processes=(make_process(environment=environment),))


def test_a_failure_that_the_host_excuses_is_not_kept_by_a_session_that_resumes(tmp_path: Path) -> None:
    failed = make_run(failure=make_failure(), status=Status.OOM)
    excused = make_run(failure=make_failure(excuse="the host was busy"), status=Status.INVALID)
    assert open_store(tmp_path, failed).cases == {CASE: failed}
    assert open_store(tmp_path, excused, references=(excused,)).record.cases == ()
    assert open_store(tmp_path, excused, references=(excused,)).references == {}


# Filing


def test_a_verdict_makes_a_run_judged(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    store.keep(make_run(), implicit=False)
    filed = store.file(CASE, (make_verdict("ssim", Status.PASS),), Status.PASS, "")
    assert (filed.progress, filed.status) == (Progress.JUDGED, Status.PASS)
    assert read_record(tmp_path).cases == (filed,)


def test_an_inconclusive_run_without_a_verdict_is_not_judged_yet(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    store.keep(make_run(), implicit=False)
    filed = store.file(CASE, (), Status.INCONCLUSIVE, "measured, not judged")
    assert filed.progress is Progress.MEASURED


def test_an_inconclusive_verdict_is_an_outcome(tmp_path: Path) -> None:
    undecided = make_verdict("ssim", Status.INCONCLUSIVE)
    filed = open_store(tmp_path).file(CASE, (undecided,), Status.INCONCLUSIVE, "ssim: too noisy")
    assert filed.progress is Progress.JUDGED


# Resuming


def test_a_resumed_run_is_to_be_judged_again(tmp_path: Path) -> None:
    store = open_store(tmp_path, JUDGED)
    run = store.cases[CASE]
    assert (run.status, run.reason, run.verdicts) == (Status.INCONCLUSIVE, "measured, not judged", ())
    assert run.progress is Progress.MEASURED
    assert store.is_done(CASE, implicit=False)


def test_a_resumed_failure_stays_as_it_is(tmp_path: Path) -> None:
    failed = msgspec.structs.replace(JUDGED, failure=make_failure(), status=Status.OOM)
    assert open_store(tmp_path, failed).cases[CASE] == failed


def test_an_interrupted_run_is_kept_but_not_done(tmp_path: Path) -> None:
    interrupted = make_run(reason="interrupted", progress=Progress.INTERRUPTED)
    store = open_store(tmp_path, interrupted)
    assert store.cases[CASE] == interrupted
    assert not store.is_done(CASE, implicit=False)


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"digest": "0" * 64}, id="another digest"),
        pytest.param({"injected": ("latency:+3%",)}, id="other faults"),
        pytest.param({"status": Status.NOT_RUN}, id="not run"),
    ],
)
def test_a_resumed_run_of_something_else_is_dropped(tmp_path: Path, changes: dict[str, Any]) -> None:
    assert open_store(tmp_path, make_run(**changes)).record.cases == ()


def test_a_resumed_run_that_is_not_selected_is_kept_as_it_is(tmp_path: Path) -> None:
    other = msgspec.structs.replace(JUDGED, id="another")
    assert open_store(tmp_path, other).record.cases == (other,)


# References


def test_a_reference_of_another_unit_is_kept_but_not_used(tmp_path: Path) -> None:
    foreign = elsewhere(make_reference())
    store = open_store(tmp_path, references=(foreign,), unit=HERE)
    assert store.usable_references(REFERENCE, HERE, selected=False) == []
    assert store.usable_references(REFERENCE, "another processor", selected=False) == [foreign]
    assert store.record.references == (foreign,)


def test_a_reference_without_processes_is_used_on_every_unit(tmp_path: Path) -> None:
    failed = make_reference(processes=(), failure=make_failure(), status=Status.OOM)
    store = open_store(tmp_path, references=(failed,), unit=HERE)
    assert store.usable_references(REFERENCE, HERE, selected=False) == [failed]


def test_an_interrupted_reference_is_not_used(tmp_path: Path) -> None:
    interrupted = make_reference(progress=Progress.INTERRUPTED)
    store = open_store(tmp_path, references=(interrupted,))
    assert store.usable_references(REFERENCE, None, selected=False) == []
