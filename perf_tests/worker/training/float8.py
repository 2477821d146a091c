"""Which Linear modules multiply in float8 while a transformer trains."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection

from torch import nn

from perf_tests.tables.training.spec import Training

FLOAT8_LINEAR = "Float8Linear"
BASE = ".base"
"""Ends the name of a Linear module that has an adapter."""


def wanted(transformer: nn.Module, training: Training) -> frozenset[str]:
    """Names of the Linear modules that `training` converts, of a transformer without adapters."""
    return frozenset(
        name
        for name, module in transformer.named_modules()
        if isinstance(module, nn.Linear)
        and training.is_converted(name, module.in_features, module.out_features)
    )


def convert(transformer: nn.Module, training: Training, names: Collection[str]) -> None:
    """Let the Linear modules `names` multiply in float8, from now on and in their gradients; not their
    adapters, which are added afterwards.

    As torchao says, this changes how inductor generates code for the whole process.
    """
    if training.float8 is None:
        return
    from torchao.float8 import Float8LinearConfig, convert_to_float8_training

    recipe = Float8LinearConfig.from_recipe_name(training.float8.value)
    # A product with the gradient of a single row has an inner dimension of 1.
    config = dataclasses.replace(recipe, pad_inner_dim=True)
    convert_to_float8_training(transformer, module_filter_fn=lambda _, name: name in names, config=config)


def converted(transformer: nn.Module) -> frozenset[str]:
    """Names of the Linear modules that multiply in float8, as they were without adapters."""
    return frozenset(
        name.removesuffix(BASE)
        for name, module in transformer.named_modules()
        if type(module).__name__ == FLOAT8_LINEAR
    )
