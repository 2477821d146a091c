"""The protocol: requests in, the answers of a fake build out, or what a switch puts in their place."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Mapping
from typing import Any, BinaryIO

import msgspec

from perf_tests.protocol.base import Struct
from perf_tests.protocol.messages import (
    PHASE_OF_REQUEST,
    Compile,
    Failure,
    FailureKind,
    Generate,
    Inspect,
    Load,
    Package,
    Phase,
    Quantize,
    Reply,
    Request,
    Save,
    SwitchWorkload,
    WorkloadSwitched,
)
from perf_tests.protocol.profiles import Profile, Snapshot
from perf_tests.unit.fake_worker import building, endings, evidence, generating, inspecting
from perf_tests.unit.fake_worker.environment import ready
from perf_tests.unit.fake_worker.subject import Subject
from perf_tests.unit.fake_worker.switches import VARIABLE, Switches
from perf_tests.worker import parent_watch

REQUESTS = msgspec.json.Decoder(Request)
ANSWERS: Mapping[type[Struct], Callable[[Subject, Any], Reply]] = {
    Load: building.load,
    Quantize: building.quantize,
    Save: building.save,
    Package: building.package,
    Compile: building.compile_blocks,
    Generate: generating.generate,
    SwitchWorkload: lambda *_: WorkloadSwitched(seconds=0.125),
    Inspect: inspecting.inspect,
    Profile: evidence.profile,
    Snapshot: evidence.snapshot,
}
ESCAPES = Failure(
    kind=FailureKind.LOAD,
    phase=Phase.LOAD,
    message="\x1b]0;owned\x07\x1b[2Jall is well\u202e",
    details="\x9b31mred\nnext line\tafter a tab",
)
EXCUSED = Failure(
    kind=FailureKind.LOAD, phase=Phase.LOAD, message="it was the host", excuse="the host was busy"
)
INSTEAD: Mapping[str, Callable[[], bytes]] = {
    "empty-reply": lambda: b"",
    "garbage": lambda: b"Segmentation fault (core dumped)",
    "wrong-type": lambda: msgspec.json.encode(ready(Switches(""))),
    "answers-twice": lambda: b"\n".join([msgspec.json.encode(WorkloadSwitched(seconds=0.0))] * 2),
    "flood": lambda: b"x" * (8 << 20),
    "escapes": lambda: msgspec.json.encode(ESCAPES),
    "excuses-itself": lambda: msgspec.json.encode(EXCUSED),
    "exit": lambda: sys.exit(3),
    "segfault": lambda: endings.kill_self(signal.SIGSEGV),
    "killed": lambda: endings.kill_self(signal.SIGKILL),
    "hang": endings.hang,
}


def serve(request_fd: int, reply_fd: int) -> None:
    """Send Ready, then answer requests until the pipe closes or a request fails."""
    parent_watch.hold(request_fd)
    switches = Switches(os.environ.get(VARIABLE, ""))
    with os.fdopen(request_fd, "rb") as requests, os.fdopen(reply_fd, "wb", buffering=0) as replies:
        _send(replies, msgspec.json.encode(ready(switches)))
        subject = Subject(switches)
        for line in requests:
            reply = _answer(subject, REQUESTS.decode(line))
            _send(replies, reply if isinstance(reply, bytes) else msgspec.json.encode(reply))
            if isinstance(reply, Failure):
                return


def _answer(subject: Subject, request: Request) -> Reply | bytes:
    if isinstance(request, Load | SwitchWorkload):
        subject.case = request.case
    phase = PHASE_OF_REQUEST[type(request)]
    warming_up = isinstance(request, Generate) and request.warmup
    for name, instead in INSTEAD.items():
        if not warming_up and subject.switches.strikes(name, phase, subject.case):
            return instead()
    try:
        return ANSWERS[type(request)](subject, request)
    except endings.Failed as failed:
        return Failure(kind=failed.kind, phase=phase, message=str(failed))


def _send(replies: BinaryIO, message: bytes) -> None:
    """Send the message in two pieces, as a pipe may deliver it."""
    middle = len(message) // 2
    for piece in (message[:middle], message[middle:] + b"\n"):
        while piece:
            piece = piece[replies.write(piece) :]
