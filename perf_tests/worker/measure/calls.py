"""Counts how often one generation calls each component of its pipeline, compiled or not."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from torch import nn

from perf_tests.worker.model.build import components

DECODER = "decode"
"""How the method of the VAE is counted that a pipeline calls once, however it is tiled."""


@contextmanager
def counted(pipeline: Any) -> Iterator[Counter[str]]:
    """Calls of the transformer, the text encoders and `vae.decode` in the block, by name.

    Nothing stays attached to `pipeline`. No module hooks: dynamo would guard on them, and compile again.
    """
    counts: Counter[str] = Counter()
    with ExitStack() as attached:
        for name, module in components(pipeline).items():
            where = (name, module, _entry(module)) if name != "vae" else (DECODER, module, "decode")
            counts[where[0]] = 0
            attached.enter_context(_counting(counts, *where))
        yield counts


@contextmanager
def methods_counted(owner: nn.Module, names: tuple[str, ...]) -> Iterator[Counter[str]]:
    """Calls of those methods `names` in the block that `owner` has, by name."""
    counts: Counter[str] = Counter()
    with ExitStack() as attached:
        for name in (each for each in names if hasattr(owner, each)):
            counts[name] = 0
            attached.enter_context(_counting(counts, name, owner, name))
        yield counts


def _entry(module: nn.Module) -> str:
    """The attribute that calling `module` calls."""
    return "_call_impl" if module._compiled_call_impl is None else "_compiled_call_impl"


@contextmanager
def _counting(counts: Counter[str], name: str, owner: nn.Module, attribute: str) -> Iterator[None]:
    right: Callable[..., Any] = getattr(owner, attribute)
    was_its_own = attribute in vars(owner)

    @functools.wraps(right)
    def counting(*arguments: Any, **keywords: Any) -> Any:
        counts[name] += 1
        return right(*arguments, **keywords)

    # Not `setattr`, which modules override.
    object.__setattr__(owner, attribute, counting)
    try:
        yield
    finally:
        if was_its_own:
            object.__setattr__(owner, attribute, right)
        else:
            object.__delattr__(owner, attribute)
