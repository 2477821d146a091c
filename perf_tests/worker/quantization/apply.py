"""Apply a recipe's fusion and quantization, and report what each linear module became."""

from __future__ import annotations

import collections
import dataclasses
import fnmatch
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NoReturn

import torch
from torch import nn

from perf_tests.protocol.errors import WorkerError
from perf_tests.protocol.messages import Failure, FailureKind, Phase
from perf_tests.protocol.reports import ModuleGroup, PlanReport, Quantization, WeightCount
from perf_tests.tables.cases import Build
from perf_tests.tables.recipes import QuantizedOn, Recipe
from perf_tests.tables.schemes.spec import QuantizedWeight, ScaleShape, Scheme
from perf_tests.worker.measure.memory import device_of, stored_bytes
from perf_tests.worker.model.build import components
from perf_tests.worker.model.lazy import construct, resolve

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
"""What torchao or one of its kernels raises where API, device or shape do not fit. torch.OutOfMemoryError is
also a RuntimeError, but means something else: let it pass before catching these."""


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Chosen:
    """The scheme that each module is to be quantized with."""

    schemes: Mapping[str, Scheme]
    """By `component.qualified.name`; all the same unless there was a search."""
    report: PlanReport | None = None
    """None without a search."""

    @property
    def quantized(self) -> dict[str, QuantizedWeight]:
        """Name of each module to quantize -> what its weight must look like afterwards."""
        return {name: scheme.weight for name, scheme in self.schemes.items() if scheme.weight is not None}

    def of_plan(self, name: str) -> str | None:
        """Id of the scheme that the plan chose for the module; None where it chose none, or there is none."""
        return self.schemes[name].id if self.report and name in self.schemes else None


Choose = Callable[[dict[str, nn.Linear]], Chosen]
"""Called with the quantizable modules of a pipeline that is already laid out and fused."""


def apply(
    pipeline: Any,
    build: Build,
    *,
    drop: int = 0,
    choose: Choose | None = None,
    device: torch.device | None = None,
) -> Quantization:
    """Lay out, fuse and quantize in place on the device, then inspect every linear module.

    `choose` is given for a scheme with a search, and only then, and `device` where the recipe begins on the
    host (`move_to_host`). For a fire drill, `drop` of the quantized modules get their old weights back.
    Raises WorkerError(load) where the stack refuses a scheme that it supports in general (`support.check`
    comes first), where a plan quantizes fewer than `drop` modules, and for a `drop` of what was loaded.
    """
    if drop and build.recipe.is_loaded:
        _refuse(f"{build.recipe.id} quantizes nothing, so that no quantization can be dropped")
    if build.recipe.channels_last:
        _lay_out_channels_last(pipeline)
    if build.recipe.fuse_qkv:
        pipeline.transformer.fuse_qkv_projections()
    targets = dict(quantizable(pipeline, build))
    scheme = build.recipe.scheme
    chosen = choose(targets) if choose else Chosen(schemes=dict.fromkeys(targets, scheme))
    weights = _count(pipeline, build, targets, chosen)
    dropped = {name: targets[name].weight for name in _to_drop(chosen, drop)}
    _quantize(pipeline, build, chosen, device)
    for name, weight in dropped.items():
        targets[name].weight = weight
    if build.recipe.starts_on_host:
        _move(pipeline, build, device)
    return _inspect(pipeline, build, chosen, weights)


def move_to_host(pipeline: Any, build: Build) -> None:
    """Move what is to be quantized to where the recipe wants it to be at first."""
    if build.recipe.starts_on_host:
        _move(pipeline, build, torch.device("cpu"))


def _move(pipeline: Any, build: Build, device: torch.device | None) -> None:
    for component in build.recipe.quantized_components:
        getattr(pipeline, component).to(device)


def _to_drop(chosen: Chosen, drop: int) -> list[str]:
    quantized = list(chosen.quantized)
    if chosen.report and drop > len(quantized):
        _refuse(
            f"the fire drill is to drop the quantization of {drop} modules, and the plan "
            f"{chosen.report.file} quantizes {len(quantized)}: drop fewer, or search again without that file"
        )
    return quantized[:drop]


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
    """Every linear module that the recipe says to quantize, as (`component.qualified.name`, module)."""
    if build.recipe.scheme.config is None:
        return
    for name, module in _candidates(pipeline, build):
        excluded = any(fnmatch.fnmatch(_local(name), pattern) for pattern in build.exclusions)
        if not excluded and broken_rule(module, build.recipe.scheme) is None:
            yield name, module


def _candidates(pipeline: Any, build: Build) -> Iterator[tuple[str, nn.Linear]]:
    """Every linear module of the components that the recipe quantizes."""
    for name, module in linear_modules(pipeline):
        if any(_is_of(component, name) for component in build.recipe.quantized_components):
            yield name, module


def _local(name: str) -> str:
    return name.split(".", 1)[1]


def broken_rule(module: nn.Linear, scheme: Scheme) -> str | None:
    """The shape rule of `scheme` that keeps `module` from being quantized; None where it breaks none."""
    rules = scheme.shape_rules.items()
    return next((rule for rule, (size, multiple) in rules if getattr(module, size) % multiple), None)


def _count(pipeline: Any, build: Build, targets: dict[str, nn.Linear], chosen: Chosen) -> WeightCount | None:
    """What the parameters of the quantized components are to become, computed from their original shapes."""
    if build.recipe.scheme.config is None:
        return None
    parts = components(pipeline)
    parameters = [p for name in build.recipe.quantized_components for p in parts[name].parameters()]
    weights = [(targets[name].weight, asked) for name, asked in chosen.quantized.items()]
    elements = [asked.stored_elements(*weight.shape) for weight, asked in weights]
    scales = [asked.stored_scales(*weight.shape) for weight, asked in weights]
    implied = zip(weights, elements, scales, strict=True)
    return WeightCount(
        elements=sum(elements),
        scales=sum(scales),
        other_bytes=stored_bytes(parameters) - stored_bytes(weight for weight, _ in weights),
        quantized_bytes=sum(asked.implied_bytes(stored, each) for (_, asked), stored, each in implied),
        device=device_of(parameters),
    )


def implied_bytes(count: WeightCount) -> float:
    """Bytes of the quantized components' parameters that the bit widths of their schemes imply."""
    assert count.quantized_bytes is not None, "counted by an earlier version"
    return count.other_bytes + count.quantized_bytes


def _quantize(pipeline: Any, build: Build, chosen: Chosen, device: torch.device | None) -> None:
    scheme = build.recipe.scheme
    if scheme.config is None or build.recipe.is_loaded:
        return
    try:
        from torchao.quantization import quantize_

        for component in build.recipe.quantized_components:
            asked = {_local(name): each for name, each in chosen.schemes.items() if _is_of(component, name)}
            config, filter_fn = _instructions(build, asked)
            moved = {"device": device} if build.recipe.quantized_on is QuantizedOn.MODULE else {}
            quantize_(getattr(pipeline, component), config, filter_fn=filter_fn, **moved)
    except torch.OutOfMemoryError:
        raise
    except REFUSALS as error:
        message = (
            f"{scheme.id}, which this stack supports, is refused for this pipeline: "
            f"{type(error).__name__}: {error}"
        )
        _refuse(message, error)


def _instructions(
    build: Build, asked: Mapping[str, Scheme]
) -> tuple[Any, Callable[[nn.Module, str], bool] | None]:
    """Config and filter for the modules `asked` of a component.

    One config for all, or, where schemes were chosen, one that names each module and takes no filter; there a
    config of None leaves a module as it is.
    """
    config = build.config_of(build.recipe.scheme)
    assert config is not None, "there is nothing to quantize"
    if build.recipe.scheme.search is None:
        return construct(config), lambda _module, name: name in asked
    configs = {name: build.config_of(each) for name, each in asked.items()}
    by_name = ((name, each and construct(each)) for name, each in configs.items())
    return resolve(config.target)(collections.OrderedDict(by_name)), None


def _is_of(component: str, name: str) -> bool:
    return name.split(".", 1)[0] == component


def _refuse(message: str, cause: Exception | None = None) -> NoReturn:
    raise WorkerError(Failure(kind=FailureKind.LOAD, phase=Phase.QUANTIZE, message=message)) from cause


Look = tuple[str, str, str | None, str | None]
"""Subclass, dtype of the quantized values, granularity of the scales, and how activations are quantized."""

SCALES = {"scale": 1, "scale_and_zero": 2}
"""Attribute of a tensor subclass that holds scales -> stored numbers per scale."""
ACTIVATION = ("act_quant_kwargs", "activation_quantization")
"""Attributes of a tensor subclass that say how activations are quantized; None where they are not."""
ACTIVATION_NAMES = {"int8_asym_per_token": f"int8 {ScaleShape.PER_ROW}"}
"""What torchao gives a name instead of arguments -> dtype and granularity."""
ACTIVATION_DTYPES = {
    "QuantizeTensorToInt8Kwargs": "int8",
    "QuantizeTensorToNVFP4Kwargs": "float4_e2m1fn_x2",
}
"""Arguments that do not state their dtype, which their class implies."""
GRANULARITIES = {
    "PerRow": ScaleShape.PER_ROW,
    "PerToken": ScaleShape.PER_ROW,
    "PerTensor": ScaleShape.PER_TENSOR,
}
"""torchao's classes of granularity -> how many scales activations of shape (tokens, features) have."""


def look(weight: torch.Tensor, asked: QuantizedWeight | None = None) -> Look:
    """What the weight of a linear module is.

    A number of scales may have two names (where a row is as wide as a group): that of `asked` wins.
    """
    dtype = getattr(weight, "target_dtype", getattr(weight, "qdata", weight).dtype)
    stated = (getattr(weight, name, None) for name in ACTIVATION)
    activation = next((_activation(each) for each in stated if each is not None), None)
    return type(weight).__name__, str(dtype).removeprefix("torch."), _granularity(weight, asked), activation


def _activation(arguments: Any) -> str:
    """dtype and granularity, from torchao's arguments or its name for them; what they do not tell is `?`."""
    if isinstance(arguments, str):
        return ACTIVATION_NAMES.get(arguments, arguments)
    stated = (getattr(arguments, field, None) for field in ("float8_dtype", "elem_dtype"))
    implied = ACTIVATION_DTYPES.get(type(arguments).__name__, "?")
    dtype = next((str(each).removeprefix("torch.") for each in stated if each is not None), implied)
    granularity = getattr(arguments, "granularity", None)
    block = getattr(arguments, "block_size", None)
    grouped = "?" if block is None else f"{ScaleShape.PER_GROUP}-{block}"
    named = type(granularity).__name__
    return f"{dtype} {grouped if granularity is None else GRANULARITIES.get(named, named)}"


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


def _inspect(pipeline: Any, build: Build, chosen: Chosen, weights: WeightCount | None) -> Quantization:
    groups: dict[tuple[str, str | None, Look], list[str]] = collections.defaultdict(list)
    scheme, quantized = build.recipe.scheme, chosen.quantized
    unquantized = []
    for name, module in linear_modules(pipeline):
        component, local = name.split(".", 1)
        asked = scheme.weight_of(chosen.of_plan(name))
        seen = look(module.weight, asked)
        groups[component, chosen.of_plan(name), seen].append(local)
        if name in quantized and not quantized[name].describes(*seen):
            unquantized.append(name)
    return Quantization(
        expected_modules=len(chosen.quantized),
        groups=tuple(group_of(*key, names) for key, names in sorted(groups.items(), key=str)),
        excluded=_exclusion_counts(pipeline, build),
        unquantized=tuple(unquantized[:MAX_UNQUANTIZED]),
        weights=weights,
        plan=chosen.report,
    )


def group_of(component: str, chosen: str | None, seen: Look, names: list[str]) -> ModuleGroup:
    """The modules `names` of `component`, whose weights all look like `seen`."""
    subclass, dtype, scale, activation = seen
    return ModuleGroup(
        component=component,
        subclass=subclass,
        dtype=dtype,
        scale=scale,
        dynamic_activation=activation is not None,
        count=len(names),
        examples=tuple(names[:EXAMPLES]),
        chosen=chosen,
        activation=activation,
    )


def _exclusion_counts(pipeline: Any, build: Build) -> dict[str, int]:
    scheme = build.recipe.scheme
    modules = [(_local(name), module) for name, module in _candidates(pipeline, build)]
    by_name = {
        pattern: sum(fnmatch.fnmatch(name, pattern) for name, _ in modules) for pattern in build.exclusions
    }
    broken = collections.Counter(broken_rule(module, scheme) for _, module in modules)
    return by_name | {rule: broken[rule] for rule in scheme.shape_rules}


def count_as_asked(quantization: Quantization, recipe: Recipe) -> int:
    """Modules that are quantized exactly as the scheme says, or as the plan does."""
    return sum(group.count for group in quantization.groups if group.is_quantized_as(recipe.scheme))


def count_off_plan(quantization: Quantization, recipe: Recipe) -> int:
    """Modules for which the plan chose a scheme and which are not as it says, quantized or not."""
    chosen = (group for group in quantization.groups if group.chosen is not None)
    return sum(group.count for group in chosen if not group.looks_like(recipe.scheme.weight_of(group.chosen)))
