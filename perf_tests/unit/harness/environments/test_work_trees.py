"""Work trees of a generated clone: several at once, and what a git that was killed leaves."""

from __future__ import annotations

import shutil
from contextlib import suppress
from pathlib import Path

import pytest

from perf_tests.harness.environments import work_trees
from perf_tests.harness.environments.uv import InstallError
from perf_tests.harness.environments.work_trees import LOCK, WorkTrees
from perf_tests.harness.runs.file_lock import FileLock, HeldError
from perf_tests.unit.git import git


@pytest.fixture
def trees(tmp_path: Path) -> WorkTrees:
    clone = tmp_path / "clone"
    clone.mkdir()
    git(clone, "init", "-q")
    (clone / "level").write_text("1")
    git(clone, "add", "-A")
    git(clone, "commit", "-qm", "first")
    return WorkTrees(clone=clone)


def known(trees: WorkTrees) -> list[str]:
    lines = git(trees.clone, "worktree", "list", "--porcelain").splitlines()
    return [Path(line.split()[1]).name for line in lines if line.startswith("worktree ")]


def test_a_tree_is_checked_out_in_place_of_what_is_there_and_removed(
    trees: WorkTrees, tmp_path: Path
) -> None:
    tree = tmp_path / "trees" / "first"
    tree.mkdir(parents=True)
    (tree / "old").touch()
    trees.add(tree, "HEAD")
    assert sorted(each.name for each in tree.iterdir()) == [".git", "level"]
    assert known(trees) == ["clone", "first"]
    trees.remove(tree)
    assert (tree.exists(), known(trees)) == (False, ["clone"])


def test_git_makes_and_removes_trees_while_others_are_locked_out(
    trees: WorkTrees, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else about one of sixty that run at once fails: it reads what another has half written."""
    ran: list[str] = []
    said, rmtree = work_trees.git, shutil.rmtree

    def is_held() -> bool:
        with suppress(HeldError), FileLock(trees.clone / ".git" / LOCK):
            return False
        return True

    def watched(clone: Path, *arguments: str, lock: FileLock | None = None) -> str:
        if arguments[0] == "worktree":
            assert is_held()
            assert lock is not None  # and git keeps it, should this process be killed
            ran.append(arguments[1])
        return said(clone, *arguments, lock=lock)

    def emptied(path: Path, *, ignore_errors: bool) -> None:
        assert is_held()
        ran.append("rmtree")
        rmtree(path, ignore_errors=ignore_errors)

    monkeypatch.setattr(work_trees, "git", watched)
    monkeypatch.setattr(shutil, "rmtree", emptied)
    (tmp_path / "tree").mkdir()
    trees.add(tmp_path / "tree", "HEAD")
    trees.remove(tmp_path / "tree")
    assert ran == ["rmtree", "remove", "add", "rmtree", "remove"]
    FileLock(trees.clone / ".git" / LOCK).release()


def test_a_tree_waits_for_another_process(
    trees: WorkTrees, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    class NotWaiting(FileLock):
        def __init__(self, path: Path, *, wait: bool) -> None:
            asked.append(wait)
            super().__init__(path)

    monkeypatch.setattr(work_trees, "FileLock", NotWaiting)
    with FileLock(trees.clone / ".git" / LOCK), pytest.raises(HeldError):
        trees.add(tmp_path / "tree", "HEAD")
    assert asked == [True]


@pytest.mark.parametrize("lost", ["folder", "link"])
@pytest.mark.parametrize("is_locked", [False, True])
@pytest.mark.parametrize("is_removed", [False, True])
def test_what_a_git_that_was_killed_leaves_is_removed_or_made_anew(
    trees: WorkTrees, tmp_path: Path, lost: str, is_locked: bool, is_removed: bool
) -> None:
    tree = tmp_path / "tree"
    trees.add(tree, "HEAD")
    (tree / ".git").unlink()
    if lost == "folder":
        (tree / "level").unlink()
        tree.rmdir()
    if is_locked:
        (trees.clone / ".git" / "worktrees" / "tree" / "locked").write_text("initializing")
    if is_removed:
        trees.remove(tree)
        assert (tree.exists(), known(trees)) == (False, ["clone"])
    else:
        trees.add(tree, "HEAD")
        assert ((tree / "level").exists(), known(trees)) == (True, ["clone", "tree"])


def test_a_clone_that_has_no_such_commit_says_so(trees: WorkTrees, tmp_path: Path) -> None:
    with pytest.raises(InstallError, match=r"^git worktree in .*: .*invalid reference: absent$"):
        trees.add(tmp_path / "tree", "absent")


def test_a_clone_that_cannot_be_locked_says_so_and_what_is_removed_goes(
    trees: WorkTrees, tmp_path: Path
) -> None:
    (trees.clone / ".git" / LOCK).mkdir()
    tree = tmp_path / "tree"
    tree.mkdir()
    trees.remove(tree)
    assert not tree.exists()
    with pytest.raises(InstallError, match=rf"^cannot lock .*{LOCK}, so that .*: Is a directory$"):
        trees.add(tmp_path / "tree", "HEAD")
