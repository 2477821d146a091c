"""The first inputs of a module are kept, and the errors of the candidates on them are as computed by hand."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from perf_tests.tables.schemes.rows import INT8DQ, INT8WO
from perf_tests.tables.schemes.spec import Scheme
from perf_tests.unit.worker.quantization.given_times import EAGER
from perf_tests.worker.inspection.probe import sqnr_db
from perf_tests.worker.quantization import layer_errors
from perf_tests.worker.quantization.layer_errors import LayerWork

Make = Callable[..., Any]


class Tiny:
    """A pipeline whose step calls one module, twice."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        self.called = nn.Linear(256, 128, dtype=torch.bfloat16).requires_grad_(False)
        self.activations = [torch.randn(2, 32, 256).bfloat16(), torch.randn(2, 8, 256).bfloat16()]

    def __call__(self, **_: Any) -> None:
        for activation in self.activations:
            self.called(activation)
            activation.zero_()  # as pipelines that work in place do


def int8(matrix: torch.Tensor) -> torch.Tensor:
    scale = matrix.abs().amax(dim=1, keepdim=True) / 127
    return (matrix / scale).round() * scale


def test_the_first_activations_of_a_module_are_kept_and_its_errors_are_theirs(make_case: Make) -> None:
    pipeline = Tiny()
    first = pipeline.activations[0].reshape(64, 256).clone()
    targets = {"transformer.called": pipeline.called, "transformer.other": nn.Linear(4, 4)}
    expected = pipeline.called(first)
    seen = layer_errors.observe(pipeline, make_case(EAGER), targets, (INT8DQ, INT8WO))

    (work,) = seen.examples
    assert work == LayerWork(rows=64, in_features=256, out_features=128, bias=True)
    assert torch.equal(seen.examples[work].rows, first)
    assert list(seen.layers) == ["transformer.called"]
    # Quantized by hand: a scale for each row of weights, and of activations. torchao also rounds the scales
    # to bf16.
    weight, bias = pipeline.called.weight.double(), pipeline.called.bias.double()
    exact = (first.double() @ weight.T + bias).bfloat16()
    by_hand_db = {
        "int8dq": sqnr_db(exact, (int8(first.double()) @ int8(weight).T + bias).bfloat16()),
        "int8wo": sqnr_db(exact, (first.double() @ int8(weight).T + bias).bfloat16()),
    }
    assert seen.layers["transformer.called"].sqnr_db == pytest.approx(by_hand_db, abs=1.5)
    assert by_hand_db["int8wo"] - by_hand_db["int8dq"] > 2.0
    # Nothing stays: no hook, and the module as it was.
    assert not pipeline.called._forward_pre_hooks
    assert torch.equal(pipeline.called(first), expected)


@pytest.mark.parametrize(
    ("scheme", "reason"),
    [
        pytest.param(
            dataclasses.replace(INT8WO, min_rows=65), "the kernels need at least 65 rows", id="few-rows"
        ),
        pytest.param(
            dataclasses.replace(INT8WO, in_features_multiple=96),
            "in_features not a multiple of 96",
            id="shape",
        ),
        pytest.param(
            dataclasses.replace(INT8WO, weight=INT8DQ.weight),
            "ValueError: a weight of this shape does not become what int8wo says",
            id="something-else",
        ),
    ],
)
def test_a_candidate_that_does_not_fit_a_layer_says_why(make_case: Make, scheme: Scheme, reason: str) -> None:
    pipeline = Tiny()
    seen = layer_errors.observe(
        pipeline, make_case(EAGER), {"transformer.called": pipeline.called}, (scheme,)
    )
    assert seen.layers["transformer.called"].refused == {"int8wo": reason}
    assert seen.layers["transformer.called"].sqnr_db == {}


def test_an_output_with_nan_has_no_error_in_decibels(make_case: Make) -> None:
    pipeline = Tiny()
    pipeline.activations[0][0, 0, 0] = float("inf")
    seen = layer_errors.observe(
        pipeline, make_case(EAGER), {"transformer.called": pipeline.called}, (INT8DQ,)
    )
    assert seen.layers["transformer.called"].refused == {"int8dq": "the output holds NaN or infinity"}
