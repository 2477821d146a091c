"""Sets up what a recipe saves memory with: hooks that move weights, and a VAE that decodes in parts."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from perf_tests.tables.recipes import (
    LEAF_OFFLOAD,
    MODEL_OFFLOAD,
    SEQUENTIAL_OFFLOAD,
    Decoding,
    Recipe,
)
from perf_tests.worker.model.build import components


@dataclass(frozen=True, kw_only=True, slots=True)
class Hook:
    """What moves weights when one module is called."""

    module: nn.Module
    kind: str
    """Its class."""
    parameters: tuple[nn.Parameter, ...]
    """The weights that it moves."""
    implementation: Any
    """The object itself."""


def set_up(pipeline: Any, recipe: Recipe, device: torch.device) -> None:
    """Offload the weights of `pipeline` from `device`, and divide its decoding, as the recipe says.

    To be called when everything that needs the weights elsewhere than in a call is done.
    """
    if recipe.decoding is not Decoding.WHOLE:
        DIVIDE[recipe.decoding](pipeline.vae)
    if recipe.offload is not None:
        WAYS[recipe.offload.id](pipeline, device)


def hooks(root: nn.Module) -> Iterator[Hook]:
    """The hooks of accelerate and diffusers that move weights of a component, in the order of its modules."""
    for module in root.modules():
        for each in _accelerates(module):
            if type(each).__name__ == MODEL_OFFLOAD.hook:
                yield _hook(module, each, module.parameters())
            # One that does not offload only moves what goes in and comes out.
            elif type(each).__name__ == SEQUENTIAL_OFFLOAD.hook and each.offload:
                yield _hook(module, each, module.parameters(recurse=False))
        for each in _diffusers(module):
            if type(each).__name__ == LEAF_OFFLOAD.hook:
                inside = [p for part in each.group.modules for p in part.parameters()]
                yield _hook(module, each, (*inside, *each.group.parameters))


@contextmanager
def weights_in_reach(pipeline: Any) -> Iterator[None]:
    """A block in which parameters hold the weights that otherwise only hooks hold."""
    holding = [
        hook
        for root in components(pipeline).values()
        for hook in hooks(root)
        if hook.kind == SEQUENTIAL_OFFLOAD.hook
    ]
    for hook in holding:
        hook.implementation.detach_hook(hook.module)
    try:
        yield
    finally:
        for hook in holding:
            hook.implementation.init_hook(hook.module)


def _hook(module: nn.Module, implementation: Any, parameters: Any) -> Hook:
    kind = type(implementation).__name__
    return Hook(module=module, kind=kind, parameters=tuple(parameters), implementation=implementation)


def _accelerates(module: nn.Module) -> tuple[Any, ...]:
    found = getattr(module, "_hf_hook", None)
    # Several of a module are one, a SequentialHook.
    return () if found is None else tuple(getattr(found, "hooks", (found,)))


def _diffusers(module: nn.Module) -> tuple[Any, ...]:
    registry = getattr(module, "_diffusers_hook", None)
    return () if registry is None else tuple(registry.hooks.values())


def _by_component(pipeline: Any, device: torch.device) -> None:
    pipeline.enable_model_cpu_offload(device=device)


def _by_module(pipeline: Any, device: torch.device) -> None:
    if device.type != "cpu":
        pipeline.enable_sequential_cpu_offload(device=device)
        return
    # diffusers names it cpu:0, which makes accelerate turn tensor subclasses into plain tensors.
    from accelerate import cpu_offload

    for root in components(pipeline).values():
        cpu_offload(root, device, offload_buffers=len(root._parameters) > 0)


def _by_leaf(pipeline: Any, device: torch.device) -> None:
    streams = LEAF_OFFLOAD.streams and device.type == "cuda"
    pipeline.enable_group_offload(
        onload_device=device,
        offload_type="leaf_level",
        use_stream=streams,
        record_stream=streams,
    )


WAYS: Mapping[str, Callable[[Any, torch.device], None]] = {
    MODEL_OFFLOAD.id: _by_component,
    SEQUENTIAL_OFFLOAD.id: _by_module,
    LEAF_OFFLOAD.id: _by_leaf,
}
"""By id of the offload."""


def _tile(vae: Any) -> None:
    vae.enable_tiling()


def _slice(vae: Any) -> None:
    vae.enable_slicing()


DIVIDE: Mapping[Decoding, Callable[[Any], None]] = {Decoding.TILED: _tile, Decoding.SLICED: _slice}
"""Every way but the default."""
