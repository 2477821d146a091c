"""What tests have the processes of a pool do: each of them imports this module, which needs no pytest."""

from __future__ import annotations

import os
import signal

from perf_tests.protocol.errors import PerfError


def pid_and(value: int) -> tuple[int, int]:
    """The process id of whoever answers, and `value`."""
    return os.getpid(), value


def refuse(value: int) -> int:
    """Raises PerfError."""
    raise PerfError(f"no picture {value}")


def die(_value: int) -> None:
    """End the process as the kernel's OOM killer does."""
    os.kill(os.getpid(), signal.SIGKILL)
