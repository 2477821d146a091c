"""Products whose factors are rounded as torchao rounds them to float8."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from perf_tests.tables.training.spec import Float8Recipe
from perf_tests.worker.training.rounding import rounded

TENSORWISE, ROWWISE = Float8Recipe.TENSORWISE, Float8Recipe.ROWWISE


def identity(bias: float | None = None) -> nn.Sequential:
    """A transformer of one Linear module, `0`, that answers what it is given (and `bias`)."""
    linear = nn.Linear(2, 2, bias=bias is not None, dtype=torch.bfloat16)
    with torch.no_grad():
        linear.weight.copy_(torch.eye(2))
        if bias is not None:
            linear.bias.fill_(bias)
    return nn.Sequential(linear.requires_grad_(False))


@pytest.mark.parametrize(
    ("recipe", "small"),
    [
        # One scale, 1: below 2**-6, e4m3 has steps of 2**-9.
        (TENSORWISE, 2**-9),
        # A scale of its own, 2**18: 262.1 lies nearest to 256.
        (ROWWISE, 2**-10),
    ],
)
def test_a_scale_is_that_of_the_tensor_or_of_the_row(recipe: Float8Recipe, small: float) -> None:
    inputs = torch.tensor([[448.0, 1.1], [0.001, 0.0]], dtype=torch.bfloat16)
    transformer = identity()
    with rounded(transformer, recipe, ["0"]):
        answer = transformer(inputs)
    assert answer.dtype is torch.bfloat16
    assert answer.tolist() == [[448.0, 1.125], [small, 0.0]]


@pytest.mark.parametrize(
    ("recipe", "wanted"),
    [
        # e5m2, scaled by 57344 / 2: 31539.2 lies nearest to 32768.
        (TENSORWISE, [2.0, 32768 / 28672]),
        # e4m3, scaled by 128: 140.8 lies nearest to 144.
        (ROWWISE, [2.0, 144 / 128]),
    ],
)
def test_a_gradient_is_rounded_to_the_dtype_of_the_recipe(recipe: Float8Recipe, wanted: list[float]) -> None:
    inputs = torch.ones(1, 2, dtype=torch.bfloat16, requires_grad=True)
    transformer = identity(bias=0.5)
    with rounded(transformer, recipe, ["0"]):
        answer = transformer(inputs)
    assert answer.tolist() == [[1.5, 1.5]]
    answer.backward(torch.tensor([[2.0, 1.1]], dtype=torch.bfloat16))
    assert inputs.grad is not None
    assert inputs.grad[0].tolist() == pytest.approx(wanted, rel=2**-8)


def test_only_the_modules_that_are_named_round_and_only_inside() -> None:
    inputs = torch.tensor([[1.1, 448.0]], dtype=torch.bfloat16)
    transformer = nn.Sequential(identity()[0], identity()[0])
    with rounded(transformer, TENSORWISE, ["1"]):
        assert transformer[0](inputs).equal(inputs)
        assert not transformer[1](inputs).equal(inputs)
    assert transformer(inputs).equal(inputs)


def test_rows_of_zeros_stay_zeros() -> None:
    inputs = torch.zeros(3, 2, dtype=torch.bfloat16)
    transformer = identity()
    with rounded(transformer, ROWWISE, ["0"]):
        assert transformer(inputs).tolist() == [[0.0, 0.0]] * 3
