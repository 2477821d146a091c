"""A lock is released however its holder ends, and held by whoever was given it."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from perf_tests.harness.runs.file_lock import FileLock, HeldError


@pytest.mark.parametrize("error", [OSError("No space left on device"), KeyboardInterrupt()])
def test_a_lock_that_cannot_be_signed_is_not_held(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    def refuse(*_: object) -> None:
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", refuse)
        with pytest.raises(type(error)):
            FileLock(tmp_path / "lock")
    FileLock(tmp_path / "lock").release()


def test_a_child_that_was_given_the_lock_holds_it_after_its_parent(tmp_path: Path) -> None:
    with FileLock(tmp_path / "lock") as lock:
        child = subprocess.Popen(("sleep", "60"), pass_fds=(lock.descriptor,))
    with child:
        with pytest.raises(HeldError):
            FileLock(tmp_path / "lock")
        child.kill()
    FileLock(tmp_path / "lock").release()
