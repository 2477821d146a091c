"""retention/arrays.py: which arrays stay while a session measures, and what a resumed one makes of it."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from perf_tests.harness.retention.arrays import ArrayFiles, array_files
from perf_tests.harness.runs.record import Progress, Run, Status
from perf_tests.harness.runs.store import RunStore, SessionStart
from perf_tests.protocol.messages import Failure, FailureKind, Phase
from perf_tests.protocol.reports import Arrays, Capture, Recorded
from perf_tests.unit.builders import make_process, make_run

BF16, INT8WO, INT8DQ = "bf16", "int8wo", "int8dq"
DEPENDANTS = {BF16: (INT8WO, INT8DQ)}
STARTED_AT = "2026-01-02T03:04:05+00:00"


def measured(case_id: str, **changes: object) -> Run:
    """A complete run with arrays of every kind."""

    def capture(name: str) -> Capture:
        stem = f"captures/{case_id}.{name}"
        return Capture(array=f"{stem}.npy", sha256="00", image=f"{stem}.png")

    process = make_process(
        captures=(capture("0.0"), capture("0.1")),
        arrays=Arrays(file=f"captures/{case_id}.0.timed.npz", sha256="00"),
        recorded=Recorded(
            arrays=Arrays(file=f"captures/{case_id}.0.eager.npz", sha256="00"), picture=capture("0.eager")
        ),
    )
    run = msgspec.structs.replace(make_run(), id=case_id, processes=(process,), progress=Progress.MEASURED)
    return msgspec.structs.replace(run, **changes)


class Session:
    """A store of two cases and their reference, which nobody selected, and the arrays of its runs."""

    def __init__(self, out: Path) -> None:
        self.out = out
        blanks = {case_id: msgspec.structs.replace(make_run(), id=case_id) for case_id in (INT8WO, INT8DQ)}
        start = SessionStart(started_at=STARTED_AT, command_line="pytest")
        self.store = RunStore(out, blanks, start, lambda: None)
        self.arrays = ArrayFiles(out, DEPENDANTS, self.store)

    def measure(self, run: Run) -> None:
        """Keep the run, with its files, and remove what nothing needs any more."""
        pictures = {capture.image for process in run.processes for capture in process.captures}
        for name in {*array_files(run), *pictures}:
            (self.out / name).parent.mkdir(exist_ok=True)
            (self.out / name).write_bytes(b"0" * 100)
        self.store.keep(run, implicit=run.id == BF16)
        self.arrays.remove_unneeded()

    def left(self, case_id: str) -> int:
        """How many arrays of a case are there."""
        return sum(path.suffix != ".png" for path in (self.out / "captures").glob(f"{case_id}.*"))


@pytest.fixture
def session(tmp_path: Path) -> Session:
    return Session(tmp_path)


def test_all_arrays_of_a_run_are_found() -> None:
    assert sorted(array_files(measured(INT8WO))) == [
        "captures/int8wo.0.0.npy",
        "captures/int8wo.0.1.npy",
        "captures/int8wo.0.eager.npy",
        "captures/int8wo.0.eager.npz",
        "captures/int8wo.0.timed.npz",
    ]


def test_arrays_of_a_case_go_at_once_and_pictures_stay(session: Session) -> None:
    session.measure(measured(INT8WO))

    assert session.left(INT8WO) == 0
    assert sorted(path.name for path in (session.out / "captures").iterdir()) == [
        "int8wo.0.0.png",
        "int8wo.0.1.png",
    ]


def test_a_reference_keeps_its_arrays_until_its_last_case_is_compared(session: Session) -> None:
    session.measure(measured(BF16))
    assert session.left(BF16) == 5
    session.measure(measured(INT8WO))
    assert session.left(BF16) == 5
    session.measure(measured(INT8DQ))
    assert session.left(BF16) == 0


def test_arrays_that_are_read_stay_until_they_were(session: Session) -> None:
    """Another card completes a case while the last one that is compared with a reference is drawn."""
    session.measure(measured(BF16))
    with session.arrays.in_use(INT8DQ):
        session.measure(measured(INT8DQ))
        session.measure(measured(INT8WO))
        assert (session.left(INT8DQ), session.left(BF16), session.left(INT8WO)) == (5, 5, 0)
    session.arrays.remove_unneeded()
    assert (session.left(INT8DQ), session.left(BF16)) == (0, 0)


FAILED = Failure(kind=FailureKind.OOM, phase=Phase.LOAD, message="out of memory")
BUSY = msgspec.structs.replace(FAILED, excuse="another process has 70 GiB")


@pytest.mark.parametrize(
    ("changes", "left"),
    [
        pytest.param({"progress": Progress.INTERRUPTED}, 5, id="interrupted"),
        pytest.param({"status": Status.NOT_RUN, "processes": ()}, 5, id="no-time-left"),
        pytest.param({"failure": BUSY, "status": Status.INVALID}, 5, id="excused"),
        pytest.param({"failure": FAILED, "status": Status.OOM}, 0, id="failed"),
    ],
)
def test_a_reference_keeps_its_arrays_for_cases_that_a_resumed_session_measures(
    session: Session, changes: dict[str, object], left: int
) -> None:
    session.measure(measured(BF16))
    session.measure(measured(INT8WO))
    session.measure(measured(INT8DQ, **changes))

    assert session.left(BF16) == left


def test_outputs_that_could_not_be_compared_stay(session: Session) -> None:
    failure = msgspec.structs.replace(FAILED, kind=FailureKind.NUMERICS, message="one colour")
    session.measure(measured(INT8WO, failure=failure, status=Status.NUMERICS))

    assert session.left(INT8WO) == 5


def test_a_record_names_no_file_to_be_removed_elsewhere(session: Session, tmp_path: Path) -> None:
    precious = tmp_path / "precious.npy"
    precious.touch()
    run = measured(INT8WO)
    elsewhere = Capture(array="captures/../precious.npy", sha256="00", image="captures/int8wo.png")
    process = msgspec.structs.replace(run.processes[0], captures=(elsewhere,))
    session.store.keep(msgspec.structs.replace(run, processes=(process,)), implicit=False)
    session.arrays.remove_unneeded()

    assert precious.exists()


def test_a_run_has_its_arrays_until_they_are_removed(session: Session) -> None:
    session.measure(run := measured(BF16))
    assert session.arrays.has(run)
    for case_id in (INT8WO, INT8DQ):
        session.measure(measured(case_id))
    assert not session.arrays.has(run)
    assert session.arrays.has(msgspec.structs.replace(run, processes=()))
