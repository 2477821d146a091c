"""How far the ratios of pairs lie apart, and so how well their mean is known; pure.

Undisturbed pairs scatter as the platform's processes do, which is known better than five ratios could tell.
Where they scatter more (a disturbed machine, or a stack that waits for the host), their mean is known as well
as they say themselves.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from perf_tests.harness.stats import critical_values
from perf_tests.harness.stats.location import log_variance
from perf_tests.tables.platforms import Noise


@dataclass(frozen=True, kw_only=True, slots=True)
class PairNoise:
    """The noise of some ratios."""

    platform: Noise
    """Of a pair, as it is known."""
    own: Noise
    """Of a ratio, as these ratios show it."""
    is_scattered: bool
    """Whether they scatter more than the platform's noise allows for."""

    @property
    def pairs(self) -> int:
        """How many there are."""
        return self.own.dof + 1

    @property
    def times(self) -> float:
        """How many times the platform's standard deviation they scatter."""
        return self.own.sd_pct / self.platform.sd_pct

    @property
    def noise(self) -> Noise:
        """The one that their mean is held to."""
        return self.own if self.is_scattered and self.tells_its_own else self.platform

    @property
    def tells_its_own(self) -> bool:
        """Whether they are enough to tell how much they scatter."""
        return self.own.dof >= critical_values.MIN_DOF

    def half(self, level: float) -> float:
        """How far the mean of their logarithms is exceeded with probability `level`: Student's t."""
        return self._half(self.noise, level)

    def own_half(self, level: float) -> float:
        """The same by nothing but these ratios; 0 where they are too few to tell."""
        return self._half(self.own, level) if self.tells_its_own else 0.0

    def _half(self, noise: Noise, level: float) -> float:
        error = noise.sd_pct / 100 / math.sqrt(self.pairs)
        return critical_values.change_limit(level, 1, (1,), noise.dof) * error


def pair_noise(ratios: Sequence[float], platform: Noise, spread_limit: float) -> PairNoise:
    """The noise of two or more ratios, where `platform` is that of a pair, and `spread_limit` the ratio of
    variances beyond which they scatter too much. ValueError for a ratio that is not positive."""
    variance = log_variance(ratios)
    return PairNoise(
        platform=platform,
        own=Noise(sd_pct=math.sqrt(variance) * 100, dof=len(ratios) - 1),
        is_scattered=variance / (platform.sd_pct / 100) ** 2 > spread_limit,
    )
