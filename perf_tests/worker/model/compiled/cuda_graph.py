"""A transformer as one CUDA graph: recorded once, with the kernels of its compiled blocks, then replayed.

The host then launches one graph a step, whatever the blocks consist of. A graph knows the addresses of what
it was recorded with: inputs are copied to those, and each kind of call (its shapes and other arguments) has
its own.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import nn
from torch.utils import _pytree as pytree

CALLS_BEFORE = 2
"""What is compiled or loaded at a call must not be recorded; some graphs are compiled at the second one."""


class Graph(Protocol):
    """A recorded call: `torch.cuda.CUDAGraph`."""

    def replay(self) -> None:
        """Run it again."""


Record = Callable[[Callable[[], Any]], tuple[Graph, Any]]
"""Runs a function, and returns its recording, and its result, which every replay writes anew."""


def on_cuda(function: Callable[[], Any]) -> tuple[Graph, Any]:
    """Record `function` on the current CUDA device."""
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        result = function()
    return graph, result


@dataclass(frozen=True, kw_only=True, slots=True)
class RecordedCall:
    """One kind of call."""

    graph: Graph
    inputs: Sequence[torch.Tensor]
    result: Any

    def replay(self, inputs: Sequence[torch.Tensor]) -> Any:
        """The result for `inputs`, which the next replay leaves as it is."""
        for mine, given in zip(self.inputs, inputs, strict=True):
            mine.copy_(given)
        self.graph.replay()
        return pytree.tree_map_only(torch.Tensor, torch.clone, self.result)


class GraphedForward:
    """The `forward` of a module that is replayed from its third call of a kind on."""

    def __init__(self, forward: Callable[..., Any], record: Record) -> None:
        self.plain = forward
        self._record = record
        self._calls: Counter[Hashable] = Counter()
        self._recorded: dict[Hashable, RecordedCall] = {}

    def __call__(self, *arguments: Any, **keywords: Any) -> Any:
        """What the module answers."""
        leaves, structure = pytree.tree_flatten((arguments, keywords))
        kind = (str(structure), *map(_kind, leaves))
        self._calls[kind] += 1
        if self._calls[kind] <= CALLS_BEFORE:
            return self.plain(*arguments, **keywords)
        if kind not in self._recorded:
            self._recorded[kind] = self._recording(leaves, structure)
        return self._recorded[kind].replay([each for each in leaves if isinstance(each, torch.Tensor)])

    def _recording(self, leaves: Sequence[Any], structure: pytree.TreeSpec) -> RecordedCall:
        mine = [each.clone() if isinstance(each, torch.Tensor) else each for each in leaves]
        arguments, keywords = pytree.tree_unflatten(mine, structure)
        graph, result = self._record(lambda: self.plain(*arguments, **keywords))
        inputs = tuple(each for each in mine if isinstance(each, torch.Tensor))
        return RecordedCall(graph=graph, inputs=inputs, result=result)


def attach(module: nn.Module, record: Record = on_cuda) -> None:
    """Have `module` replayed; it must not be called with gradients."""
    object.__setattr__(
        module, "forward", GraphedForward(module.forward, record)
    )  # modules override `setattr`


def _kind(leaf: Any) -> Hashable:
    if isinstance(leaf, torch.Tensor):
        return tuple(leaf.shape), leaf.stride(), leaf.dtype, leaf.device
    return repr(leaf)
