"""Numbers that hold only for one set of vector instructions, of which a baseline keeps one for each.

A processor with other instructions takes another time beside fp32, and its kernels are others. What is
recorded there stands beside what was recorded elsewhere, and does not replace it.
"""

from __future__ import annotations

from collections.abc import Mapping

from perf_tests.protocol.base import Struct
from perf_tests.tables.metrics.rows import METRICS
from perf_tests.tables.metrics.spec import INSTRUCTION_SET, INSTRUCTION_SETS
from perf_tests.tables.platforms import PLATFORM_BY_ID

KNOWN = ", ".join(sorted(INSTRUCTION_SETS))


class OfInstructions(Struct, frozen=True):
    """What was accepted of one case on processors of another instruction set than that of its entry."""

    provenance: str
    """Key of `Baselines.provenance`."""
    processes: int
    metrics: dict[str, tuple[float, ...]]
    """Of the metrics that follow the instructions: name -> one statistic per process."""


def following(platform_id: str) -> frozenset[str]:
    """The metrics that a platform gates by baselines of the same instruction set."""
    platform = PLATFORM_BY_ID.get(platform_id)
    if platform is None:
        return frozenset()
    return frozenset(metric.name for metric in METRICS if metric.follows_instructions(platform.device))


def instructions(settings: Mapping[str, str]) -> str | None:
    """The instruction set that was recorded with `settings`; None where it was not."""
    return settings.get(INSTRUCTION_SET)


def defect(
    case: str, own: str | None, others: Mapping[str, OfInstructions], recorded: Mapping[str, str | None]
) -> str | None:
    """What is wrong with the `others` of an entry whose own numbers are of the set `own`, in words.

    `recorded` maps the keys of provenances to their instruction sets.
    """
    if own is not None and own not in INSTRUCTION_SETS:
        return f"{case} holds numbers of {own!r}, which is no instruction set: they are {KNOWN}"
    if others and own is None:
        return f"{case} holds numbers of {', '.join(others)}, and does not say of which set its own are"
    for name, each in others.items():
        if name not in INSTRUCTION_SETS:
            return f"{case} holds numbers of {name!r}, which is no instruction set: they are {KNOWN}"
        if name == own:
            return f"{case} holds the numbers of {name} twice"
        if each.provenance not in recorded:
            return f"{case} refers to the provenance {each.provenance!r}, which does not exist"
        if recorded[each.provenance] != name:
            return f"{case} holds numbers of {name} that were recorded with {recorded[each.provenance]}"
    return None
