"""What float8 costs a gradient by its rounding alone: the same products, computed here without torchao.

Numbers of 8 bits are numbers of bf16, too. So what is rounded to float8 is multiplied in bf16, exactly as far
as its factors go, and scaled afterwards.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final, cast

import torch
import torch.nn.functional as F
from torch import nn

from perf_tests.tables.training.spec import Float8Recipe

SMALLEST_AMAX: Final = 1e-12
"""Of a tensor of zeros, which nothing can be scaled by."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rounding:
    """How one recipe of torchao rounds the factors of its products."""

    by_row: bool
    """A scale, a power of two, for each row along the axis that is summed over; else one for each tensor."""
    of_gradients: torch.dtype
    """What the gradients of answers are rounded to; all else is rounded to e4m3."""


ROUNDINGS: Final[Mapping[Float8Recipe, Rounding]] = {
    Float8Recipe.TENSORWISE: Rounding(by_row=False, of_gradients=torch.float8_e5m2),
    Float8Recipe.ROWWISE: Rounding(by_row=True, of_gradients=torch.float8_e4m3fn),
}


@contextmanager
def rounded(transformer: nn.Module, recipe: Float8Recipe, names: Collection[str]) -> Iterator[None]:
    """Let the Linear modules `names` answer, and pass gradients to their inputs, as if in float8.

    Their own weights get no gradient: LoRA freezes them.
    """
    rounding = ROUNDINGS[recipe]
    modules = [cast("nn.Linear", transformer.get_submodule(name)) for name in names]
    for module in modules:
        object.__setattr__(module, "forward", _Rounded(module, rounding))  # not `setattr`: no submodule
    try:
        yield
    finally:
        for module in modules:
            object.__delattr__(module, "forward")


class _Rounded:
    """The `forward` of a Linear module whose factors are rounded."""

    def __init__(self, linear: nn.Linear, rounding: Rounding) -> None:
        self._linear, self._rounding = linear, rounding

    def __call__(self, inputs: torch.Tensor) -> torch.Tensor:
        weight, bias = self._linear.weight, self._linear.bias
        product: Any = _RoundedProduct.apply  # torch does not annotate it
        answer: torch.Tensor = product(inputs, weight, self._rounding)
        return answer if bias is None else answer + bias


class _RoundedProduct(torch.autograd.Function):
    """inputs (..., in) times weight (out, in) transposed: (..., out)."""

    @staticmethod
    def forward(ctx: Any, inputs: torch.Tensor, weight: torch.Tensor, rounding: Rounding) -> torch.Tensor:
        ctx.save_for_backward(weight)
        ctx.rounding = rounding
        return _product(inputs, weight, rounding, torch.float8_e4m3fn)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        (weight,) = ctx.saved_tensors
        return _product(gradient, weight.t(), ctx.rounding, ctx.rounding.of_gradients), None, None


def _product(
    left: torch.Tensor, right: torch.Tensor, rounding: Rounding, left_dtype: torch.dtype
) -> torch.Tensor:
    """left (..., k), rounded to `left_dtype`, times right (n, k), rounded to e4m3, transposed: (..., n)."""
    rounded_left, left_scale = _round(left, left_dtype, rounding)
    rounded_right, right_scale = _round(right, torch.float8_e4m3fn, rounding)
    product = F.linear(rounded_left, rounded_right).float()
    if rounding.by_row:
        right_scale = right_scale.squeeze(-1)
    return (product / left_scale / right_scale).to(left.dtype)


def _round(tensor: torch.Tensor, dtype: torch.dtype, rounding: Rounding) -> tuple[torch.Tensor, torch.Tensor]:
    """`tensor`, scaled to all of the range of `dtype` and rounded to it, in bf16; and the scale."""
    largest = torch.finfo(dtype).max
    magnitudes = tensor.abs()
    amax = magnitudes.amax(dim=-1, keepdim=True) if rounding.by_row else magnitudes.amax()
    scale = (largest / amax.double().clamp(min=SMALLEST_AMAX)).float()
    if rounding.by_row:
        scale = torch.exp2(torch.floor(torch.log2(scale)))
    scaled = (tensor.float() * scale).clamp(-largest, largest)
    return scaled.to(dtype).to(torch.bfloat16), scale
