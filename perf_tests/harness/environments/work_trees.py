"""Clones: what git says of them, and further work trees, which one git at a time makes and removes."""

from __future__ import annotations

import shutil
import subprocess
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from perf_tests.harness.environments.uv import InstallError
from perf_tests.harness.processes.plain_text import harmless
from perf_tests.harness.runs.file_lock import FileLock

TIMEOUT_S = 600.0
LOCK = "perf-tests-work-trees.lock"
"""In the folder that all work trees of a clone share."""


@dataclass(frozen=True, kw_only=True, slots=True)
class WorkTrees:
    """Further work trees of a clone, whose own one is left alone.

    While one git adds or removes a tree, another cannot: it reads what the first has half written, and fails.
    """

    clone: Path

    def add(self, tree: Path, commit: str) -> None:
        """Check a commit out into `tree`, in place of what is there. Raises InstallError where git fails."""
        with self._lock() as lock:
            if tree.exists():
                self._remove(tree, lock)
            tree.parent.mkdir(parents=True, exist_ok=True)
            # Forced twice: a git that was killed while it made the tree has left it locked.
            options = ("--quiet", "--detach", "--force", "--force")
            git(self.clone, "worktree", "add", *options, str(tree.absolute()), commit, lock=lock)

    def remove(self, tree: Path) -> None:
        """Remove a tree, if it is there, and what git knows of it. Raises nothing."""
        try:
            with self._lock() as lock:
                self._remove(tree, lock)
        except InstallError:  # perhaps the disk is too full for a lock, and this makes room
            shutil.rmtree(tree, ignore_errors=True)

    def _remove(self, tree: Path, lock: FileLock) -> None:
        shutil.rmtree(tree, ignore_errors=True)
        with suppress(InstallError):  # git does not know it
            options = ("--force", "--force")
            git(self.clone, "worktree", "remove", *options, str(tree.absolute()), lock=lock)

    def _lock(self) -> FileLock:
        path = _shared(self.clone) / LOCK
        try:
            return FileLock(path, wait=True)
        except OSError as error:
            why = f"cannot lock {path}, so that no other git makes a tree: {error.strerror}"
            raise InstallError(why) from error


def git(clone: Path, *arguments: str, lock: FileLock | None = None) -> str:
    """What git printed of a clone, without the last line's end. Raises InstallError where it fails.

    git holds `lock`, too, so that nobody has it while git goes on after its parent was killed.
    """
    command = ("git", "-C", str(clone), *arguments)
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            check=True,
            pass_fds=(lock.descriptor,) if lock else (),
        )
    except (OSError, subprocess.SubprocessError) as error:
        said = getattr(error, "stderr", "") or str(error)
        raise InstallError(f"git {arguments[0]} in {clone}: {harmless(str(said)).strip()}") from error
    return done.stdout.strip()


@cache
def _shared(clone: Path) -> Path:
    """The folder that all work trees of a clone share."""
    return clone / git(clone, "rev-parse", "--git-common-dir")
