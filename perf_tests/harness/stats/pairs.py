"""The test of two stacks on one device, by the ratios (candidate / stable) of pairs of processes; pure.

The statistic of a pair is the ratio of its two processes' statistics. `SequentialTest` judges the logarithms
of the ratios as it judges processes: against a ratio of 1, which has no error, and with sqrt(2) times the
platform's noise of a process, which is known better than five ratios could tell. Where they scatter more than
that, on a disturbed machine or because the new stack waits for the host, their mean is known as well as they
say themselves: they are held to their own scatter (Student's t), and never pass.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from perf_tests.harness.runs.record import Status
from perf_tests.harness.stats import critical_values
from perf_tests.harness.stats.location import log_mean, log_variance
from perf_tests.harness.stats.sequential_bounds import REGRESSED_SHARE, Bounds, SequentialTest
from perf_tests.tables.platforms import Noise

TOLERANCE_PCT = 0.5
"""Changes too small to matter. Smaller than against a baseline: card, day and driver are the same."""
NO_COMMON_ERROR = 10**9
"""Processes of a baseline without error: a ratio of 1 is exact."""
OWN_LEVEL = 0.01
"""The level at which pairs must lie beyond 0 by their own scatter, too, to be red. Five pairs do not show
that a machine is two or three times as noisy as the platform: equal stacks would be red there in 6 to 12 % of
the comparisons, instead of 2 to 3. It costs 0.3 pairs where the slowdown is 1 %, none where it is larger."""


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


def pair_test(noise: Noise, level: float, max_pairs: int) -> SequentialTest:
    """The test of one time over the pairs of one case; `noise` is that of a process on the platform."""
    return SequentialTest(
        noise=Noise(sd_pct=noise.sd_pct * math.sqrt(2), dof=noise.dof),
        level=level,
        baseline_processes=NO_COMMON_ERROR,
        max_processes=max_pairs,
        tolerance_pct=TOLERANCE_PCT,
        surprise_pct=None,  # another stack may be faster
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class PairDecision:
    """One look at one time."""

    status: Status | None
    """PASS, IMPROVED, REGRESSED or INCONCLUSIVE; None: one more pair is wanted."""
    change_pct: float
    """Of the candidate, in percent of the stable stack's time."""
    interval_pct: tuple[float, float]
    """95 % interval, Student's t: of this look alone."""
    limit_pct: float
    """The slowdown beyond which this look is REGRESSED."""
    noise: PairNoise


def decide(test: SequentialTest, ratios: Sequence[float]) -> PairDecision:
    """The decision on the ratios (candidate / stable) of two or more pairs, in any order.

    ValueError for a ratio that is not positive.
    """
    count, change = len(ratios), log_mean(ratios)
    bounds = test.bounds(count)
    noise = pair_noise(ratios, test.noise, bounds.spread)
    limit = _scattered_limit(test, noise) if noise.is_scattered else bounds.regressed
    half = noise.half(0.025)
    return PairDecision(
        status=_status(bounds, change, limit, noise, is_last=count >= test.max_processes),
        change_pct=_pct(change),
        interval_pct=(_pct(change - half), _pct(change + half)),
        limit_pct=_pct(limit),
        noise=noise,
    )


def _scattered_limit(test: SequentialTest, noise: PairNoise) -> float:
    """The logarithm of the slowdown beyond which ratios that scatter too much are REGRESSED, on the only look
    at them: one less certain ends the comparison."""
    if not noise.tells_its_own:
        return math.inf
    return max(math.log1p(test.tolerance_pct / 100), noise.half(test.level * REGRESSED_SHARE))


def _status(bounds: Bounds, change: float, limit: float, noise: PairNoise, *, is_last: bool) -> Status | None:
    is_beyond = abs(change) > limit
    if is_beyond and abs(change) > noise.own_half(OWN_LEVEL):
        return _beyond(change)
    if noise.is_scattered or (is_beyond and is_last and change > 0):
        return Status.INCONCLUSIVE
    # Faster, if perhaps by chance, is not slower.
    return Status.PASS if is_last or (not is_beyond and change < bounds.passed) else None


def _beyond(change: float) -> Status:
    return Status.REGRESSED if change > 0 else Status.IMPROVED


def _pct(log_change: float) -> float:
    return math.expm1(log_change) * 100
