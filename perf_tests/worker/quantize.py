"""Apply a recipe's fusion and quantization, and return the evidence that it took effect."""

from __future__ import annotations

import collections
import fnmatch
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from perf_tests.harness.errors import WorkerError
from perf_tests.harness.protocol import (
    Failure,
    FailureKind,
    ModuleGroup,
    Phase,
    Quantization,
    WeightCount,
)
from perf_tests.tables.cases import Build
from perf_tests.tables.recipes import Recipe
from perf_tests.tables.schemes import QuantizedWeight, ScaleShape, Scheme
from perf_tests.worker.build import components
from perf_tests.worker.lazy import construct
from perf_tests.worker.memory import stored_bytes

EXAMPLES = 3
MAX_UNQUANTIZED = 10

REFUSALS = (
    ImportError,
    AttributeError,
    TypeError,
    ValueError,
    NotImplementedError,
    AssertionError,
    RuntimeError,
)
"""What torchao, or a kernel of it, raises where API, device or shape do not fit. torch.OutOfMemoryError is
a RuntimeError, too, and means something else."""


def apply(pipeline: Any, build: Build, *, drop: int = 0) -> Quantization:
    """Lay out, fuse, quantize in place on the device, and look at every linear module afterwards.

    `drop` modules get their weights back (fire drill). Raises WorkerError(load) where the stack refuses the
    scheme: whether it supports it at all was asked before (`support.check`).
    """
    if build.recipe.channels_last:
        _lay_out_channels_last(pipeline)
    if build.recipe.fuse_qkv:
        pipeline.transformer.fuse_qkv_projections()
    targets = dict(quantizable(pipeline, build))
    weights = _count(pipeline, build, targets)
    dropped = {name: module.weight for name, module in list(targets.items())[:drop]}
    _quantize(pipeline, build, targets)
    for name, weight in dropped.items():
        targets[name].weight = weight
    return _evidence(pipeline, build, targets, weights)


def _lay_out_channels_last(pipeline: Any) -> None:
    for component in (pipeline.transformer, pipeline.vae):
        for parameter in component.parameters():
            # Not `Module.to`, which refuses the whole module where a video VAE has 5-D weights.
            if parameter.ndim == 4:
                parameter.data = parameter.data.to(memory_format=torch.channels_last)


def linear_modules(pipeline: Any) -> Iterator[tuple[str, nn.Linear]]:
    """Every linear module as (`component.qualified.name`, module)."""
    for component, root in components(pipeline).items():
        for name, module in root.named_modules():
            if isinstance(module, nn.Linear):
                yield f"{component}.{name}", module


def quantizable(pipeline: Any, build: Build) -> Iterator[tuple[str, nn.Linear]]:
    """The linear modules that are to be quantized."""
    if build.recipe.scheme.config is None:
        return
    for name, module in _candidates(pipeline, build):
        excluded = any(fnmatch.fnmatch(_local(name), pattern) for pattern in build.exclusions)
        if not excluded and _broken_rule(module, build.recipe.scheme) is None:
            yield name, module


def _candidates(pipeline: Any, build: Build) -> Iterator[tuple[str, nn.Linear]]:
    """The linear modules of the components to quantize."""
    for name, module in linear_modules(pipeline):
        if name.split(".", 1)[0] in build.recipe.quantized_components:
            yield name, module


def _local(name: str) -> str:
    return name.split(".", 1)[1]


def _broken_rule(module: nn.Linear, scheme: Scheme) -> str | None:
    """The rule about shapes that keeps `module` from being quantized."""
    rules = scheme.shape_rules.items()
    return next((rule for rule, (size, multiple) in rules if getattr(module, size) % multiple), None)


def _count(pipeline: Any, build: Build, targets: dict[str, nn.Linear]) -> WeightCount | None:
    """What the parameters of the quantized components are to become, from their shapes before that."""
    asked = build.recipe.scheme.weight
    if asked is None:
        return None
    parts = components(pipeline)
    parameters = [p for name in build.recipe.quantized_components for p in parts[name].parameters()]
    weights = [module.weight for module in targets.values()]
    return WeightCount(
        elements=sum(asked.stored_elements(*weight.shape) for weight in weights),
        scales=sum(asked.stored_scales(*weight.shape) for weight in weights),
        other_bytes=stored_bytes(parameters) - stored_bytes(weights),
    )


def implied_bytes(count: WeightCount, asked: QuantizedWeight) -> float:
    """Bytes of the quantized components' parameters, as the bit width of the scheme implies them."""
    return count.other_bytes + asked.implied_bytes(count.elements, count.scales)


def _quantize(pipeline: Any, build: Build, targets: dict[str, nn.Linear]) -> None:
    recipe = build.recipe
    if recipe.scheme.config is None:
        return
    asked = frozenset(targets)
    try:
        from torchao.quantization import quantize_

        config = construct(recipe.scheme.config)
        for component in recipe.quantized_components:
            quantize_(
                getattr(pipeline, component),
                config,
                filter_fn=lambda _module, name, component=component: f"{component}.{name}" in asked,
            )
    except torch.OutOfMemoryError:
        raise
    except REFUSALS as error:
        message = (
            f"{recipe.scheme.id}, which this stack supports, is refused for this pipeline: "
            f"{type(error).__name__}: {error}"
        )
        raise WorkerError(Failure(kind=FailureKind.LOAD, phase=Phase.QUANTIZE, message=message)) from error


Look = tuple[str, str, str | None, bool]
"""Subclass, dtype of the quantized values, granularity of the scales, dynamic activation."""

SCALES = {"scale": 1, "scale_and_zero": 2}
"""Attribute of a tensor subclass that holds scales -> numbers a scale takes in it."""
ACTIVATION = ("act_quant_kwargs", "activation_quantization")
"""Attributes of a tensor subclass that say how activations are quantized; None where they are not."""


def look(weight: torch.Tensor, asked: QuantizedWeight | None = None) -> Look:
    """What a linear module's weight is.

    Some counts of scales have two names (a row as wide as a group): that of `asked` is used where it fits.
    """
    dtype = getattr(weight, "target_dtype", getattr(weight, "qdata", weight).dtype)
    dynamic = any(getattr(weight, name, None) is not None for name in ACTIVATION)
    return type(weight).__name__, str(dtype).removeprefix("torch."), _granularity(weight, asked), dynamic


def _granularity(weight: torch.Tensor, asked: QuantizedWeight | None) -> str | None:
    holder = next((name for name in SCALES if getattr(weight, name, None) is not None), None)
    if holder is None:
        return None
    scale = getattr(weight, holder)
    count, (rows, columns) = scale.numel() // SCALES[holder], weight.shape
    if asked is not None and count == asked.stored_scales(rows, columns):
        return asked.granularity
    named = {1: ScaleShape.PER_TENSOR.value, rows: ScaleShape.PER_ROW.value}
    group = rows * columns // count
    evenly = group * count == rows * columns and columns % group == 0
    grouped = f"{ScaleShape.PER_GROUP.value}-{group}" if evenly else "x".join(map(str, scale.shape))
    return named.get(count, grouped)


def _evidence(
    pipeline: Any, build: Build, targets: dict[str, nn.Linear], weights: WeightCount | None
) -> Quantization:
    groups: dict[tuple[str, Look], list[str]] = collections.defaultdict(list)
    asked = build.recipe.scheme.weight
    for name, module in linear_modules(pipeline):
        component, local = name.split(".", 1)
        groups[component, look(module.weight, asked)].append(local)
    unquantized = [
        name for name, module in targets.items() if asked and not asked.describes(*look(module.weight, asked))
    ]
    return Quantization(
        expected_modules=len(targets),
        groups=tuple(_group(*key, names) for key, names in sorted(groups.items(), key=str)),
        excluded=_exclusion_counts(pipeline, build),
        unquantized=tuple(unquantized[:MAX_UNQUANTIZED]),
        weights=weights,
    )


def _group(component: str, seen: Look, names: list[str]) -> ModuleGroup:
    subclass, dtype, scale, dynamic = seen
    return ModuleGroup(
        component=component,
        subclass=subclass,
        dtype=dtype,
        scale=scale,
        dynamic_activation=dynamic,
        count=len(names),
        examples=tuple(names[:EXAMPLES]),
    )


def _exclusion_counts(pipeline: Any, build: Build) -> dict[str, int]:
    scheme = build.recipe.scheme
    modules = [(_local(name), module) for name, module in _candidates(pipeline, build)]
    by_name = {
        pattern: sum(fnmatch.fnmatch(name, pattern) for name, _ in modules) for pattern in build.exclusions
    }
    broken = collections.Counter(_broken_rule(module, scheme) for _, module in modules)
    return by_name | {rule: broken[rule] for rule in scheme.shape_rules}


def count_as_asked(quantization: Quantization, recipe: Recipe) -> int:
    """Modules that are quantized exactly as the scheme says."""
    asked = recipe.scheme.weight
    if asked is None:
        return 0
    return sum(
        group.count
        for group in quantization.groups
        if asked.describes(group.subclass, group.dtype, group.scale, group.dynamic_activation)
    )
