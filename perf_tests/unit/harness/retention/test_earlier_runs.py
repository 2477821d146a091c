from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from perf_tests.harness.retention.earlier_runs import remove_old
from perf_tests.harness.runs.directory import prepare_run_directory, resume_run_directory
from perf_tests.harness.runs.journal import Journal
from perf_tests.harness.runs.record import RunRecord
from perf_tests.harness.runs.record_file import write_record
from perf_tests.unit.builders import MINI_BF16, make_record, make_run


def record(day: int) -> RunRecord:
    created_at = f"2026-01-{day:02}T03:04:05+00:00"
    return msgspec.structs.replace(make_record(make_run(MINI_BF16), references=()), created_at=created_at)


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """The directory of a run, next to those of eight days before it."""
    for day in range(1, 9):
        directory = prepare_run_directory(tmp_path / "latest")
        write_record(directory.path / "run.json", record(day))
        (directory.path / "captures").mkdir()
        (directory.path / "captures" / "case.0.npy").touch()
        directory.release()
    prepare_run_directory(tmp_path / "latest").release()
    return tmp_path / "latest"


def left(out: Path) -> list[str]:
    return sorted(path.name for path in out.parent.iterdir())


def test_the_newest_five_are_kept_beside_the_run(out: Path) -> None:
    removed = remove_old(out)

    assert sorted(path.name for path in removed) == [f"latest.202601{day:02}T030405Z" for day in (1, 2, 3)]
    assert left(out) == ["latest", *(f"latest.202601{day:02}T030405Z" for day in range(4, 9))]


def test_of_two_runs_of_one_second_the_later_is_newer(out: Path) -> None:
    for day in (1, 2, 3):
        (out.parent / f"latest.202601{day:02}T030405Z").rename(
            out.parent / f"latest.20260108T030405Z.{day + 1}"
        )

    remove_old(out)

    assert left(out)[1:] == [
        "latest.20260107T030405Z",
        "latest.20260108T030405Z",
        "latest.20260108T030405Z.2",
        "latest.20260108T030405Z.3",
        "latest.20260108T030405Z.4",
    ]


def test_a_killed_run_is_recognised_by_its_journal(out: Path) -> None:
    killed = out.parent / "latest.20260101T030405Z"
    (killed / "run.json").unlink()
    Journal(killed).write(record(1))

    assert killed in remove_old(out)


@pytest.mark.parametrize(
    "name", ["latest.backup", "latest.20260101", "latest.20260101T030405Z.old", "earlier.20260101T030405Z"]
)
def test_a_run_with_another_name_is_not_touched(out: Path, name: str) -> None:
    (out.parent / "latest.20260101T030405Z").rename(out.parent / name)
    remove_old(out)

    assert (out.parent / name / "run.json").exists()


@pytest.mark.parametrize("content", ["", "{}", '{"name": "format_version"}', None])
def test_a_directory_without_a_record_of_ours_is_not_touched(out: Path, content: str | None) -> None:
    path = out.parent / "latest.20250101T000000Z"
    path.mkdir()
    (path / "thesis.tex").touch()
    if content is not None:
        (path / "run.json").write_text(content)
    remove_old(out)

    assert (path / "thesis.tex").exists()
    assert len(left(out)) == 1 + 1 + 5


def test_a_link_is_not_followed(out: Path, tmp_path: Path) -> None:
    oldest = out.parent / "latest.20260101T030405Z"
    oldest.rename(tmp_path / "precious")
    oldest.symlink_to(tmp_path / "precious")
    remove_old(out)

    assert (tmp_path / "precious" / "run.json").exists()
    assert oldest.is_symlink()


def test_a_run_that_a_session_continues_is_not_touched(out: Path) -> None:
    oldest = out.parent / "latest.20260101T030405Z"
    with resume_run_directory(oldest).lock:
        assert oldest not in remove_old(out)
    assert (oldest / "run.json").exists()


def test_a_run_that_cannot_be_removed_stops_nothing(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("shutil.rmtree", refuse)

    assert remove_old(out) == ()
    assert len(left(out)) == 1 + 8


def test_nothing_is_there_to_be_removed_before_the_first_run(tmp_path: Path) -> None:
    assert remove_old(tmp_path / "nowhere" / "latest") == ()
