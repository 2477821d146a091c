from __future__ import annotations

import pytest

from perf_tests.harness.runs.injections import AMOUNT_FORMS, parse, spelled
from perf_tests.protocol.errors import UsageError
from perf_tests.protocol.messages import Fault, Injection


@pytest.mark.parametrize(
    ("text", "injection"),
    [
        ("latency:+3%", Injection(fault=Fault.LATENCY, amount=3.0)),
        ("latency:+2.5%", Injection(fault=Fault.LATENCY, amount=2.5)),
        ("memory:+2%", Injection(fault=Fault.MEMORY, amount=2.0)),
        ("scale:+1%", Injection(fault=Fault.SCALE, amount=1.0)),
        ("drop-quantization:12", Injection(fault=Fault.DROP_QUANTIZATION, amount=12.0)),
        ("hang", Injection(fault=Fault.HANG)),
    ],
)
def test_a_fault_is_read_as_it_is_written(text: str, injection: Injection) -> None:
    assert parse(text) == injection
    assert spelled(injection) == text


def test_the_sign_of_a_percentage_may_be_left_out() -> None:
    assert parse("latency:3%") == Injection(fault=Fault.LATENCY, amount=3.0)


@pytest.mark.parametrize("text", ["latency", "latency:3", "latency:-3%", "latency:+3% "])
def test_a_malformed_amount_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(UsageError, match=r"^write an amount such as 'latency:\+3%'$"):
        parse(text)


def test_a_fault_without_an_amount_refuses_one() -> None:
    with pytest.raises(UsageError, match="oom takes no amount"):
        parse("oom:1")


def test_faults_with_and_without_an_amount_make_up_all() -> None:
    assert AMOUNT_FORMS.keys() == set(Fault) - {Fault.HANG, Fault.OOM, Fault.NAN, Fault.CRASH}
