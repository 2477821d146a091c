"""What the order of a process's images tells: whether something grows with each of them; pure."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from itertools import pairwise

FROM_SECOND = 3
"""Images that a growth takes at least: the first may still fill caches."""
TREND_IMAGES = 5
"""Images that a trend takes at least, with the very first of the process where it is one of them: fewer are
in order by chance too often."""


def growth_per_image(values: Sequence[float]) -> float:
    """From the second of at least `FROM_SECOND` values to the last, divided by the steps between them."""
    return (values[-1] - values[1]) / (len(values) - 2)


def trend_pct(seconds: Sequence[float], clocks_mhz: Sequence[float]) -> float:
    """By how much the last of the images took longer than the first, where each took longer than the one
    before it; else 0.

    The smaller of the changes in time and in cycles: where the clock fell, the time grew for that reason.
    Without a clock for each image, the change in time.
    """
    if any(after <= before for before, after in pairwise(seconds)):
        return 0.0
    change = seconds[-1] / seconds[0]
    if len(clocks_mhz) == len(seconds) and min(clocks_mhz) > 0:
        change = min(change, change * clocks_mhz[-1] / clocks_mhz[0])
    return max(0.0, (change - 1) * 100)


def medians(values: Sequence[Sequence[float]]) -> list[float]:
    """Of each image, for those that have any."""
    return [statistics.median(each) for each in values if each]
