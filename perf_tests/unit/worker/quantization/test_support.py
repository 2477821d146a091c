"""A scheme is supported where it works on one small module, and refused cheaply where it does not."""

from __future__ import annotations

import dataclasses
from typing import NoReturn

import pytest
import torch

from perf_tests.protocol.errors import WorkerError
from perf_tests.protocol.messages import Failure, FailureKind, Phase
from perf_tests.tables.lazy import Lazy
from perf_tests.tables.platforms import CPU
from perf_tests.tables.schemes.rows import INT8WO, MXFP8, NVFP4, SCHEMES
from perf_tests.tables.schemes.spec import Scheme
from perf_tests.worker.quantization import support

ON_CPU = torch.device("cpu")


def refusal(scheme: Scheme, device: torch.device = ON_CPU) -> Failure:
    with pytest.raises(WorkerError) as caught:
        support.check(scheme, device)
    failure = caught.value.failure
    assert (failure.kind, failure.phase) == (FailureKind.UNSUPPORTED, Phase.LOAD)
    return failure


def is_supported(scheme: Scheme) -> bool:
    try:
        support.check(scheme, ON_CPU)
    except WorkerError:
        return False
    return True


@pytest.mark.parametrize("scheme", SCHEMES, ids=lambda scheme: scheme.id)
def test_the_cpu_supports_just_the_schemes_it_has_to(scheme: Scheme) -> None:
    assert is_supported(scheme) is (scheme.id in CPU.required_schemes)


def test_a_scheme_for_newer_gpus_is_refused_on_a_cpu_and_both_are_named() -> None:
    assert refusal(NVFP4).message == (
        "nvfp4 needs a CUDA device of compute capability 10.0 or higher, this is a cpu"
    )


def test_a_scheme_for_newer_gpus_is_refused_on_an_older_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _device: (9, 0))
    assert refusal(MXFP8, torch.device("cuda")).message == (
        "mxfp8 needs a CUDA device of compute capability 10.0 or higher, this one has 9.0"
    )


def test_a_scheme_that_torchao_no_longer_has_is_refused() -> None:
    gone = dataclasses.replace(INT8WO, id="autoquant", config=Lazy(target="torchao.quantization:autoquant"))
    assert refusal(gone).message.startswith("this stack refuses autoquant on cpu: AttributeError: ")


def test_an_argument_that_torchao_no_longer_takes_is_refused() -> None:
    config = Lazy(target="torchao.quantization:Int8WeightOnlyConfig", kwargs={"layout": "plain"})
    message = refusal(dataclasses.replace(INT8WO, config=config)).message
    assert message.startswith("this stack refuses int8wo on cpu: TypeError: ")


def test_a_scheme_that_quantizes_and_cannot_be_multiplied_is_refused_in_one_line() -> None:
    # torchao quantizes to mxfp8 on any device; the product needs kernels that a CPU does not have.
    message = refusal(dataclasses.replace(MXFP8, min_capability=None)).message
    assert message.startswith("this stack refuses mxfp8 on cpu: ValueError: ")
    assert "\n" not in message


def test_a_module_that_becomes_something_else_is_left_to_the_build_checks() -> None:
    assert INT8WO.weight is not None
    otherwise = dataclasses.replace(INT8WO.weight, subclass="AnotherTensor")
    assert is_supported(dataclasses.replace(INT8WO, weight=otherwise))


@pytest.mark.parametrize(
    "error", [AttributeError("no attribute 'zero_point'"), TypeError("unexpected keyword")]
)
def test_a_bug_while_quantizing_is_an_error_and_no_refusal(
    monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def broken(*_arguments: object, **_keywords: object) -> NoReturn:
        raise error

    monkeypatch.setattr("torchao.quantization.quantize_", broken)
    with pytest.raises(WorkerError) as caught:
        support.check(INT8WO, ON_CPU)
    assert caught.value.failure.kind is FailureKind.LOAD
    assert caught.value.failure.message.startswith(
        f"this stack refuses int8wo on cpu: {type(error).__name__}: "
    )
    assert caught.value.failure.message.endswith("though its config exists: a bug")


def no_memory() -> NoReturn:
    """A config that cannot be made for want of memory."""
    raise torch.OutOfMemoryError("out of memory")


def test_out_of_memory_is_not_a_refusal() -> None:
    config = Lazy(target="perf_tests.unit.worker.quantization.test_support:no_memory")
    with pytest.raises(torch.OutOfMemoryError):
        support.check(dataclasses.replace(INT8WO, config=config), ON_CPU)


def test_a_check_draws_no_random_numbers() -> None:
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    support.check(INT8WO, ON_CPU)
    assert torch.equal(torch.rand(3), expected)
