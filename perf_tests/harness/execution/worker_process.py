"""One worker process: how it is started, asked, timed out and killed."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, NoReturn, Self, TypeVar

import msgspec

from perf_tests.harness.execution.pipes import Pipes
from perf_tests.harness.execution.process_group import ProcessGroup
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
from perf_tests.protocol.reports import Environment

R = TypeVar("R", bound=Struct)

REPOSITORY = Path(__file__).resolve().parents[3]
COMMAND = ("-m", "perf_tests.worker")

REPLIES = msgspec.json.Decoder(Reply)

CLOSE_S = 5.0
"""Seconds a worker has to end by itself, during which it frees its GPU memory."""
KILL_S = 10.0
"""Seconds the kernel has to end a killed worker; one that is stuck in a driver may never end."""
LOG_LINES = 20
QUOTED_BYTES = 200

DOING = {
    Phase.IMPORT: "importing",
    Phase.LOAD: "loading",
    Phase.QUANTIZE: "quantizing",
    Phase.COMPILE: "compiling",
    Phase.GENERATE: "generating",
    Phase.SWITCH_WORKLOAD: "switching to another workload",
    Phase.INSPECT: "being inspected",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Inherited:
    """Environment variables of the parent that a worker gets as well."""

    names: tuple[str, ...]
    """Patterns (`fnmatch`)."""
    reason: str


INHERITED = (
    Inherited(names=("PATH", "LD_LIBRARY_PATH"), reason="where compilers and the CUDA libraries are"),
    Inherited(names=("PYTHONPATH", "VIRTUAL_ENV"), reason="where the stack under test is"),
    Inherited(names=("HOME", "USER", "TMPDIR"), reason="folders that libraries insist on"),
    Inherited(names=("LANG", "LC_ALL"), reason="encoding of logs"),
    Inherited(names=("CUDA_*", "NVIDIA_*"), reason="which GPUs this session may use"),
    Inherited(names=("HF_*",), reason="where pretrained weights are stored, and the token for gated ones"),
    Inherited(names=("TRITON_*",), reason="where Triton finds ptxas and libcuda"),
)
NOT_INHERITED = {
    "CUDA_CACHE_PATH": "a cache of another run would turn a cold compilation warm",
    "TRITON_CACHE_DIR": "a cache of another run would turn a cold compilation warm",
    "TRITON_CACHE_MANAGER": "a remote cache would turn a cold compilation warm",
}
ALWAYS = {
    "PYTHONFAULTHANDLER": "1",  # the Python stack of a segmentation fault in the log
    "PYTHONUNBUFFERED": "1",  # the last words of a killed worker in the log
    "DIFFUSERS_ATTN_BACKEND": "native",  # torch's attention, even if diffusers comes to prefer another
}


def worker_environment(parent: Mapping[str, str], variables: Mapping[str, str]) -> dict[str, str]:
    """The environment of a worker: the variables of `parent` that it may have, overridden by `variables`.

    This repository comes first on its PYTHONPATH.
    """
    patterns = [name for group in INHERITED for name in group.names]
    allowed = {
        name: value
        for name, value in parent.items()
        if name not in NOT_INHERITED and any(fnmatchcase(name, pattern) for pattern in patterns)
    }
    search_path = os.pathsep.join(filter(None, (str(REPOSITORY), allowed.get("PYTHONPATH"))))
    return {**allowed, **ALWAYS, "PYTHONPATH": search_path, **variables}


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


class Worker:
    """A process that holds one build. Every failure kills it with its whole group before it is raised.

    It must be spawned by a thread that outlives it, because the kernel's parent-death signal ends it with
    that thread. One thread may ask it while any other may `abort` it.
    """

    def __init__(
        self, process: subprocess.Popen[bytes], *, request_fd: int, reply_fd: int, python: str, log: Path
    ) -> None:
        self._group = ProcessGroup(process)
        self._pipes = Pipes(request_fd=request_fd, reply_fd=reply_fd, is_over=self._is_over)
        self._python = python
        self._log = log
        self._is_aborted = False
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
    ) -> Self:
        """A worker that is still importing: `greet` it before asking it for anything.

        `command` is what follows the interpreter; `variables` override the inherited ones. Raises WorkerError
        (`load`) where there is no such interpreter, and PerfError where the log cannot be written.
        """
        interpreter = str(Path(python).absolute()) if os.sep in python else python
        child_reads, request_fd = os.pipe()
        reply_fd, child_writes = os.pipe()
        try:
            with _open_log(log) as output:
                process = start_process(
                    (interpreter, *command),
                    request_fd=child_reads,
                    reply_fd=child_writes,
                    output=output,
                    environment=worker_environment(os.environ, variables or {}),
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
        return cls(process, request_fd=request_fd, reply_fd=reply_fd, python=interpreter, log=log)

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
        started = time.monotonic()
        try:
            self._pipes.send(message, started + timeout_s)
            line = self._pipes.receive(started + timeout_s)
        except TimeoutError:
            self.kill()
            survives = "" if self._group.is_reaped else f"; process {self.pid} cannot be killed"
            self._fail(FailureKind.TIMEOUT, phase, f"no answer to {phase} within {timeout_s:g} s{survives}")
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
            raise WorkerError(reply)
        if not isinstance(reply, reply_type):
            self._fail(FailureKind.CRASH, phase, f"{expected} {_tag(type(reply))!r}: {quoted}")
        return reply

    def _explain_end(self, phase: Phase) -> NoReturn:
        status = self._group.await_exit(CLOSE_S)
        if phase is Phase.IMPORT and status is not None and status >= 0:
            self.kill()
            tail = log_tail(self._log)
            last_words = tail.rpartition("\n")[2] or f"it exited with code {status} and an empty log"
            raise WorkerError(_not_started(self._python, last_words, tail))
        self._fail(FailureKind.CRASH, phase, f"{_end(status)} while {DOING[phase]}")

    def _fail(self, kind: FailureKind, phase: Phase, message: str) -> NoReturn:
        self.kill()
        raise WorkerError(Failure(kind=kind, phase=phase, message=message, details=log_tail(self._log)))


def log_tail(log: Path) -> str:
    """The last `LOG_LINES` lines of a worker's log; empty where there is no log."""
    try:
        text = log.read_text(errors="replace")
    except OSError:
        return ""
    return "\n".join(text.rstrip().splitlines()[-LOG_LINES:])


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
