"""One worker process: how it is started, asked, timed out and killed."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Collection, Mapping
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, NoReturn, Protocol, Self, TypeVar

import msgspec

from perf_tests.harness.processes.inherited import REPOSITORY, worker_environment
from perf_tests.harness.processes.pipes import MAX_LINE_BYTES, OversizedLineError, Pipes
from perf_tests.harness.processes.plain_text import harmless, harmless_strings
from perf_tests.harness.processes.process_group import Leader, ProcessGroup
from perf_tests.harness.runs import validity
from perf_tests.protocol.base import Struct
from perf_tests.protocol.errors import PerfError, WorkerError
from perf_tests.protocol.messages import (
    PHASE_OF_REQUEST,
    PROTOCOL_VERSION,
    Failure,
    FailureKind,
    Phase,
    Ready,
    Reply,
    Request,
)
from perf_tests.protocol.pressure import DelayMeter, PressureMeter, load_per_core
from perf_tests.protocol.reports import Environment

R = TypeVar("R", bound=Struct)

COMMAND = ("-m", "perf_tests.worker")

REPLIES = msgspec.json.Decoder(Reply)

CLOSE_S = 5.0
"""Seconds a worker has to end by itself, during which it frees its GPU memory."""
KILL_S = 10.0
"""Seconds the kernel has to end a killed worker; one that is stuck in a driver may never end."""
LOG_LINES = 20
LOG_BYTES = 1 << 16
"""As much of the end of a log is read, however much a worker has written."""
QUOTED_BYTES = 200

DOING = {
    Phase.IMPORT: "importing",
    Phase.LOAD: "loading",
    Phase.QUANTIZE: "quantizing",
    Phase.SAVE: "saving",
    Phase.PACKAGE: "packaging",
    Phase.COMPILE: "compiling",
    Phase.GENERATE: "generating",
    Phase.SWITCH_WORKLOAD: "switching to another workload",
    Phase.INSPECT: "being inspected",
    Phase.PROFILE: "recording what a red case does",
}


def start_process(
    command: tuple[str, ...], *, request_fd: int, reply_fd: int, output: BinaryIO, environment: dict[str, str]
) -> subprocess.Popen[bytes]:
    """Start `command` in a session of its own, in the root of this repository, with the ends of two pipes.

    Closing this process's copies of `request_fd` and `reply_fd` is left to the caller. Raises OSError where
    there is no such program.
    """
    return subprocess.Popen(
        [*command, "--request-fd", str(request_fd), "--reply-fd", str(reply_fd)],
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=subprocess.STDOUT,
        cwd=REPOSITORY,
        env=environment,
        pass_fds=(request_fd, reply_fd),
        start_new_session=True,
    )


class StartProcess(Protocol):
    """How a worker's process is started: `start_process`, unless it is forked."""

    def __call__(
        self,
        command: tuple[str, ...],
        /,
        *,
        request_fd: int,
        reply_fd: int,
        output: BinaryIO,
        environment: dict[str, str],
    ) -> Leader:
        """The process. Closing the caller's copies of the descriptors is left to the caller."""


class Worker:
    """A process that holds one build. Every failure kills it with its whole group before it is raised.

    It must be spawned by a thread that outlives it, because the kernel's parent-death signal ends it with
    that thread. One thread may ask it while any other may `abort` it.
    """

    def __init__(
        self,
        process: Leader,
        *,
        request_fd: int,
        reply_fd: int,
        python: str,
        log: Path,
        is_sharing_host: bool = False,
    ) -> None:
        self._group = ProcessGroup(process)
        self._pipes = Pipes(request_fd=request_fd, reply_fd=reply_fd, is_over=self._is_over)
        self._python = python
        self._log = log
        self._is_aborted = False
        self._is_sharing_host = is_sharing_host
        self.seconds: dict[Phase, float] = {}
        """Host seconds spent waiting for the worker, by phase."""

    environment: Environment
    """What the worker reported about itself; set once it is ready."""

    @classmethod
    def spawn(
        cls,
        *,
        python: str,
        log: Path,
        command: tuple[str, ...] = COMMAND,
        variables: Mapping[str, str] | None = None,
        secrets: Collection[str] = (),
        is_sharing_host: bool = False,
        start: StartProcess | None = None,
    ) -> Self:
        """A worker that is still importing: `greet` it before asking it for anything.

        `command` follows the interpreter; `variables` override the inherited ones; `secrets` names those with
        secrets that are inherited; with `is_sharing_host` the session measures on other cards of the host,
        too, and only what the worker itself had to wait for excuses it; `start` starts its process.

        Raises WorkerError (`load`) for no such interpreter, and PerfError for a log that cannot be written.
        """
        interpreter = str(Path(python).absolute()) if os.sep in python else python
        started = time.monotonic()
        child_reads, request_fd = os.pipe()
        reply_fd, child_writes = os.pipe()
        try:
            with _open_log(log) as output:
                process = (start or start_process)(
                    (interpreter, *command),
                    request_fd=child_reads,
                    reply_fd=child_writes,
                    output=output,
                    environment=worker_environment(os.environ, variables or {}, secrets),
                )
        except BaseException as error:
            os.close(request_fd)
            os.close(reply_fd)
            if isinstance(error, OSError):
                raise WorkerError(_not_started(interpreter, error.strerror or str(error))) from error
            raise
        finally:
            os.close(child_reads)
            os.close(child_writes)
        pipes = {"request_fd": request_fd, "reply_fd": reply_fd}
        worker = cls(process, **pipes, python=interpreter, log=log, is_sharing_host=is_sharing_host)
        worker.seconds[Phase.IMPORT] = time.monotonic() - started
        return worker

    @property
    def pid(self) -> int:
        """Process id of the worker, which is also the id of its group and session."""
        return self._group.pid

    def greet(self, timeout_s: float) -> None:
        """Wait until the worker is ready.

        Raises WorkerError: `load` where imports fail or the protocol is another version, `timeout` after
        `timeout_s` seconds.
        """
        ready = self._exchange(b"", Ready, Phase.IMPORT, timeout_s)
        if ready.protocol_version != PROTOCOL_VERSION:
            self._fail(
                FailureKind.LOAD,
                Phase.IMPORT,
                f"worker speaks protocol {ready.protocol_version}, this suite speaks {PROTOCOL_VERSION}: "
                f"{self._python} imports another perf_tests than {REPOSITORY}",
            )
        self.environment = ready.environment

    def ask(self, request: Request, reply_type: type[R], timeout_s: float) -> R:
        """The worker's answer to `request`.

        Raises WorkerError with the Failure that the worker reported, or with the timeout or crash that was
        observed instead of an answer.
        """
        phase = PHASE_OF_REQUEST[type(request)]
        return self._exchange(msgspec.json.encode(request) + b"\n", reply_type, phase, timeout_s)

    def disbelieve(self, phase: Phase, why: str) -> NoReturn:
        """Kill the worker because of its last answer, and raise WorkerError (`crash`) with `why`."""
        self._fail(FailureKind.CRASH, phase, f"the answer to {phase} is not what was asked for: {why}")

    def close(self) -> None:
        """Hang up, give the worker `CLOSE_S` to end, then kill what is left of its group. Idempotent."""
        if self._pipes.is_open:
            self._pipes.close()
            self._group.await_exit(CLOSE_S)
            self.kill()

    def kill(self) -> None:
        """End the worker and its group now; takes at most `KILL_S`. Idempotent."""
        self._group.kill(KILL_S)
        self._pipes.close()

    def abort(self) -> None:
        """End the worker while another thread is asking it, whose `ask` then fails soon, even if nothing can
        end the process.

        The pipes are left for that thread to close: a closed descriptor may be another file's a moment later.
        """
        self._is_aborted = True
        self._group.kill_without_waiting()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is None:
            self.close()
        else:
            self.kill()

    def _is_over(self) -> bool:
        return self._is_aborted or self._group.exit_status() is not None

    def _exchange(self, message: bytes, reply_type: type[R], phase: Phase, timeout_s: float) -> R:
        assert self._pipes.is_open, "a worker that was closed or failed is not asked again"
        if message and self._pipes.has_unread:
            self._fail(FailureKind.CRASH, phase, f"the worker spoke before it was asked to {phase}")
        started = time.monotonic()
        pressure = DelayMeter(self.pid) if self._is_sharing_host else PressureMeter()
        try:
            self._pipes.send(message, started + timeout_s)
            line = self._pipes.receive(started + timeout_s)
        except TimeoutError:
            self._time_out(phase, timeout_s, pressure)
        except OversizedLineError:
            written = f"the worker wrote more than {MAX_LINE_BYTES >> 20} MiB"
            self._fail(FailureKind.CRASH, phase, f"{written} and no whole answer to {phase}")
        except (EOFError, BrokenPipeError):
            self._explain_end(phase)
        self.seconds[phase] = self.seconds.get(phase, 0.0) + time.monotonic() - started
        return self._understand(line, reply_type, phase)

    def _understand(self, line: bytes, reply_type: type[R], phase: Phase) -> R:
        expected = f"expected the answer {_tag(reply_type)!r} to {phase}, the worker sent"
        if not line.strip():
            self._fail(FailureKind.CRASH, phase, f"{expected} an empty line")
        quoted = line[:QUOTED_BYTES].decode(errors="replace")
        try:
            reply = REPLIES.decode(line)
        except msgspec.DecodeError as error:
            self._fail(FailureKind.CRASH, phase, f"{expected} {quoted!r}: {error}")
        if isinstance(reply, Failure):
            self.kill()
            # Only this process decides whether a failure is the host's fault.
            raise WorkerError(harmless_strings(msgspec.structs.replace(reply, excuse="")))
        if not isinstance(reply, reply_type):
            self._fail(FailureKind.CRASH, phase, f"{expected} {_tag(type(reply))!r}: {harmless(quoted)}")
        return harmless_strings(reply)

    def _time_out(self, phase: Phase, timeout_s: float, pressure: PressureMeter | DelayMeter) -> NoReturn:
        pressure_pct, load = pressure.pressure_pct(), load_per_core()
        self.kill()
        survives = "" if self._group.is_reaped else f"; process {self.pid} cannot be killed"
        seen = f"no answer to {phase} within {timeout_s:g} s, while {validity.how_busy(pressure_pct, load)}"
        excuse = validity.excuse_of_timeout(pressure_pct, load)
        message = "; ".join(filter(None, (seen, excuse)))
        self._fail(FailureKind.TIMEOUT, phase, f"{message}{survives}", excuse=excuse)

    def _explain_end(self, phase: Phase) -> NoReturn:
        status = self._group.await_exit(CLOSE_S)
        if phase is Phase.IMPORT and status is not None and status >= 0:
            self.kill()
            tail = log_tail(self._log)
            last_words = tail.rpartition("\n")[2] or f"it exited with code {status} and an empty log"
            raise WorkerError(_not_started(self._python, last_words, tail))
        self._fail(FailureKind.CRASH, phase, f"{_end(status)} while {DOING[phase]}")

    def _fail(self, kind: FailureKind, phase: Phase, message: str, *, excuse: str = "") -> NoReturn:
        self.kill()
        details = log_tail(self._log)
        raise WorkerError(Failure(kind=kind, phase=phase, message=message, details=details, excuse=excuse))


def log_tail(log: Path) -> str:
    """The last `LOG_LINES` lines of a worker's log, made harmless; empty where there is no log."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - LOG_BYTES))
            text = file.read(LOG_BYTES).decode(errors="replace")
    except OSError:
        return ""
    return harmless("\n".join(text.rstrip().splitlines()[-LOG_LINES:]))


def _open_log(log: Path) -> BinaryIO:
    try:
        log.parent.mkdir(parents=True, exist_ok=True)
        return log.open("wb")
    except OSError as error:
        raise PerfError(
            f"cannot write the worker's log {log}: {error.strerror}; make room, or choose another directory "
            "with --perf-out"
        ) from error


def _not_started(python: str, why: str, details: str = "") -> Failure:
    return Failure(
        kind=FailureKind.LOAD,
        phase=Phase.IMPORT,
        message=f"worker interpreter {python} could not start: {why}",
        details=details,
    )


def _end(status: int | None) -> str:
    if status is None:
        return "worker closed its pipe but went on"
    if status >= 0:
        return f"worker exited with code {status}"
    name = signal.Signals(-status).name
    hint = " (by the kernel's OOM killer, if memory ran out)" if -status == signal.SIGKILL else ""
    return f"worker was killed by {name}{hint}"


def _tag(reply: type[Struct]) -> str:
    return str(reply.__struct_config__.tag)
