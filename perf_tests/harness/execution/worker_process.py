"""One worker process: started, asked, timed out, killed."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, NoReturn, Self, TypeVar

import msgspec

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

LOOK_S = 0.2
"""How often a silent worker is looked at: one that died may have left its pipe to a child."""
CLOSE_S = 5.0
"""What a worker may take to end by itself; it frees its GPU memory meanwhile."""
KILL_S = 10.0
"""What the kernel may take to end a killed worker; one stuck in a driver may never end."""
CHUNK_BYTES = 1 << 16
LOG_LINES = 20
QUOTED_CHARACTERS = 200

DOING = {
    Phase.IMPORT: "importing",
    Phase.LOAD: "loading",
    Phase.QUANTIZE: "quantizing",
    Phase.COMPILE: "compiling",
    Phase.GENERATE: "generating",
    Phase.SWITCH_WORKLOAD: "turning to another workload",
    Phase.INSPECT: "being inspected",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Inherited:
    """Variables of the parent that a worker gets, too."""

    names: tuple[str, ...]
    """Patterns (`fnmatch`)."""
    reason: str


INHERITED = (
    Inherited(names=("PATH", "LD_LIBRARY_PATH"), reason="find compilers and the CUDA libraries"),
    Inherited(names=("PYTHONPATH", "VIRTUAL_ENV"), reason="find the stack under test"),
    Inherited(names=("HOME", "USER", "TMPDIR"), reason="folders that libraries insist on"),
    Inherited(names=("LANG", "LC_ALL"), reason="encoding of logs"),
    Inherited(names=("CUDA_*", "NVIDIA_*"), reason="which GPUs this session may use"),
    Inherited(names=("HF_*",), reason="where pretrained weights lie, and the token for gated ones"),
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
    "DIFFUSERS_ATTN_BACKEND": "native",  # torch's attention, whatever diffusers comes to prefer
}


def worker_environment(parent: Mapping[str, str], variables: Mapping[str, str]) -> dict[str, str]:
    """What of `parent` is allowed, this repository made importable, and over it `variables`."""
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
    """Start `command` in a session of its own, from the root of this repository; both pipe ends stay the
    caller's to close.

    Raises OSError where there is no such program.
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

    It is spawned by a thread that outlives it, or the kernel's parent-death signal ends it with that thread.
    One thread may ask it, any other may `abort` it meanwhile.
    """

    def __init__(
        self, process: subprocess.Popen[bytes], *, request_fd: int, reply_fd: int, python: str, log: Path
    ) -> None:
        self._process = process
        self._request_fd = request_fd
        self._reply_fd = reply_fd
        self._python = python
        self._log = log
        self._received = bytearray()
        self._is_open = True
        self._is_aborted = False
        self._reaping = threading.Lock()
        self.seconds: dict[Phase, float] = {}
        """Host seconds spent waiting for the worker, by phase."""

    environment: Environment
    """What the worker reported of itself; set once it is ready."""

    @classmethod
    def spawn(
        cls,
        *,
        python: str,
        log: Path,
        command: tuple[str, ...] = COMMAND,
        variables: Mapping[str, str] | None = None,
    ) -> Self:
        """A worker that is still importing: `greet` it before it is asked for anything. `command` follows the
        interpreter, `variables` go over the inherited ones.

        Raises WorkerError (`load`) where there is no such interpreter, and PerfError where the log cannot be
        written.
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
        os.set_blocking(request_fd, False)
        return cls(process, request_fd=request_fd, reply_fd=reply_fd, python=interpreter, log=log)

    @property
    def pid(self) -> int:
        """Process id, which is also the id of the worker's group and session."""
        return self._process.pid

    def greet(self, timeout_s: float) -> None:
        """Wait until the worker is ready; WorkerError (`load`) where imports or protocol do not fit."""
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
        """The worker's answer; WorkerError with its Failure, or with the timeout or crash seen instead."""
        phase = PHASE_OF_REQUEST[type(request)]
        return self._exchange(msgspec.json.encode(request) + b"\n", reply_type, phase, timeout_s)

    def close(self) -> None:
        """Hang up, give the worker `CLOSE_S` to end, then kill what is left of its group. Idempotent."""
        if self._is_open:
            self._hang_up()
            self._await_exit(CLOSE_S)
            self.kill()

    def kill(self) -> None:
        """End the worker and its group now; takes at most `KILL_S`. Idempotent."""
        with self._reaping:
            if self._process.returncode is None:
                self._kill_group()
                with suppress(subprocess.TimeoutExpired):
                    self._process.wait(KILL_S)
        self._hang_up()

    def abort(self) -> None:
        """End the worker while another thread asks it, whose `ask` fails soon even where nothing can end the
        process. The pipes are left to that thread: a closed descriptor may be another file's a moment later.
        """
        self._is_aborted = True
        with self._reaping:
            if self._process.returncode is None:
                self._kill_group()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is None:
            self.close()
        else:
            self.kill()

    def _kill_group(self) -> None:
        # The leader is not reaped yet, so that its group's id cannot belong to anyone else.
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)

    def _exchange(self, message: bytes, reply_type: type[R], phase: Phase, timeout_s: float) -> R:
        assert self._is_open, "a worker that was closed or failed is not asked again"
        started = time.monotonic()
        try:
            self._send(message, started + timeout_s)
            line = self._receive(started + timeout_s)
        except TimeoutError:
            self.kill()
            survives = f"; process {self.pid} cannot be killed" if self._process.returncode is None else ""
            self._fail(FailureKind.TIMEOUT, phase, f"no answer to {phase} within {timeout_s:g} s{survives}")
        except (EOFError, BrokenPipeError):
            self._explain_end(phase)
        self.seconds[phase] = self.seconds.get(phase, 0.0) + time.monotonic() - started
        return self._understand(line, reply_type, phase)

    def _send(self, message: bytes, deadline: float) -> None:
        while message:
            self._wait(self._request_fd, select.POLLOUT, deadline)
            with suppress(BlockingIOError):
                message = message[os.write(self._request_fd, message) :]

    def _receive(self, deadline: float) -> bytes:
        while b"\n" not in self._received:
            self._wait(self._reply_fd, select.POLLIN, deadline)
            chunk = os.read(self._reply_fd, CHUNK_BYTES)
            if not chunk:
                raise EOFError
            self._received += chunk
        line, _, rest = self._received.partition(b"\n")
        self._received = rest
        return bytes(line)

    def _wait(self, fd: int, event: int, deadline: float) -> None:
        """Until `fd` is ready; TimeoutError at the deadline, EOFError where the worker died in silence, or is
        given up."""
        poller = select.poll()
        poller.register(fd, event)
        while True:
            # Asked first: what it wrote before is read before EOF.
            died = self._is_aborted or self._exit_status() is not None
            remaining_s = deadline - time.monotonic()
            if poller.poll(0 if died else max(0.0, min(remaining_s, LOOK_S)) * 1000):
                return
            if died:
                raise EOFError
            if remaining_s <= 0:
                raise TimeoutError

    def _understand(self, line: bytes, reply_type: type[R], phase: Phase) -> R:
        expected = f"expected the answer {_tag(reply_type)!r} to {phase}, the worker sent"
        if not line.strip():
            self._fail(FailureKind.CRASH, phase, f"{expected} an empty line")
        try:
            reply = REPLIES.decode(line)
        except msgspec.DecodeError as error:
            quoted = line.decode(errors="replace")[:QUOTED_CHARACTERS]
            self._fail(FailureKind.CRASH, phase, f"{expected} {quoted!r}: {error}")
        if isinstance(reply, Failure):
            self.kill()
            raise WorkerError(reply)
        if not isinstance(reply, reply_type):
            quoted = line.decode(errors="replace")[:QUOTED_CHARACTERS]
            self._fail(FailureKind.CRASH, phase, f"{expected} {_tag(type(reply))!r}: {quoted}")
        return reply

    def _explain_end(self, phase: Phase) -> NoReturn:
        status = self._await_exit(CLOSE_S)
        if phase is Phase.IMPORT and status is not None and status >= 0:
            self.kill()
            tail = log_tail(self._log)
            last_words = tail.rpartition("\n")[2] or f"it exited with code {status} and an empty log"
            raise WorkerError(_not_started(self._python, last_words, tail))
        self._fail(FailureKind.CRASH, phase, f"{_end(status)} while {DOING[phase]}")

    def _fail(self, kind: FailureKind, phase: Phase, message: str) -> NoReturn:
        self.kill()
        raise WorkerError(Failure(kind=kind, phase=phase, message=message, details=log_tail(self._log)))

    def _exit_status(self) -> int | None:
        """Exit code, or minus the signal; None while the worker runs. Leaves it unreaped: see `kill`."""
        if self._process.returncode is not None:
            return self._process.returncode
        ended = os.waitid(os.P_PID, self._process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        if ended is None:
            return None
        return ended.si_status if ended.si_code == os.CLD_EXITED else -ended.si_status

    def _await_exit(self, timeout_s: float) -> int | None:
        deadline = time.monotonic() + timeout_s
        while (status := self._exit_status()) is None and time.monotonic() < deadline:
            time.sleep(0.01)
        return status

    def _hang_up(self) -> None:
        if self._is_open:
            self._is_open = False
            os.close(self._request_fd)
            os.close(self._reply_fd)


def log_tail(log: Path) -> str:
    """The last lines of a worker's log; empty where it has none."""
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
        return "worker closed its pipe and went on"
    if status >= 0:
        return f"worker exited with code {status}"
    name = signal.Signals(-status).name
    hint = " (by the kernel's OOM killer, if memory ran out)" if -status == signal.SIGKILL else ""
    return f"worker was killed by {name}{hint}"


def _tag(reply: type[Struct]) -> str:
    return str(reply.__struct_config__.tag)
