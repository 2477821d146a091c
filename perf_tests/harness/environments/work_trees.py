"""Work trees of a clone, one git at a time."""

from __future__ import annotations

import shutil
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from perf_tests.harness.environments.uv import InstallError, output_of
from perf_tests.harness.runs.file_lock import FileLock

LOCK = "perf-tests-work-trees.lock"
"""In the folder of the clone that all its work trees share."""


@dataclass(frozen=True, kw_only=True, slots=True)
class WorkTrees:
    """Further work trees of a clone, whose own one is left alone.

    While one git adds or removes a tree, another cannot: it reads what the first has half written, and fails.
    """

    clone: Path

    def add(self, tree: Path, commit: str) -> None:
        """Check a commit out into `tree`, in place of what is there. Raises InstallError where git fails."""
        self.remove(tree)
        tree.parent.mkdir(parents=True, exist_ok=True)
        self._alone("add", "--quiet", "--detach", "--force", str(tree.absolute()), commit)

    def remove(self, tree: Path) -> None:
        """Remove a tree, if it is there, and what git knows of it. Raises nothing."""
        shutil.rmtree(tree, ignore_errors=True)
        # Forced twice: a git that was killed while it made the tree has left it locked.
        with suppress(InstallError):  # git does not know it
            self._alone("remove", "--force", "--force", str(tree.absolute()))

    def _alone(self, *arguments: str) -> None:
        shared = self.clone / self._git("rev-parse", "--git-common-dir").strip()
        with _lock(shared / LOCK):
            self._git("worktree", *arguments)

    def _git(self, *arguments: str) -> str:
        return output_of(("git", "-C", str(self.clone), *arguments))


def _lock(path: Path) -> FileLock:
    try:
        return FileLock(path, wait=True)
    except OSError as error:
        raise InstallError(
            f"cannot lock {path}, so that no other git makes a tree: {error.strerror}"
        ) from error
