"""Which kernels of two steps do the same work, and which of them cost most more; pure.

Names alone do not tell: inductor numbers its kernels, and another version gives the work to others. So
kernels are matched by name without numbers and by the shape of their tensors; what is left, by name alone;
what is left then, by what kernels do and the shape they do it on, several in the place of one among them.
"""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Mapping

from perf_tests.harness.records.evidence import KernelChange, StepChange
from perf_tests.protocol.profiles import KernelTime

MOST = 5
"""Kernels that are named."""
GENERATED = re.compile(r"^(triton_|cpp_fused|graph_\d+_cpp_fused)")
NUMBERS = re.compile(r"(_\d+)+(_?\d+d\w*)?$")
"""What inductor appends to the name of a kernel: its place in the graph, and in older versions how it is
specialized."""
HASH = re.compile(r"^(## Call CompiledFxGraph) \S+ ##$")
REGION = re.compile(r"^(Torch-Compiled Region): \S+$")

Group = tuple[KernelTime, ...]
Key = Callable[[KernelTime], Hashable | None]
"""What matching kernels have in common; None for one that is not matched in that way."""


def plain_name(name: str) -> str:
    """The name of a kernel without what only tells it from others of its graph."""
    for labelled in (HASH, REGION):
        if found := labelled.match(name):
            return found[1]
    return NUMBERS.sub("", name) if GENERATED.match(name) else name


def _alike(kernel: KernelTime) -> Hashable:
    return plain_name(kernel.name), kernel.shape


def _named_alike(kernel: KernelTime) -> Hashable:
    return plain_name(kernel.name)


def _at_the_same_work(kernel: KernelTime) -> Hashable | None:
    return (kernel.kind, kernel.shape) if kernel.kind and kernel.shape else None


ROUNDS: tuple[Key, ...] = (_alike, _named_alike, _at_the_same_work)
"""How kernels are matched, the surest way first; each of what those before have left."""


def changes(stable: Iterable[KernelTime], candidate: Iterable[KernelTime]) -> tuple[KernelChange, ...]:
    """All kernels of both steps, each in one change; those without a counterpart are alone in theirs."""
    left: tuple[Group, Group] = tuple(stable), tuple(candidate)
    found = []
    for key in ROUNDS:
        grouped = tuple(_grouped(side, key) for side in left)
        both = [name for name in grouped[0] if name in grouped[1]]
        found += [_change(grouped[0][name], grouped[1][name]) for name in both]
        left = _without(left[0], key, both), _without(left[1], key, both)
    alone = (_grouped(side, _alike).values() for side in left)
    gone, new = ([*groups] for groups in alone)
    return (*found, *(_change(group, ()) for group in gone), *(_change((), group) for group in new))


def step_change(stable: Iterable[KernelTime], candidate: Iterable[KernelTime]) -> StepChange:
    """What a step spends more under the candidate."""
    found = changes(stable, candidate)
    slower = sorted((each for each in found if each.more_us > 0), key=lambda each: -each.more_us)
    gone = [each for each in found if not each.candidate]
    return StepChange(
        stable_us=math.fsum(each.stable_us for each in found),
        candidate_us=math.fsum(each.candidate_us for each in found),
        slower=tuple(slower[:MOST]),
        new=sum(not each.stable for each in found),
        gone=len(gone),
        gone_us=math.fsum(each.stable_us for each in gone),
    )


def _grouped(kernels: Group, key: Key) -> Mapping[Hashable, Group]:
    found: dict[Hashable, list[KernelTime]] = defaultdict(list)
    for kernel in kernels:
        if (name := key(kernel)) is not None:
            found[name].append(kernel)
    return {name: tuple(group) for name, group in found.items()}


def _without(kernels: Group, key: Key, matched: Iterable[Hashable]) -> Group:
    taken = frozenset(matched)
    return tuple(kernel for kernel in kernels if key(kernel) not in taken)


def _change(stable: Group, candidate: Group) -> KernelChange:
    shapes = {kernel.shape for kernel in (*stable, *candidate)}
    return KernelChange(
        stable=_names(stable),
        candidate=_names(candidate),
        shape=shapes.pop() if len(shapes) == 1 else "",
        stable_us=math.fsum(kernel.us for kernel in stable),
        candidate_us=math.fsum(kernel.us for kernel in candidate),
        stable_launches=sum(kernel.launches for kernel in stable),
        candidate_launches=sum(kernel.launches for kernel in candidate),
    )


def _names(kernels: Group) -> tuple[str, ...]:
    """Those that take longest first."""
    longest = sorted(kernels, key=lambda kernel: (-kernel.us, kernel.name))
    return tuple(dict.fromkeys(kernel.name for kernel in longest))
