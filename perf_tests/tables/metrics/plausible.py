"""TABLE: between which bounds a value of each unit of measure can lie at all, whatever was measured."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from perf_tests.tables.metrics.rows import UNITS
from perf_tests.tables.metrics.spec import IDENTICAL_DB

MOST_NOISE_PCT: Final = 10.0
"""Of the noise between processes of a platform: with more, a slowdown of a third would pass."""
BOUNDS: Final[Mapping[str, tuple[float, float]]] = {
    "dB": (-60.0, IDENTICAL_DB),
    "ms": (0.0, 1e7),
    "s": (0.0, 1e5),
    "MiB": (-1e7, 1e7),
    "B": (0.0, 1e13),
    "MHz": (0.0, 1e5),
    "TFLOP": (0.0, 1e6),
    "x": (0.0, 1e6),
    "/s": (0.0, 1e6),
    "%": (-100.0, 1e6),
    # Counts, similarities in [-1, 1], gains and errors.
    "": (-1e3, 1e9),
}
"""Units -> lowest and highest."""


def is_plausible(metric: str, value: float) -> bool:
    """Whether any run could have given `value`; a metric that the table does not know may have any value."""
    return metric not in UNITS or is_plausible_in(UNITS[metric], value)


def is_plausible_in(units: str, value: float) -> bool:
    """Whether a value of these units could be measured; false for what is not finite."""
    low, high = BOUNDS[units]
    return low <= value <= high
