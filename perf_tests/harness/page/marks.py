"""TABLE: what a status looks like, a colour and a shape, and the colours of the page, light and dark."""

from __future__ import annotations

from collections.abc import Mapping
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
    ACKNOWLEDGED = "acknowledged"
    """Worse, and somebody has taken that on."""
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
    Kind.ACKNOWLEDGED: "acknowledged",
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
    Status.ACKNOWLEDGED: Kind.ACKNOWLEDGED,
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


# Colours; a test computes their contrast

LIGHT: Mapping[str, str] = {
    "ground": "#ffffff",
    "panel": "#f4f6f8",
    "text": "#1b1f24",
    "muted": "#4d5763",
    "rule": "#c4ccd5",
    "link": "#0b4fa8",
    "band": "#cfe8d5",
    "band-edge": "#2f7d45",
    "limit": "#b3150f",
    "bad": "#b3150f",
    "warn": "#8a4600",
    "new": "#0b4fa8",
    "good": "#176a31",
    "none": "#5c6672",
}
DARK: Mapping[str, str] = {
    "ground": "#0e1217",
    "panel": "#171d24",
    "text": "#e8edf2",
    "muted": "#a6b0bb",
    "rule": "#3a4450",
    "link": "#7fbcff",
    "band": "#1d3a27",
    "band-edge": "#62c483",
    "limit": "#ff9189",
    "bad": "#ff9189",
    "warn": "#e8b84a",
    "new": "#7fbcff",
    "good": "#62c483",
    "none": "#98a3ae",
}
OF_KIND: Mapping[Kind, str] = {
    Kind.BROKEN: "bad",
    Kind.WORSE: "bad",
    Kind.SURPRISING: "bad",
    Kind.UNSURE: "warn",
    Kind.NEW: "new",
    Kind.LEFT: "warn",
    Kind.ABSENT: "none",
    Kind.ACKNOWLEDGED: "warn",
    Kind.BETTER: "good",
    Kind.GOOD: "good",
    Kind.NEVER: "none",
}
"""Kind -> the name of its colour."""
PHASES = ("#3b6fb6", "#b06a1c", "#5b8c3e", "#8a4fa3", "#a8474a", "#4a7f86", "#7a7433")
"""Of the parts of a bar, in turn. Each stands between white and black, so that one set serves both modes."""
