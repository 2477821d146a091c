"""The cards of this host that a session measures on, each with processor cores of its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from perf_tests.protocol.errors import UsageError
from perf_tests.protocol.pressure import HOST_SHARED

ALL = "all"
NO_CARD = "leave the option out"
TOPOLOGY = Path("/sys/devices/system/cpu")


@dataclass(frozen=True, kw_only=True, slots=True)
class LaneCard:
    """One of several cards that a session measures on at the same time."""

    unit: str
    """Its UUID."""
    cores: frozenset[int]
    """The logical processors of its workers."""

    @property
    def variables(self) -> Mapping[str, str]:
        """What the environment of its workers says: the card they see, and that others share the host."""
        return {"CUDA_VISIBLE_DEVICES": self.unit, HOST_SHARED: "1"}


def chosen(wanted: str, visible: Sequence[str]) -> tuple[str, ...]:
    """The UUIDs among the `visible` ones that `--perf-gpus` asks for: `all`, a count, or UUIDs.

    A UUID may be cut short, as in CUDA_VISIBLE_DEVICES. Raises UsageError for anything that is not there.
    """
    if wanted == ALL and visible:
        return tuple(visible)
    if wanted.isdecimal():
        return _first(int(wanted), visible)
    if wanted == ALL:
        raise UsageError(f"--perf-gpus all: {_shown(visible)}; {NO_CARD}")
    names = [name.strip() for name in wanted.split(",")]
    found = tuple(_named(name, visible) for name in names)
    if len(set(found)) < len(found):
        raise UsageError(f"--perf-gpus {wanted}: the same GPU twice; name each once")
    return found


def _first(count: int, visible: Sequence[str]) -> tuple[str, ...]:
    if not 1 <= count <= len(visible):
        remedy = f"ask for 1 to {len(visible)}, or correct CUDA_VISIBLE_DEVICES" if visible else NO_CARD
        raise UsageError(f"--perf-gpus {count}: {_shown(visible)}; {remedy}")
    return tuple(visible[:count])


def _named(name: str, visible: Sequence[str]) -> str:
    found = [uuid for uuid in visible if name and uuid.startswith(name)]
    if len(found) != 1:
        raise UsageError(
            f"--perf-gpus: {name!r} names {len(found)} of these, and must name one: {_shown(visible)}; "
            "give 'all', a count, or UUIDs"
        )
    return found[0]


def _shown(visible: Sequence[str]) -> str:
    return f"this machine shows {len(visible)} GPUs ({', '.join(visible) or 'none'})"


# Cores


def first_sibling(core: int, topology: Path = TOPOLOGY) -> int:
    """The lowest logical processor of the physical core that `core` is a thread of; `core` if unknown."""
    with suppress(OSError, ValueError):
        siblings = (topology / f"cpu{core}" / "topology" / "thread_siblings_list").read_text()
        return int(siblings.replace("-", ",").split(",")[0])
    return core


def share_cores(
    near: Mapping[str, frozenset[int]],
    allowed: frozenset[int],
    physical: Callable[[int], int] = first_sibling,
) -> dict[str, frozenset[int]]:
    """UUID -> the cores of each card: an equal part of those that are `near` it and `allowed` to this
    process.

    Cards with common cores share these out, the threads of one physical core to one card. A card that is near
    none of the allowed cores shares all of them. Fewer cores than cards are not divided.
    """
    reach = {unit: (cores & allowed) or allowed for unit, cores in near.items()}
    shares: dict[str, frozenset[int]] = {}
    for unit in reach:
        if unit not in shares:
            rivals = _rivals(unit, reach)
            pool = frozenset().union(*(reach[rival] for rival in rivals))
            shares |= dict(zip(rivals, _parts(pool, len(rivals), physical), strict=True))
    return shares


def _rivals(unit: str, reach: Mapping[str, frozenset[int]]) -> list[str]:
    """`unit` and all cards that it has cores in common with, directly or through others, in order."""
    pool, found = reach[unit], {unit}
    while more := {other for other, cores in reach.items() if other not in found and cores & pool}:
        found |= more
        pool = pool.union(*(reach[other] for other in more))
    return [each for each in reach if each in found]


def _parts(cores: frozenset[int], count: int, physical: Callable[[int], int]) -> list[frozenset[int]]:
    by_core: dict[int, set[int]] = {}
    for core in sorted(cores):
        by_core.setdefault(physical(core), set()).add(core)
    whole = [by_core[first] for first in sorted(by_core)]
    if len(whole) < count:
        return [cores] * count
    each = len(whole) // count
    return [frozenset().union(*whole[part * each : (part + 1) * each]) for part in range(count)]
