"""A worker answers every request; anything that the stack raises becomes one Failure of the right kind."""

from __future__ import annotations

import typing
from collections.abc import Callable

import pytest
import torch

from perf_tests.protocol import messages
from perf_tests.protocol.errors import WorkerError
from perf_tests.protocol.messages import Compile, Failure, FailureKind, Generate, Phase, Reply, Request
from perf_tests.protocol.profiles import Profile, Snapshot
from perf_tests.tables.recipes import Activity
from perf_tests.worker.__main__ import _answer, _start

NEVER_ASKED_WITHOUT_PICTURES = {
    messages.Save,
    messages.Package,
    messages.SwitchWorkload,
    Profile,
    Snapshot,
}


def raising(error: Exception) -> Callable[[Request], Reply]:
    def handle(request: Request) -> Reply:
        raise error

    return handle


@pytest.mark.parametrize(
    ("request_", "error", "kind", "phase"),
    [
        pytest.param(
            Generate(),
            torch.OutOfMemoryError("CUDA"),
            FailureKind.OOM,
            Phase.GENERATE,
            id="out of GPU memory",
        ),
        pytest.param(
            Compile(),
            RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes"),
            FailureKind.OOM,
            Phase.COMPILE,
            id="out of host memory",
        ),
        pytest.param(Compile(), RuntimeError("no"), FailureKind.LOAD, Phase.COMPILE, id="while building"),
        pytest.param(
            Generate(), RuntimeError("no"), FailureKind.CRASH, Phase.GENERATE, id="while generating"
        ),
    ],
)
def test_an_exception_is_classified_by_what_and_when(
    request_: Request, error: Exception, kind: FailureKind, phase: Phase
) -> None:
    reply = _answer(request_, {type(request_): raising(error)})
    assert isinstance(reply, Failure)
    assert (reply.kind, reply.phase) == (kind, phase)
    assert reply.message.startswith(type(error).__name__)
    assert "Traceback" in reply.details


def test_a_failure_that_the_worker_found_itself_is_passed_on() -> None:
    found = Failure(kind=FailureKind.NUMERICS, phase=Phase.GENERATE, message="the output holds NaN")
    assert _answer(Generate(), {Generate: raising(WorkerError(found))}) is found


def test_the_message_is_the_first_line_of_a_long_error() -> None:
    reply = _answer(Generate(), {Generate: raising(RuntimeError("first\nsecond\nthird"))})
    assert isinstance(reply, Failure)
    assert reply.message == "RuntimeError: first"


def test_a_worker_answers_every_request() -> None:
    _, sessions = _start()
    requests = set(typing.get_args(messages.Request))
    assert sessions[Activity.GENERATING].keys() == requests == messages.PHASE_OF_REQUEST.keys()
    # Of what makes no pictures nothing is saved, and it shares its worker with no other workload.
    for activity in (Activity.TRAINING, Activity.QUANTIZING):
        assert sessions[activity].keys() == requests - NEVER_ASKED_WITHOUT_PICTURES
