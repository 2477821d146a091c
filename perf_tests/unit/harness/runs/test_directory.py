"""runs/directory.py: a directory in, an empty or a resumed one out."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from perf_tests.harness.runs.directory import RunDirectory, prepare_run_directory, resume_run_directory
from perf_tests.harness.runs.record import RunRecord
from perf_tests.harness.runs.record_file import write_record
from perf_tests.protocol.errors import PerfError, RecordError, UsageError
from perf_tests.unit.builders import MINI_BF16, make_record, make_run

ROOT = Path(__file__).resolve().parents[4]
HOLD = """
import sys
from pathlib import Path
from perf_tests.harness.runs.directory import prepare_run_directory
directory = prepare_run_directory(Path(sys.argv[1]))
print("held", flush=True)
sys.stdin.read()
"""
RECORD = msgspec.structs.replace(
    make_record(make_run(MINI_BF16), references=()), created_at="2026-01-02T03:04:05+00:00"
)


def _prepare(out: Path) -> Path:
    directory = prepare_run_directory(out)
    directory.release()
    return directory.path


def _resume(out: Path) -> tuple[Path, RunRecord | None]:
    directory = resume_run_directory(out)
    directory.release()
    return directory.path, directory.resumed


def _run(out: Path) -> Path:
    write_record(_prepare(out) / "run.json", RECORD)
    return out


# A new run


def test_a_new_directory_is_made_with_its_parents(tmp_path: Path) -> None:
    assert _prepare(tmp_path / "a" / "b") == tmp_path / "a" / "b"
    assert (tmp_path / "a" / "b").is_dir()


def test_a_relative_directory_becomes_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert _prepare(Path("out")) == tmp_path / "out"


def test_an_empty_directory_stays_where_it_is(tmp_path: Path) -> None:
    assert _prepare(tmp_path / "out") == _prepare(tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_the_previous_run_is_moved_to_its_date(tmp_path: Path) -> None:
    out = _run(tmp_path / "latest")
    _prepare(out)
    assert [path.name for path in out.iterdir()] == [".lock"]
    assert (tmp_path / "latest.20260102T030405Z" / "run.json").exists()


def test_two_runs_of_one_second_are_both_kept(tmp_path: Path) -> None:
    for _ in range(2):
        _run(tmp_path / "latest")
    _prepare(tmp_path / "latest")
    kept = sorted(path.name for path in tmp_path.iterdir())
    assert kept == ["latest", "latest.20260102T030405Z", "latest.20260102T030405Z.2"]


@pytest.mark.parametrize(
    "left",
    [
        pytest.param("run.json", id="broken-record"),
        pytest.param("logs", id="no-record"),
        pytest.param("run.json.4711.tmp", id="half-written-record"),
    ],
)
def test_a_run_without_a_date_is_moved_to_the_time_of_its_folder(tmp_path: Path, left: str) -> None:
    out = tmp_path / "latest"
    out.mkdir()
    (out / left).write_text("")
    os.utime(out, (0, 0))
    _prepare(out)
    assert (tmp_path / "latest.19700101T000000Z" / left).exists()


@pytest.mark.parametrize("name", ["thesis.tex", "old-run.json.tmp", "run.json.bak"])
def test_a_directory_of_something_else_is_refused_and_left_alone(tmp_path: Path, name: str) -> None:
    (tmp_path / name).touch()
    with pytest.raises(UsageError, match=rf"holds '{name}', which is not part of a run; give --perf-out"):
        _prepare(tmp_path)
    assert (tmp_path / name).exists()


def test_a_directory_that_cannot_be_made_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(PerfError, match=r"cannot write .*: Not a directory; choose another"):
        _prepare(tmp_path / "file" / "out")


# Two sessions

TAKE = pytest.mark.parametrize("take", [prepare_run_directory, resume_run_directory])


@TAKE
def test_a_directory_that_a_session_uses_is_refused_to_another_and_left_alone(
    tmp_path: Path, take: Callable[[Path], RunDirectory]
) -> None:
    first = prepare_run_directory(tmp_path / "latest")
    write_record(first.path / "run.json", RECORD)
    holder = rf"process {os.getpid()} \(since \S+\) is measuring into .*/latest, and two sessions"
    with pytest.raises(UsageError, match=holder):
        take(tmp_path / "latest")
    assert (tmp_path / "latest" / "run.json").exists()
    first.release()
    take(tmp_path / "latest").release()


@TAKE
def test_a_session_that_was_killed_leaves_a_directory_that_is_free(
    tmp_path: Path, take: Callable[[Path], RunDirectory]
) -> None:
    held = [sys.executable, "-c", HOLD, str(tmp_path / "latest")]
    with subprocess.Popen(held, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT) as session:
        assert session.stdout is not None
        assert session.stdout.readline() == b"held\n"
        with pytest.raises(UsageError, match=f"process {session.pid} "):
            take(tmp_path / "latest")
        session.kill()
        session.communicate()
    take(tmp_path / "latest").release()


def test_a_directory_that_is_renamed_before_it_is_locked_is_locked_under_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flock, moved = fcntl.flock, tmp_path / "moved"

    def moved_meanwhile(descriptor: int, operation: int) -> None:
        if not moved.exists():
            (tmp_path / "latest").rename(moved)
            (tmp_path / "latest").mkdir()
        flock(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", moved_meanwhile)
    with prepare_run_directory(tmp_path / "latest").lock:
        monkeypatch.undo()
        assert (moved / ".lock").read_text() == ""
        with pytest.raises(UsageError, match="two sessions would lose"):
            prepare_run_directory(tmp_path / "latest")


# A run that is resumed


def test_a_run_is_resumed_in_place_with_its_record(tmp_path: Path) -> None:
    out = _run(tmp_path / "latest")
    assert _resume(out) == (out, RECORD)
    assert [path.name for path in tmp_path.iterdir()] == ["latest"]


def test_a_run_that_was_killed_before_its_first_record_begins_again_in_place(tmp_path: Path) -> None:
    (tmp_path / "logs").mkdir()
    assert _resume(tmp_path) == (tmp_path, None)
    assert (tmp_path / "logs").exists()


def test_a_directory_that_does_not_exist_is_made_to_resume_in(tmp_path: Path) -> None:
    assert _resume(tmp_path / "out") == (tmp_path / "out", None)
    assert (tmp_path / "out").is_dir()


def test_a_broken_record_is_not_resumed(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text("{")
    with pytest.raises(RecordError, match=r"cannot read the run record .*run\.json"):
        _resume(tmp_path)


def test_a_directory_of_something_else_is_not_resumed(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(UsageError, match=r"holds 'thesis\.tex', which is not part of a run"):
        _resume(tmp_path)
