"""protocol/messages.py: what one side sends is what the other receives."""

from __future__ import annotations

import msgspec
import pytest

from perf_tests.protocol.messages import (
    Failure,
    FailureKind,
    Fault,
    Generate,
    Injection,
    Inspect,
    Load,
    Phase,
    Reply,
    Request,
)
from perf_tests.tables.cases import Row, Weights
from perf_tests.tables.matrix import MATRIX
from perf_tests.tables.platforms import Device
from perf_tests.unit.builders import for_each


@for_each(MATRIX)
def test_a_case_survives_the_wire_with_its_digest(row: Row) -> None:
    sent = Load(case=row.case(Weights.SYNTHETIC), device=Device.CUDA)
    received = msgspec.json.decode(msgspec.json.encode(sent), type=Request)
    assert received.case.digest == sent.case.digest
    assert received == sent


def test_an_injection_survives_the_wire() -> None:
    request = Load(
        case=MATRIX[0].case(Weights.SYNTHETIC),
        device=Device.CPU,
        injections=(Injection(fault=Fault.LATENCY, amount=150.0), Injection(fault=Fault.HANG)),
    )
    assert msgspec.json.decode(msgspec.json.encode(request), type=Request).injections == request.injections


def test_requests_are_told_apart_by_their_tag() -> None:
    assert msgspec.json.decode(b'{"type": "inspect"}', type=Request) == Inspect()
    assert msgspec.json.decode(b'{"type": "generate", "warmup": true}', type=Request) == Generate(warmup=True)


def test_a_field_that_this_version_does_not_know_is_refused() -> None:
    with pytest.raises(msgspec.ValidationError, match="unknown field `colour`"):
        msgspec.json.decode(b'{"type": "generate", "colour": "red"}', type=Request)


def test_a_reply_that_lacks_a_field_is_refused() -> None:
    with pytest.raises(msgspec.ValidationError, match="missing required field `phase`"):
        msgspec.json.decode(b'{"type": "failure", "kind": "oom"}', type=Reply)


def test_a_message_is_one_line_even_if_its_text_has_several() -> None:
    failure = Failure(kind=FailureKind.CRASH, phase=Phase.LOAD, message="first\nsecond", details="a\nb")
    line = msgspec.json.encode(failure)
    assert b"\n" not in line
    assert msgspec.json.decode(line, type=Reply) == failure
