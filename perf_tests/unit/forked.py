"""Runs a function in a process of its own, without the CPU time that starting an interpreter takes."""

from __future__ import annotations

import os
import signal
import sys
import time
import traceback
import warnings
from collections.abc import Callable
from contextlib import suppress
from typing import NoReturn

from perf_tests.worker import parent_watch

LOOK_S = 0.01


class Forked:
    """A child of this process, in a session of its own, whose exit code is what `run` returns."""

    def __init__(self, run: Callable[[], int]) -> None:
        self.exit_code: int | None = None
        with warnings.catch_warnings():
            # From Python 3.12 on, because numpy has threads: the child takes none of their locks.
            warnings.simplefilter("ignore", DeprecationWarning)
            self.pid = os.fork()
        if not self.pid:
            _run_and_exit(run)

    def wait(self, timeout_s: float = 60.0) -> int:
        """The exit code, or minus the signal; that of SIGKILL where it has not ended in time."""
        deadline = time.monotonic() + timeout_s
        while self.exit_code is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.exit_code = os.waitstatus_to_exitcode(status)
            elif time.monotonic() > deadline:
                os.kill(self.pid, signal.SIGKILL)
            else:
                time.sleep(LOOK_S)
        return self.exit_code

    def kill(self) -> None:
        """End it, whatever became of it."""
        if self.exit_code is None:
            with suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)
            self.wait()


def _run_and_exit(run: Callable[[], int]) -> NoReturn:
    """Nothing of the test that forked goes on in the child, nor what pytest does at its end."""
    code = 1
    try:
        os.setsid()
        parent_watch.end_with_parent()
        code = run()
        sys.stdout.flush()
        sys.stderr.flush()
    except BaseException:  # noqa: BLE001 - an interpreter of its own would print it, and exit with 1
        traceback.print_exc()
    finally:
        os._exit(code)
