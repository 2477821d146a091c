"""Forks fake workers from one process that has already imported everything they need.

Starting an interpreter that imports the tables takes 150 ms of CPU time, a fork 7 ms.

    python -m perf_tests.unit.fork_server --socket-fd N [--once] [--dies-after COUNT] [--hangs-after COUNT]
"""

from __future__ import annotations

import argparse
import gc
import os
import socket
import sys
import threading
from pathlib import Path
from typing import BinaryIO

from perf_tests.harness.processes import worker_process
from perf_tests.harness.processes.fork_server import ForkServer
from perf_tests.harness.processes.process_group import Leader
from perf_tests.protocol.messages import Fork
from perf_tests.unit import fake_worker
from perf_tests.unit.fake_worker import pictures, serving
from perf_tests.worker import fork_server, parent_watch

START_PROCESS = worker_process.start_process
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
        self._pids = [pid for pid in self._pids if Path(f"/proc/{pid}").exists()]
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

    def close(self) -> None:
        """End the server; workers that it has forked keep running."""
        self._server.close()


class Misbehaving:
    """A server, or a spare, that obeys so many orders, and then does not."""

    def __init__(self, dies_after: int, hangs_after: int) -> None:
        self._dies_after = dies_after
        self._hangs_after = hangs_after
        self._orders = 0

    def prepare(self, _order: Fork) -> None:
        """Before each fork."""
        self._orders += 1
        if self._orders > self._dies_after:
            sys.stderr.write("it says why\n")
            sys.stderr.flush()
            os._exit(3)
        if self._orders > self._hangs_after:
            threading.Event().wait()


def main() -> None:
    """Fork one worker per order until the tests hang up."""
    parser = argparse.ArgumentParser(prog="python -m perf_tests.unit.fork_server")
    parser.add_argument("--socket-fd", type=int, required=True)
    parser.add_argument("--once", action="store_true")
    parser.add_argument("--dies-after", type=int, default=sys.maxsize)
    parser.add_argument("--hangs-after", type=int, default=sys.maxsize)
    arguments = parser.parse_args()
    parent_watch.end_with_parent()
    orders = socket.socket(fileno=arguments.socket_fd)
    pictures.warm_up()
    gc.collect()
    gc.freeze()  # else the first collection in a worker copies all the memory that it shares
    server = Misbehaving(arguments.dies_after, arguments.hangs_after)
    supply = fork_server.serve_once if arguments.once else fork_server.serve
    supply(orders, server.prepare, serving.serve)


if __name__ == "__main__":
    main()
