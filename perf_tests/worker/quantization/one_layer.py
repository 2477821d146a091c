"""One Linear module under one scheme, outside its pipeline: what a search tries."""

from __future__ import annotations

import torch
from torch import nn

from perf_tests.tables.schemes.spec import Scheme
from perf_tests.worker.model.lazy import construct
from perf_tests.worker.quantization.apply import look


def detached(module: nn.Linear) -> nn.Linear:
    """A module that shares the weights of `module` but not its hooks, and can be quantized in its place."""
    copy = nn.Linear(module.in_features, module.out_features, bias=module.bias is not None, device="meta")
    copy.weight, copy.bias = module.weight, module.bias
    return copy


def quantized(module: nn.Linear, scheme: Scheme) -> nn.Module:
    """A copy of `module`, quantized with `scheme`.

    Raises one of `apply.REFUSALS` where the stack refuses, or the weight does not become what `scheme` says.
    """
    from torchao.quantization import quantize_

    assert scheme.config is not None, f"{scheme.id} quantizes nothing"
    assert scheme.weight is not None, f"{scheme.id} does not say what it makes of a weight"
    holder = nn.Sequential(detached(module))
    quantize_(holder, construct(scheme.config))
    weight = holder[0].weight
    assert isinstance(weight, torch.Tensor), "a Linear module has a weight"
    if not scheme.weight.describes(*look(weight, scheme.weight)):
        raise ValueError(f"a weight of this shape does not become what {scheme.id} says")
    return holder[0]


def first_line(error: Exception) -> str:
    """Type and message of a refusal, in one line."""
    return f"{type(error).__name__}: {error}".strip().partition("\n")[0]
