"""baselines/transaction.py: several files, all replaced or none, whatever happens in between."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest

from perf_tests.harness.baselines import files, transaction
from perf_tests.harness.baselines.transaction import exclusive, replace_all, unfinished
from perf_tests.protocol.errors import BaselineError
from perf_tests.protocol.files import replace_atomically
from perf_tests.unit.builders import make_baselines
from perf_tests.unit.forked import Forked


def contents(root: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in root.iterdir() if not path.name.startswith(".")}


class Killed(BaseException):
    """Stands for SIGKILL."""


def kill_at(monkeypatch: pytest.MonkeyPatch, replacement: int) -> None:
    """Die instead of replacing the file of that number, the journal being the first."""
    done: list[Path] = []

    def dies(path: Path, content: bytes) -> None:
        if len(done) == replacement:
            raise Killed
        done.append(path)
        replace_atomically(path, content)

    monkeypatch.setattr(transaction, "replace_atomically", dies)


@pytest.mark.parametrize(
    ("replacement", "found"),
    [
        pytest.param(0, {"a": "old", "b": "old"}, id="before-the-journal"),
        pytest.param(1, {"a": "new", "b": "new"}, id="after-the-journal"),
        pytest.param(2, {"a": "new", "b": "new"}, id="between-two-files"),
    ],
)
def test_a_kill_leaves_all_files_old_or_all_new(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, replacement: int, found: dict[str, str]
) -> None:
    a, b = tmp_path / "a", tmp_path / "b"
    with exclusive(tmp_path):
        replace_all(tmp_path, {a: "old", b: "old"})
    kill_at(monkeypatch, replacement)
    with pytest.raises(Killed), exclusive(tmp_path):
        replace_all(tmp_path, {a: "new", b: "new"})
    monkeypatch.undo()
    left = {path.name: text for path, text in unfinished(tmp_path).items()}
    assert contents(tmp_path) | left == found  # as a reader sees them
    with exclusive(tmp_path):
        assert contents(tmp_path) == found
    assert unfinished(tmp_path) == {}


def test_baselines_are_read_as_a_killed_process_was_writing_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    contents_of = files.contents(tmp_path, make_baselines())
    kill_at(monkeypatch, 1)
    with pytest.raises(Killed), exclusive(tmp_path):
        replace_all(tmp_path, contents_of)
    assert not any(path.exists() for path in contents_of)
    found = files.load(tmp_path, "cpu")["flux-mini"].cases
    assert {case: each.metrics for case, each in found.items()} == {
        case: each.metrics for case, each in make_baselines().cases.items()
    }
    assert files.load(tmp_path, "h100") == {}


def add_twenty(root: Path) -> int:
    """Add one to the count that often, as commands do that change several files at once."""
    for _ in range(20):
        with exclusive(root):
            count = int((root / "count").read_text())
            replace_all(root, {root / "count": str(count + 1), root / "copy": str(count + 1)})
    return 0


def test_processes_that_change_the_same_files_lose_nothing(tmp_path: Path) -> None:
    (tmp_path / "count").write_text("0")
    adding = [Forked(partial(add_twenty, tmp_path)) for _ in range(3)]
    assert [process.wait() for process in adding] == [0, 0, 0]
    assert contents(tmp_path) == {"count": "60", "copy": "60"}


def test_a_disk_that_is_full_before_the_journal_is_written_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, content: bytes) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(transaction, "replace_atomically", full)
    with pytest.raises(BaselineError, match=r"cannot be written: .*No space left.*; nothing is changed"):
        replace_all(tmp_path, {tmp_path / "a": "new"})
    assert contents(tmp_path) == {}


def test_a_file_that_cannot_be_replaced_is_replaced_by_the_next_command(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    with pytest.raises(BaselineError, match=r"the new baselines count, but .*rebaseline\.py rewrite"):
        replace_all(tmp_path, {tmp_path / "a": "new", tmp_path / "b": "new"})
    (tmp_path / "b").rmdir()
    with exclusive(tmp_path):
        assert contents(tmp_path) == {"a": "new", "b": "new"}


def test_a_broken_journal_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / ".journal.json").write_text("{")
    with pytest.raises(BaselineError, match=r"the journal .* of an interrupted change cannot be read"):
        files.load(tmp_path, "cpu")
