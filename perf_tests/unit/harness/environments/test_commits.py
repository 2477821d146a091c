"""`tools/stacks.py` and a commit of torchao in a clone."""

from __future__ import annotations

from pathlib import Path

import pytest

from perf_tests.unit.git import git
from perf_tests.unit.harness.environments.homes import build, calls, written


@pytest.fixture
def clone(tmp_path: Path) -> tuple[Path, str]:
    """A clone, and a commit of it that says of itself which it is."""
    folder = tmp_path / "clone"
    folder.mkdir()
    git(folder, "init", "-q", "-b", "main")
    git(folder, "commit", "-qm", "first", "--allow-empty")
    commit = git(folder, "rev-parse", "HEAD")
    # What is checked out beside it is what the build would write into the version.
    (folder / "version.txt").write_text(f"0.19.0+git{commit[:8]}\n")
    git(folder, "add", "-A")
    git(folder, "commit", "-qm", "second")
    return folder, git(folder, "rev-parse", "HEAD")


def test_a_commit_is_built_from_a_work_tree_that_goes_afterwards(
    home: Path, clone: tuple[Path, str], capsys: pytest.CaptureFixture[str]
) -> None:
    folder, commit = clone

    asked = (f"--torchao-clone={folder}", "--new-torch=2.14.1", "--new-torchao=@main")
    assert build(home, *asked) == 2

    parent = git(folder, "rev-parse", "HEAD^")
    problem = f"torchao is 0.19.0+git{parent[:8]}, not built from {commit}"
    assert written(home)["new"] == {"problem": problem}
    tree = home / "stacks" / "trees" / commit
    build_call = next(each for each in calls(home) if str(tree) in each)
    assert "--no-deps --compile-bytecode --no-build-isolation" in build_call
    assert not tree.exists()
    assert git(folder, "worktree", "list").count("\n") == 0
    assert capsys.readouterr().out.splitlines()[0] == f"new: there is none: {problem}"


def test_a_commit_that_the_clone_has_not_is_refused(
    home: Path, clone: tuple[Path, str], capsys: pytest.CaptureFixture[str]
) -> None:
    folder, _ = clone
    assert build(home, f"--torchao-clone={folder}", "--new-torch=2.14.1", "--new-torchao=@gone") == 2
    assert f"{folder} has no commit gone: fetch it first" in capsys.readouterr().err
