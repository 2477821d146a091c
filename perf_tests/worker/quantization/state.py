"""What a pipeline is at one moment: read once it is quantized, and again after its last image."""

from __future__ import annotations

import collections
import hashlib
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
from torch import nn

from perf_tests.protocol.reports import ComponentState, PipelineState, Quantization
from perf_tests.tables.cases import Build
from perf_tests.tables.recipes import Recipe
from perf_tests.worker.measure import memory
from perf_tests.worker.measure.memory import plain_tensors, stored_bytes
from perf_tests.worker.model.build import components
from perf_tests.worker.model.offload import weights_in_reach
from perf_tests.worker.quantization import apply
from perf_tests.worker.quantization.apply import Look, group_of, linear_modules, look

WORD_BYTES = 8
CHECKSUMS = 2**63
"""How many there are: those that a signed integer of 64 bits can hold."""


def read(pipeline: Any, build: Build) -> PipelineState:
    """The state of `pipeline` now, offloaded or not; takes one pass over its parameters, and leaves nothing
    behind."""
    with weights_in_reach(pipeline):
        return _read(pipeline, build)


def _read(pipeline: Any, build: Build) -> PipelineState:
    groups: dict[tuple[str, Look], list[str]] = collections.defaultdict(list)
    for name, module in linear_modules(pipeline):
        component, local = name.split(".", 1)
        groups[component, look(module.weight, build.recipe.scheme.weight)].append(local)
    return PipelineState(
        components={name: _component(module) for name, module in components(pipeline).items()},
        groups=tuple(group_of(key[0], None, key[1], names) for key, names in sorted(groups.items(), key=str)),
    )


def values(pipeline: Any, device: torch.device, report: Quantization, recipe: Recipe) -> dict[str, float]:
    """Metric name -> what quantizing left: counts, and bytes of weights."""
    weight_bytes = memory.weight_bytes(pipeline, recipe.quantized_components)
    found: dict[str, float] = {
        "model_memory_mib": memory.model_mib(pipeline, device),
        "weight_bytes": weight_bytes,
        "quantized_modules": apply.count_as_asked(report, recipe),
        **memory.component_bytes(pipeline),
    }
    if report.plan is not None:
        found["modules_off_plan"] = apply.count_off_plan(report, recipe)
    if report.weights is not None:
        found["weight_bytes_vs_implied"] = weight_bytes / apply.implied_bytes(report.weights)
    return found


def _component(module: nn.Module) -> ComponentState:
    parameters = tuple(module.parameters())
    formats = [_is_channels_last(each) for each in parameters if _tells_format(each)]
    return ComponentState(
        weight_bytes=stored_bytes(parameters),
        checksum=checksum(parameters),
        convolutions=len(formats),
        channels_last=sum(formats),
    )


def checksum(tensors: Iterable[torch.Tensor]) -> int:
    """Sum, modulo `CHECKSUMS`, of the 64-bit words of the storages behind `tensors`, each counted once."""
    storages = {
        plain.untyped_storage().data_ptr(): plain.untyped_storage()
        for tensor in tensors
        for plain in plain_tensors(tensor)
    }
    return sum(map(_sum, storages.values())) % CHECKSUMS


def _sum(storage: torch.UntypedStorage) -> int:
    stored = torch.empty(0, dtype=torch.uint8, device=storage.device).set_(storage)
    words = stored.numel() // WORD_BYTES * WORD_BYTES
    # An integer sum wraps around, and is the same in any order in which a device adds.
    return int(stored[:words].view(torch.int64).sum()) + int(stored[words:].sum())


HASH_DIGITS = 16
"""Of a sha256: enough to tell tensors apart that differ by accident."""


def hashes(pipeline: Any, names: Iterable[str]) -> dict[str, str]:
    """Qualified name -> hash of each tensor in the state of the components `names`.

    A tensor subclass counts as its inner tensors, and as what else it knows of itself: its class, sizes and
    how activations are to be quantized.
    """
    parts = components(pipeline)
    states = {f"{each}.{name}": t for each in names for name, t in parts[each].state_dict().items()}
    leaves = dict(leaf for name, tensor in states.items() for leaf in _leaves(name, tensor))
    # hashlib lets other threads run; the copies of all tensors of a model on a GPU would not fit at once.
    with ThreadPoolExecutor() as pool:
        return dict(zip(leaves, pool.map(_hash, leaves.values()), strict=True))


def _leaves(name: str, tensor: torch.Tensor) -> Iterator[tuple[str, torch.Tensor | str]]:
    if type(tensor) in (torch.Tensor, nn.Parameter) or not hasattr(tensor, "__tensor_flatten__"):
        yield name, tensor
        return
    inner, context = tensor.__tensor_flatten__()
    yield f"{name} as {type(tensor).__name__}", _plain(context)
    for each in inner:
        yield from _leaves(f"{name}.{each}", getattr(tensor, each))


def _plain(context: Any) -> str:
    """`context` in words; a file may have turned a tuple into a list."""
    if isinstance(context, Mapping):
        return f"{{{', '.join(f'{key}: {_plain(value)}' for key, value in context.items())}}}"
    if isinstance(context, (tuple, list)) and not hasattr(context, "_fields"):
        return f"[{', '.join(map(_plain, context))}]"
    return repr(context)


def _hash(leaf: torch.Tensor | str) -> str:
    digest = hashlib.sha256()
    if isinstance(leaf, str):
        digest.update(leaf.encode())
    else:
        digest.update(f"{leaf.dtype} {tuple(leaf.shape)} ".encode())
        digest.update(leaf.detach().contiguous().cpu().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()[:HASH_DIGITS]


def _tells_format(weight: torch.Tensor) -> bool:
    """Whether its strides differ between the memory formats: not those of a single channel or pixel."""
    return weight.ndim == 4 and weight.shape[1] > 1 and weight.shape[2] * weight.shape[3] > 1


def _is_channels_last(weight: torch.Tensor) -> bool:
    return weight.is_contiguous(memory_format=torch.channels_last)
