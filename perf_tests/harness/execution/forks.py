"""Decides how the process of a worker is started: forked, from a spare, or when it is wanted."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext, suppress
from functools import partial
from pathlib import Path
from typing import BinaryIO, Protocol

from perf_tests.harness.execution.planned import Planned
from perf_tests.harness.processes import worker_process
from perf_tests.harness.processes.fork_server import ForkServer, ForkServerError
from perf_tests.harness.processes.inherited import SECRETS
from perf_tests.harness.processes.process_group import Leader
from perf_tests.harness.processes.spare import Spare
from perf_tests.harness.processes.worker_process import StartProcess, log_tail
from perf_tests.protocol.messages import Fork
from perf_tests.protocol.reports import Gpu
from perf_tests.tables.platforms import WorkerStart

CACHES = {"TORCHINDUCTOR_CACHE_DIR": "inductor", "TRITON_CACHE_DIR": "triton"}
"""Environment variable -> the folder of a worker's caches that it names."""
OF_SINGLE_WORKERS = {*CACHES, *(name for names in SECRETS.values() for name in names)}
"""Environment variables that not every worker has. What imports has caches of its own, and no secrets."""


class Supply(Protocol):
    """What has a process that has imported the stack: `ForkServer.fork`, `Spare.take`."""

    def __call__(
        self, order: Fork, /, *, request_fd: int, reply_fd: int, output: int, timeout_s: float
    ) -> Leader:
        """A worker with these ends of its pipes. Raises ForkServerError or OSError where there is none."""


class Forks:
    """The processes of one launcher that have imported the stack: a fork server, or the next worker."""

    def __init__(self, command: tuple[str, ...] | None, folder: Path, caches: Path) -> None:
        """`command` is what follows the interpreter; None for none of these processes. Their logs are in
        `folder`, and what torch caches while it is imported in `caches`."""
        self.gave_up: str | None = None
        """Why workers import when they are wanted, although the platform has it otherwise; None where they
        do not."""
        self._command = command
        self._folder = folder
        # torch keeps some paths of caches from when it was imported. Those of its default folder would be of
        # other runs.
        self._caches = {name: str(caches / kind) for name, kind in CACHES.items()}
        self._server: ForkServer | None = None
        self._spare: Spare | None = None
        self._interpreter = ""
        self._gpu: Gpu | None = None
        self._variables: dict[str, str] = {}
        """Of every worker, and the caches of importing."""

    def starter(self, planned: Planned) -> StartProcess | None:
        """What starts the process of a worker for `planned`; None for what starts all others."""
        if self._command is None:
            return None
        return partial(self._start, self._command, planned)

    def ready_next(self, planned: Planned, gpu: Gpu | None) -> None:
        """Begin to import for the worker after that of `planned`, which computes on `gpu`, where the platform
        does so ahead."""
        self._gpu = gpu
        is_ahead = planned.platform.worker_start is WorkerStart.AHEAD
        if self._command is None or not is_ahead or self._spare is not None or not self._interpreter:
            return
        command = (self._interpreter, *self._command)
        with suppress(OSError):  # the next worker is started when it is wanted, and reports why it cannot be
            self._spare = Spare(command, self._variables, self._log(planned), self._order(planned, {}))

    def quiet(self) -> AbstractContextManager[None]:
        """While nothing is imported."""
        return nullcontext() if self._spare is None else self._spare.paused()

    def drop_spare(self) -> None:
        """End the next worker, if there is one: other launchers measure now."""
        spare, self._spare = self._spare, None
        if spare is not None:
            spare.close()

    def close(self) -> None:
        """End these processes, from any thread, and have no more of them. Idempotent."""
        self._command = None
        for each in (self._server, self._spare):
            if each is not None:
                each.close()

    def _start(
        self,
        supply: tuple[str, ...],
        planned: Planned,
        command: tuple[str, ...],
        /,
        *,
        request_fd: int,
        reply_fd: int,
        output: BinaryIO,
        environment: dict[str, str],
    ) -> Leader:
        """A worker that has imported; one that is started as any other if that fails, as are all after it."""
        self._interpreter = command[0]
        shared = {name: environment[name] for name in environment if name not in OF_SINGLE_WORKERS}
        self._variables = {**shared, **self._caches}
        pipes = {"request_fd": request_fd, "reply_fd": reply_fd}
        try:
            if take := self._supply(planned, supply):
                return take(
                    self._order(planned, environment),
                    **pipes,
                    output=output.fileno(),
                    timeout_s=planned.platform.timeouts.import_s,
                )
        except (ForkServerError, OSError, UnicodeEncodeError) as error:
            # Nothing is lost but time: where an interpreter of its own fails as well, that is reported. An
            # order cannot hold a variable that is not UTF-8, which an interpreter inherits.
            self.close()
            last_words = log_tail(self._log(planned)).rpartition("\n")[2]
            self.gave_up = ": ".join(filter(None, (str(error), last_words)))
        return worker_process.start_process(command, **pipes, output=output, environment=environment)

    def _supply(self, planned: Planned, command: tuple[str, ...]) -> Supply | None:
        if planned.platform.worker_start is WorkerStart.FORKED:
            if self._server is None:
                command = (self._interpreter, *command)
                self._server = ForkServer(command, self._variables, self._log(planned))
            return self._server.fork
        spare, self._spare = self._spare, None
        return None if spare is None else spare.take

    def _order(self, planned: Planned, variables: dict[str, str]) -> Fork:
        capability = self._gpu.capability if self._gpu else None
        return Fork(variables=variables, imports=planned.case.build.targets, capability=capability)

    def _log(self, planned: Planned) -> Path:
        return self._folder / LOGS[planned.platform.worker_start]


LOGS = {WorkerStart.FORKED: "fork-server.log", WorkerStart.AHEAD: "spare.log"}
"""The file that what imports writes to."""
