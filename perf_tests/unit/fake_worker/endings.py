"""How a worker ends, or does not, in the middle of a request."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from perf_tests.protocol.messages import FailureKind, Fault


class Failed(Exception):
    """A request that is answered with a failure."""

    def __init__(self, kind: FailureKind, message: str) -> None:
        super().__init__(message)
        self.kind = kind


def hang() -> NoReturn:
    """Do nothing, for ever."""
    while True:
        threading.Event().wait()


def kill_self(number: signal.Signals) -> NoReturn:
    """End by a signal, with last words in the log."""
    print("fake worker: about to end", file=sys.stderr)
    os.kill(os.getpid(), number)
    hang()


def die_once(marker: Path) -> None:
    """End by SIGKILL unless `marker` exists, which is made."""
    if not marker.exists():
        marker.touch()
        os.kill(os.getpid(), signal.SIGKILL)


def _fail(kind: FailureKind, message: str) -> NoReturn:
    raise Failed(kind, message)


STRIKES: dict[Fault, Callable[[], NoReturn]] = {
    Fault.HANG: hang,
    Fault.OOM: lambda: _fail(FailureKind.OOM, "injected: out of memory"),
    Fault.NAN: lambda: _fail(FailureKind.NUMERICS, "injected: the output holds NaN"),
    Fault.CRASH: lambda: kill_self(signal.SIGSEGV),
}
"""What the faults do that spoil a timed generation, as in the real worker."""
