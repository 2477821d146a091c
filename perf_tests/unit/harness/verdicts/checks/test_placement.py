from __future__ import annotations

from typing import Any

import msgspec
import pytest

from perf_tests.harness.verdicts.checks.placement import contradictions
from perf_tests.protocol.offloading import Placement
from perf_tests.protocol.reports import Quantization, WeightCount
from perf_tests.tables.recipes import QuantizedOn, Recipe
from perf_tests.tables.schemes.rows import INT8WO

ON_DEVICE, ON_HOST = (
    Recipe(scheme=INT8WO, quantized_on=where) for where in (QuantizedOn.DEVICE, QuantizedOn.HOST)
)
MOVED = Placement(device="cuda", before={"cpu": 80}, after={"cuda": 50}, plain={"Embedding": 1})


def quantized_on(device: str | None) -> Quantization:
    weights = WeightCount(elements=1, scales=1, other_bytes=0, device=device)
    return Quantization(expected_modules=1, groups=(), excluded={}, unquantized=(), weights=weights)


def found(recipe: Recipe = ON_DEVICE, quantized: str | None = "cuda", **changes: Any) -> list[str]:
    placement = msgspec.structs.replace(MOVED, **changes)
    return [*contradictions(recipe, placement, quantized_on(quantized))]


def test_a_model_that_was_moved_has_no_contradictions() -> None:
    assert found() == []
    assert found(ON_HOST, "cpu") == []


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        (
            {"after": {"cuda": 40, "cpu": 10}},
            "after its last answer, 10 bytes of the model were on cpu, and all were to be on cuda",
        ),
        (
            {"before": {"cuda": 80}},
            "before it was quantized, 80 bytes of the model were on cuda, and all were to be on cpu",
        ),
        ({"after": {}}, "after its last answer, the model had no weights"),
    ],
)
def test_what_is_elsewhere_is_counted(changes: dict[str, Any], sentence: str) -> None:
    assert found(**changes) == [sentence]


@pytest.mark.parametrize(
    ("device", "was"), [("cpu", "cpu"), ("cpu, cuda", "cpu, cuda"), (None, "a device that was not reported")]
)
def test_what_was_quantized_before_it_was_moved_is_said(device: str | None, was: str) -> None:
    assert found(quantized=device) == [
        f"the recipe int8wo-eager quantizes weights of the device, cuda, and they were on {was}"
    ]


def test_a_worker_that_did_not_look_is_no_proof() -> None:
    (sentence,) = contradictions(ON_HOST, None, quantized_on("cpu"))
    assert sentence == "the worker did not say where the weights of the model were"
