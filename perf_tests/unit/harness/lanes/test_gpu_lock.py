"""lanes/gpu_lock.py: real processes that compete for one lock file."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from perf_tests.harness.lanes.gpu_lock import GpuLock
from perf_tests.protocol.errors import UsageError

HOLD = """
import sys
from pathlib import Path
from perf_tests.harness.lanes.gpu_lock import GpuLock
lock = GpuLock("GPU-1", Path(sys.argv[1]))
print("held", flush=True)
sys.stdin.read()
"""


def holder(folder: Path) -> subprocess.Popen[bytes]:
    """A process that already holds the lock, until its standard input is closed."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=Path(__file__).resolve().parents[4],
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"held\n"
    return process


def test_a_second_suite_on_the_gpu_is_refused_until_the_first_dies(tmp_path: Path) -> None:
    with holder(tmp_path) as first:
        holder_of_it = rf"process {first.pid} \(since 20\d\d-\S+\)"
        with pytest.raises(
            UsageError, match=rf"GPU-1 was asked for, but {holder_of_it} is measuring on it: wait"
        ):
            GpuLock("GPU-1", tmp_path)
        first.send_signal(signal.SIGKILL)
        first.communicate()
    GpuLock("GPU-1", tmp_path).release()


def test_a_released_gpu_is_free_and_signed_by_its_next_holder(tmp_path: Path) -> None:
    with GpuLock("GPU-1", tmp_path) as lock:
        # Longer than what the next holder writes.
        lock.path.write_text("process 4194304 (since 2026-01-01T00:00:00+00:00), and so on")
    with GpuLock("GPU-1", tmp_path) as lock:
        assert re.fullmatch(rf"process {os.getpid()} \(since \S+\+00:00\)", lock.path.read_text())


def test_gpus_are_locked_independently(tmp_path: Path) -> None:
    with GpuLock("GPU-1", tmp_path), GpuLock("GPU-2", tmp_path):
        assert sorted(file.name for file in tmp_path.iterdir()) == [
            "perf-tests-GPU-1.lock",
            "perf-tests-GPU-2.lock",
        ]


def test_a_child_does_not_hold_the_lock_of_its_parent(tmp_path: Path) -> None:
    lock = GpuLock("GPU-1", tmp_path)
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE) as child:
        lock.release()
        GpuLock("GPU-1", tmp_path).release()
        child.communicate()


def test_a_lock_file_is_open_to_other_users_despite_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        with GpuLock("GPU-1", tmp_path) as lock:
            assert lock.path.stat().st_mode & 0o777 == 0o666
    finally:
        os.umask(before)


def test_a_folder_that_cannot_hold_a_lock_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"cannot open the lock .*GPU-1.lock.*: No such file or directory"):
        GpuLock("GPU-1", tmp_path / "nowhere")


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("precious")
    (tmp_path / "perf-tests-GPU-1.lock").symlink_to(tmp_path / "precious")
    with pytest.raises(UsageError, match="cannot open the lock"):
        GpuLock("GPU-1", tmp_path)
    assert (tmp_path / "precious").read_text() == "precious"
