"""Decides how the process of a worker is started: forked, or as an interpreter of its own."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import BinaryIO

from perf_tests.harness.execution.planned import Planned
from perf_tests.harness.processes import worker_process
from perf_tests.harness.processes.fork_server import ForkServer, ForkServerError
from perf_tests.harness.processes.inherited import SECRETS
from perf_tests.harness.processes.process_group import Leader
from perf_tests.harness.processes.worker_process import StartProcess
from perf_tests.protocol.messages import Fork

CACHES = {"TORCHINDUCTOR_CACHE_DIR": "inductor", "TRITON_CACHE_DIR": "triton"}
"""Environment variable -> the folder of a worker's caches that it names."""
OF_SINGLE_WORKERS = {*CACHES, *(name for names in SECRETS.values() for name in names)}
"""Environment variables that not every worker has, and that importing must not depend on."""


class Forks:
    """The fork server of one launcher, from its first worker on."""

    def __init__(self, command: tuple[str, ...] | None, log: Path) -> None:
        """`command` is what follows the interpreter; None for no server."""
        self._command = command
        self._log = log
        self._server: ForkServer | None = None

    def starter(self, planned: Planned) -> StartProcess | None:
        """What starts the process of a worker for `planned`; None for what starts all others."""
        if self._command is None or not planned.platform.forks_workers:
            return None
        return partial(self._fork, self._command, planned)

    def close(self) -> None:
        """End the server, from any thread, and fork no more. Idempotent."""
        self._command = None
        if self._server is not None:
            self._server.close()

    def _fork(
        self,
        server: tuple[str, ...],
        planned: Planned,
        command: tuple[str, ...],
        /,
        *,
        request_fd: int,
        reply_fd: int,
        output: BinaryIO,
        environment: dict[str, str],
    ) -> Leader:
        """A forked worker; one that is started as any other if the server fails, as are all after it."""
        if self._server is None:
            common = {name: environment[name] for name in environment if name not in OF_SINGLE_WORKERS}
            self._server = ForkServer((command[0], *server), common, self._log)
        order = Fork(variables=environment, imports=planned.case.build.targets)
        pipes = {"request_fd": request_fd, "reply_fd": reply_fd}
        try:
            return self._server.fork(
                order, **pipes, output=output.fileno(), timeout_s=planned.platform.timeouts.import_s
            )
        except (ForkServerError, OSError):
            # Nothing is lost but time: where an interpreter of its own fails as well, that is reported.
            self.close()
            return worker_process.start_process(command, **pipes, output=output, environment=environment)
