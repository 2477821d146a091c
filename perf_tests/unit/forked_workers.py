"""Starts the fake workers of the tests: from one process that has already imported everything they need.

Starting an interpreter that imports the tables takes 150 ms of CPU time, a fork 7 ms.
"""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO

from perf_tests.harness.processes import fork_server, worker_process
from perf_tests.harness.processes.fork_server import ForkServer
from perf_tests.harness.processes.process_group import Leader
from perf_tests.protocol.messages import Fork
from perf_tests.unit import fake_worker
from perf_tests.unit.fork_server import SWITCHES
from perf_tests.unit.gone import is_gone

START_PROCESS = worker_process.start_process
START_LISTENING = fork_server.start_listening
FAKE_WORKER = ("-m", fake_worker.__name__)
FORKING = ("-m", "perf_tests.unit.fork_server")
GENEROUS_S = 60.0


class FakeWorkers:
    """Starts the server on first use and asks it for workers."""

    def __init__(self) -> None:
        self._server = ForkServer((sys.executable, *FORKING), os.environ, Path(os.devnull))
        self._pids: list[int] = []

    @property
    def alive(self) -> int:
        """How many of the workers have not ended."""
        self._pids = [pid for pid in self._pids if not is_gone(pid)]
        return len(self._pids)

    def start_process(
        self,
        command: tuple[str, ...],
        *,
        request_fd: int,
        reply_fd: int,
        output: BinaryIO,
        environment: dict[str, str],
    ) -> Leader:
        """Replaces `worker_process.start_process`, which still starts every command but the fake worker's."""
        pipes = {"request_fd": request_fd, "reply_fd": reply_fd}
        if command != (sys.executable, *FAKE_WORKER):
            return START_PROCESS(command, **pipes, output=output, environment=environment)
        order = Fork(variables=environment)
        worker = self._server.fork(order, **pipes, output=output.fileno(), timeout_s=GENEROUS_S)
        self._pids.append(worker.pid)
        return worker

    def start_listening(
        self,
        command: tuple[str, ...],
        served: socket.socket,
        environment: Mapping[str, str],
        log: Path,
        *,
        once: bool = False,
    ) -> Leader:
        """Replaces `fork_server.start_listening`, which still starts every command but `FORKING`."""
        python, *module = command[: len(FORKING) + 1]
        if (python, *module) != (sys.executable, *FORKING):
            return START_LISTENING(command, served, environment, log, once=once)
        switches = (*command[len(FORKING) + 1 :], *(["--once"] if once else []))
        order = Fork(variables={**environment, SWITCHES: " ".join(switches)})
        pipes = {"request_fd": served.fileno(), "reply_fd": served.fileno()}
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("wb") as output:
            return self._server.fork(order, **pipes, output=output.fileno(), timeout_s=GENEROUS_S)

    def close(self) -> None:
        """End the server; workers that it has forked keep running."""
        self._server.close()
