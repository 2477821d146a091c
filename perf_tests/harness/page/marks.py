"""What a status looks like: a colour and a shape, so that neither is needed alone."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from perf_tests.harness.runs.record import Status


class Kind(StrEnum):
    """What a reader has to tell apart at a glance; each has a colour and a shape of its own in the page."""

    BROKEN = "broken"
    """It could not be measured as asked."""
    WORSE = "worse"
    SURPRISING = "surprising"
    """Better than anybody explains, which is red."""
    UNSURE = "unsure"
    """Measured, and it decides nothing."""
    NEW = "new"
    """Measured, and nothing was accepted yet."""
    LEFT = "left"
    """Not measured for want of time."""
    ABSENT = "absent"
    """Not supported here."""
    BETTER = "better"
    GOOD = "good"
    NEVER = "never"
    """Not part of this run."""


NAMES = {
    Kind.BROKEN: "failed",
    Kind.WORSE: "regressed",
    Kind.SURPRISING: "improved without explanation",
    Kind.UNSURE: "not decided",
    Kind.NEW: "without a baseline",
    Kind.LEFT: "not run",
    Kind.ABSENT: "unsupported",
    Kind.BETTER: "improved",
    Kind.GOOD: "passed",
    Kind.NEVER: "not in this run",
}
"""What the legend and the filters call each kind, those first that want attention."""

KINDS = {
    Status.PASS: Kind.GOOD,
    Status.NOT_COMPARED: Kind.GOOD,
    Status.IMPROVED: Kind.BETTER,
    Status.SURPRISE: Kind.SURPRISING,
    Status.REGRESSED: Kind.WORSE,
    Status.INCONCLUSIVE: Kind.UNSURE,
    Status.INVALID: Kind.UNSURE,
    Status.NO_BASELINE: Kind.NEW,
    Status.UNSUPPORTED: Kind.ABSENT,
    Status.NOT_RUN: Kind.LEFT,
}


@dataclass(frozen=True, slots=True)
class StatusMark:
    """A status as the page shows it."""

    kind: Kind
    label: str
    """The status in words; a screen reader reads it, and it stands beside the shape where there is room."""


def mark_of(status: Status) -> StatusMark:
    """The mark of a verdict or of a case. What has failed is broken; a status that has no row is unsure."""
    kind = Kind.BROKEN if status.is_error else KINDS.get(status, Kind.UNSURE)
    return StatusMark(kind, status.value)
