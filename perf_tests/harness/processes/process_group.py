"""A child process that leads a group of its own: how it ended, and ending it together with its children."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from contextlib import suppress
from typing import Protocol

POLL_S = 0.01


class Leader(Protocol):
    """A child process: `subprocess.Popen`, or one that was forked."""

    pid: int
    returncode: int | None

    def wait(self, timeout: float) -> int:
        """The exit code, or minus the signal. Raises `subprocess.TimeoutExpired` after that many seconds."""


class ProcessGroup:
    """The group of a child that leads a session. Safe to kill from several threads."""

    def __init__(self, leader: Leader) -> None:
        self._leader = leader
        self._reaping = threading.Lock()

    @property
    def pid(self) -> int:
        """Process id of the leader, which is also the id of the group and its session."""
        return self._leader.pid

    @property
    def is_reaped(self) -> bool:
        """Whether the leader has ended and was waited for: False after `kill` where nothing can end it."""
        return self._leader.returncode is not None

    def exit_status(self) -> int | None:
        """Exit code of the leader, or minus the signal that ended it; None while it runs.

        It leaves an ended leader unreaped, so that its process id still belongs to nobody else.
        """
        if self._leader.returncode is not None:
            return self._leader.returncode
        ended = os.waitid(os.P_PID, self._leader.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        if ended is None:
            return None
        return ended.si_status if ended.si_code == os.CLD_EXITED else -ended.si_status

    def await_exit(self, timeout_s: float) -> int | None:
        """`exit_status` once the leader has ended; None where it still runs after `timeout_s` seconds."""
        deadline = time.monotonic() + timeout_s
        while (status := self.exit_status()) is None and time.monotonic() < deadline:
            time.sleep(POLL_S)
        return status

    def kill(self, timeout_s: float) -> None:
        """Kill the whole group, and wait at most `timeout_s` seconds for the leader to end. Idempotent."""
        with self._reaping:
            if not self.is_reaped:
                self._send(signal.SIGKILL)
                with suppress(subprocess.TimeoutExpired):
                    self._leader.wait(timeout_s)

    def kill_without_waiting(self) -> None:
        """Kill the whole group and leave the leader for `kill` to reap. Idempotent."""
        with self._reaping:
            if not self.is_reaped:
                self._send(signal.SIGKILL)

    def send(self, number: signal.Signals) -> None:
        """Send a signal to the whole group, unless `kill` has ended it."""
        with self._reaping:
            if not self.is_reaped:
                self._send(number)

    def _send(self, number: signal.Signals) -> None:
        # The leader is not reaped yet, so that its group's id cannot belong to anyone else.
        with suppress(ProcessLookupError):
            os.killpg(self._leader.pid, number)
