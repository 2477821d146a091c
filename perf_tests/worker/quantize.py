"""Apply a recipe's fusion and quantization, and return the evidence that it took effect."""

from __future__ import annotations

import collections
import fnmatch
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from perf_tests.harness.errors import WorkerError
from perf_tests.harness.protocol import Failure, FailureKind, ModuleGroup, Phase, Quantization
from perf_tests.tables.cases import Build
from perf_tests.tables.recipes import Recipe
from perf_tests.tables.schemes import ScaleShape
from perf_tests.worker.build import components
from perf_tests.worker.lazy import construct

EXAMPLES = 3
MAX_UNQUANTIZED = 10


def apply(pipeline: Any, build: Build, *, drop: int = 0) -> Quantization:
    """Fuse, quantize in place on the device, and look at every linear module afterwards.

    `drop` modules get their weights back (fire drill). Raises WorkerError(unsupported) where the stack or
    the device refuses the scheme.
    """
    if build.recipe.fuse_qkv:
        pipeline.transformer.fuse_qkv_projections()
    targets = dict(quantizable(pipeline, build))
    dropped = {name: module.weight for name, module in list(targets.items())[:drop]}
    _quantize(pipeline, build)
    for name, weight in dropped.items():
        targets[name].weight = weight
    return _evidence(pipeline, build, targets)


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
    for name, module in linear_modules(pipeline):
        component = name.split(".", 1)[0]
        if component in build.recipe.quantized_components and not _excluded(name, build):
            yield name, module


def _excluded(name: str, build: Build) -> bool:
    local = name.split(".", 1)[1]
    return any(fnmatch.fnmatch(local, pattern) for pattern in build.exclusions)


def _quantize(pipeline: Any, build: Build) -> None:
    recipe = build.recipe
    if recipe.scheme.config is None:
        return
    try:
        from torchao.quantization import quantize_

        config = construct(recipe.scheme.config)
        for component in recipe.quantized_components:
            prefix = f"{component}."
            quantize_(
                getattr(pipeline, component),
                config,
                filter_fn=lambda module, name, prefix=prefix: (
                    isinstance(module, nn.Linear) and not _excluded(prefix + name, build)
                ),
            )
    except torch.OutOfMemoryError:
        raise
    # What torchao, or a kernel of it, raises where API, device or shape do not fit.
    except (ImportError, AttributeError, NotImplementedError, AssertionError, RuntimeError) as error:
        message = f"{recipe.scheme.id} is refused by this stack: {type(error).__name__}: {error}"
        raise WorkerError(
            Failure(kind=FailureKind.UNSUPPORTED, phase=Phase.QUANTIZE, message=message)
        ) from error


Look = tuple[str, str, str | None, bool]
"""Subclass, stored dtype, scale shape, dynamic activation."""


def look(weight: torch.Tensor) -> Look:
    """What a linear module's weight is."""
    data = getattr(weight, "qdata", weight)
    dynamic = getattr(weight, "act_quant_kwargs", None) is not None
    return type(weight).__name__, str(data.dtype).removeprefix("torch."), _scale_shape(weight), dynamic


def _scale_shape(weight: torch.Tensor) -> str | None:
    scale = getattr(weight, "scale", None)
    if scale is None:
        return None
    if scale.numel() == 1:
        return ScaleShape.PER_TENSOR
    if scale.numel() == weight.shape[0]:
        return ScaleShape.PER_ROW
    return "x".join(map(str, scale.shape))


def _evidence(pipeline: Any, build: Build, targets: dict[str, nn.Linear]) -> Quantization:
    groups: dict[tuple[str, Look], list[str]] = collections.defaultdict(list)
    for name, module in linear_modules(pipeline):
        component, local = name.split(".", 1)
        groups[component, look(module.weight)].append(local)
    asked = build.recipe.scheme.weight
    unquantized = [
        name for name, module in targets.items() if asked and not asked.describes(*look(module.weight))
    ]
    return Quantization(
        expected_modules=len(targets),
        groups=tuple(_group(*key, names) for key, names in sorted(groups.items(), key=str)),
        excluded=_exclusion_counts(pipeline, build),
        unquantized=tuple(unquantized[:MAX_UNQUANTIZED]),
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
    locals_ = [
        name.split(".", 1)[1]
        for name, _ in linear_modules(pipeline)
        if name.split(".", 1)[0] in build.recipe.quantized_components
    ]
    return {pattern: sum(fnmatch.fnmatch(name, pattern) for name in locals_) for pattern in build.exclusions}


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
