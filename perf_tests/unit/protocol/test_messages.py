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
from perf_tests.protocol.reports import CompileCache, Environment, Gpu, MemoryWindow, Quantization
from perf_tests.tables.cases import Row, Weights
from perf_tests.tables.matrix import MATRIX
from perf_tests.tables.platforms import Device
from perf_tests.unit.builders import for_each

GPU = Gpu(
    name="NVIDIA H100 80GB HBM3",
    uuid="GPU-1",
    capability=(9, 0),
    memory_gib=80.0,
    power_limit_w=700.0,
    driver="575.57",
)


def environment(gpu: Gpu | None) -> Environment:
    return Environment(
        python="3.11.7",
        packages={},
        gpu=gpu,
        cpu_model="some processor",
        cpu_count=2,
        settings={},
        variables={},
    )


@for_each(MATRIX)
def test_a_case_is_the_same_case_on_the_other_side_of_the_wire(row: Row) -> None:
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


def test_messages_are_one_line_whatever_they_say() -> None:
    failure = Failure(kind=FailureKind.CRASH, phase=Phase.LOAD, message="first\nsecond", details="a\nb")
    line = msgspec.json.encode(failure)
    assert b"\n" not in line
    assert msgspec.json.decode(line, type=Reply) == failure


def test_a_time_that_is_not_a_number_does_not_pass_as_one() -> None:
    window = MemoryWindow(allocated_mib=None, reserved_mib=None, device_mib=None, rss_mib=float("nan"))
    with pytest.raises(msgspec.ValidationError, match="Expected `float`, got `null`"):
        msgspec.json.decode(msgspec.json.encode(window), type=MemoryWindow)


def test_evidence_recorded_before_weights_were_counted_is_still_read() -> None:
    recorded = b'{"expected_modules": 4, "groups": [], "excluded": {}, "unquantized": []}'
    assert msgspec.json.decode(recorded, type=Quantization).weights is None


@pytest.mark.parametrize(
    ("hits", "misses", "bypasses", "state"),
    [
        pytest.param(0, 3, 0, "cold", id="only-misses"),
        pytest.param(3, 0, 0, "warm", id="only-hits"),
        pytest.param(2, 1, 0, "mixed", id="both"),
        pytest.param(3, 0, 1, "mixed", id="bypassed"),
        pytest.param(0, 0, 0, "cold", id="never-asked"),
    ],
)
def test_the_state_of_the_compile_cache_follows_from_its_counters(
    hits: int, misses: int, bypasses: int, state: str
) -> None:
    assert CompileCache(hits=hits, misses=misses, bypasses=bypasses).state == state


def test_times_belong_to_the_card_where_there_is_one() -> None:
    assert environment(GPU).unit == "GPU-1"
    assert environment(None).unit == "some processor"
