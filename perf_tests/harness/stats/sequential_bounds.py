"""What the processes of a run say about one noisy metric, and whether one more is wanted; pure.

A group-sequential test of the change D = mean log(candidate) - mean log(baseline), one value a process, with
the standard deviation between processes known from the whole platform. After k candidate processes, with the
standard error e_k = sd sqrt(1/k + 1/n):

    REGRESSED     D > limit_k = max(tolerance, c e_k)       (log change for the worse; k >= 2 unless k = K)
    IMPROVED      D < -limit_k; unexplained beyond max(surprise bound, c' e_k)
    PASS          D < theta - g e_k, where theta = limit_K + g e_K: a slowdown of theta is excluded
    one more      otherwise; at the last look K the two bounds meet, so that none is left over
    INCONCLUSIVE  the processes of the run lie further apart than sd allows (F test)

c, c' and the F test share the level of the metric: any red verdict on unchanged code has at most that
probability, over all looks together, the errors of the baseline and of sd included; g is such that a slowdown
of theta, the smallest detectable change, is missed with at most `MISS_LEVEL`. Constant c: D -+ c e_k holds at
whichever look a run ends ("repeated confidence interval", Jennison and Turnbull). Ending with PASS
spends none of the error budget: c would be smaller if that were counted, and stays right where somebody asks
for more. No
verdict against the code rests on a single process while another may be asked for. Logarithms: scaling all
times changes nothing.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from perf_tests.harness.runs.record import Status
from perf_tests.harness.stats import critical_values
from perf_tests.harness.stats.location import log_mean, log_variance
from perf_tests.tables.metrics.spec import DRIFT_LIMIT_PCT, Better
from perf_tests.tables.platforms import Noise

FAMILY_LEVEL = 0.05
"""The highest probability that a run of unchanged code has any red verdict on a noisy metric."""
METRIC_LEVEL = 0.00085
"""The highest probability of that for a single metric, however few are selected."""
MISS_LEVEL = 0.05
"""The highest probability that the smallest detectable change is not REGRESSED."""
REGRESSED_SHARE, SURPRISE_SHARE, SPREAD_SHARE = 0.8, 0.1, 0.1
"""How the red verdicts share a metric's level. The surprise bounds of the tables are far out, and a spread
worth stopping for is large: neither needs more."""
CONFIRMED = 2
"""With fewer processes, a run that may ask for more is called PASS or nothing."""
BASELINE_SPREAD_LEVEL = 0.001
"""Probability that good processes are rejected as a baseline because they scatter too much. A baseline is
used often: one that mixes two kinds of process, or holds a disturbed one, is better recorded again."""

SIGN = {Better.LOWER: 1.0, Better.HIGHER: -1.0}
"""Log change -> log change for the worse."""


def metric_level(noisy_metrics: int) -> float:
    """The level of each of the noisy gated metrics of a run, one or more; Bonferroni, because they share
    references and sd."""
    return min(METRIC_LEVEL, FAMILY_LEVEL / noisy_metrics)


@dataclass(frozen=True, kw_only=True, slots=True)
class Bounds:
    """The rule at one look, as log changes for the worse."""

    regressed: float
    """Above: REGRESSED; below its negative: IMPROVED."""
    surprise: float
    """Below its negative: an improvement that needs an explanation; infinite where none does."""
    passed: float
    """Below, and not IMPROVED: PASS."""
    spread: float
    """Largest variance of the processes over the pooled one; infinite for one process."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SequentialTest:
    """The test of one metric of one case: all that is fixed before its first process."""

    noise: Noise
    level: float
    baseline_processes: int
    max_processes: int
    tolerance_pct: float
    """Changes too small to matter, however certain; 1 means by a factor of 1.01 either way."""
    surprise_pct: float | None
    """Improvements by more than this need an explanation; None: none does."""
    shared_variance: float = 0.0
    """For ratios to a reference, 1 / its processes in this run + 1 / its processes in the baseline's: its
    error, in units of the variance between processes, which more processes of the case do not reduce."""
    between: Noise | None = None
    """How far unchanged times of a case lie apart on different cards, where the baseline is of another one:
    an error of both, which no number of processes reduces. None on the card of the baseline."""

    @property
    def regressed_limit(self) -> float:
        """c: a true change lies within c standard errors of the measured one on each side, at every look."""
        return self._change_limit(self.level * REGRESSED_SHARE, self.confirmed)

    @property
    def surprise_limit(self) -> float:
        """c', in standard errors."""
        return self._change_limit(self.level * SURPRISE_SHARE, self.confirmed)

    @property
    def missed_limit(self) -> float:
        """g, in standard errors."""
        return self._change_limit(MISS_LEVEL, 1)

    @property
    def confirmed(self) -> int:
        """The first look at which a verdict may go against the code."""
        return min(CONFIRMED, self.max_processes)

    @property
    def detectable_pct(self) -> float:
        """The slowdown theta that is REGRESSED with a probability of 1 - `MISS_LEVEL`, in percent."""
        return _pct(self._detectable)

    def standard_error(self, processes: int) -> float:
        """Of the log change after so many candidate processes."""
        return math.hypot(self.process_error(processes), self.card_error)

    def process_error(self, processes: int) -> float:
        """The part of it that comes from processes: these, the baseline's and the reference's."""
        own = 1 / processes + 1 / self.baseline_processes + self.shared_variance
        return self.noise.sd_pct / 100 * math.sqrt(own)

    @property
    def card_error(self) -> float:
        """The part of it that comes from the two cards: 0 where it is one."""
        return 0.0 if self.between is None else math.sqrt(2) * self.between.sd_pct / 100

    def spread_limit(self, processes: int) -> float:
        """How many times the pooled variance so many processes may show; infinite for one process."""
        if processes == 1:
            return math.inf
        level = self.level * SPREAD_SHARE / (self.max_processes - 1)
        return critical_values.spread_limit(level, processes, self.noise.dof)

    def bounds(self, processes: int) -> Bounds:
        """After so many candidate processes, 1 to `max_processes`."""
        assert 1 <= processes <= self.max_processes, f"look {processes} of {self.max_processes}"
        return Bounds(
            regressed=self._limit(processes),
            surprise=self._surprise(processes),
            passed=self._detectable - self.missed_limit * self.standard_error(processes),
            spread=self.spread_limit(processes),
        )

    @property
    def _common_variance(self) -> float:
        cards = (self.card_error / (self.noise.sd_pct / 100)) ** 2
        return 1 / self.baseline_processes + self.shared_variance + cards

    @property
    def dof(self) -> int:
        """Of the standard error at the last look: of a sum of two estimates, by Satterthwaite (1946)."""
        if self.between is None:
            return self.noise.dof
        processes, cards = self.process_error(self.max_processes) ** 2, self.card_error**2
        dof = (processes + cards) ** 2 / (processes**2 / self.noise.dof + cards**2 / self.between.dof)
        return max(math.floor(dof), critical_values.MIN_DOF)

    @property
    def _detectable(self) -> float:
        last = self.max_processes
        return self._limit(last) + self.missed_limit * self.standard_error(last)

    def _limit(self, processes: int) -> float:
        noise = self.regressed_limit * self.standard_error(processes)
        return max(math.log1p(self.tolerance_pct / 100), noise)

    def _surprise(self, processes: int) -> float:
        if self.surprise_pct is None:
            return math.inf
        noise = self.surprise_limit * self.standard_error(processes)
        return max(math.log1p(self.surprise_pct / 100), noise)

    def _change_limit(self, level: float, first_look: int) -> float:
        looks = tuple(range(first_look, self.max_processes + 1))
        if self.between is not None:
            # They share the error of the cards, so that the looks in between add nothing (and take seconds).
            looks = tuple(sorted({looks[0], looks[-1]}))
        return critical_values.change_limit(level, 1 / self._common_variance, looks, self.dof)


@dataclass(frozen=True, kw_only=True, slots=True)
class Decision:
    """One look at one metric. Changes are signed as the metric moves, not as it worsens."""

    status: Status | None
    """PASS, IMPROVED, SURPRISE, REGRESSED or INCONCLUSIVE; None: one more process is wanted."""
    processes: int
    change_pct: float
    interval_pct: tuple[float, float]
    """95 % interval, Student's t: of this look alone."""
    family_interval_pct: tuple[float, float]
    """The change -+ c standard errors, which holds at all looks that may go against the code together, each
    side with the level of REGRESSED. Excludes 0 for REGRESSED and IMPROVED."""
    limit_pct: float
    """The change beyond which this look is REGRESSED."""
    spread_ratio: float | None
    """Variance of the run's processes over the pooled one; None for one process."""
    spread_limit: float | None
    """The ratio beyond which the look is INCONCLUSIVE; None for one process."""


def decide(
    test: SequentialTest, baseline: Sequence[float], measured: Sequence[float], better: Better
) -> Decision:
    """What the processes `measured` so far say, one positive value each, in any order.

    ValueError for a value that is not positive, which has no relative change.
    """
    assert len(baseline) == test.baseline_processes, f"{len(baseline)} baseline processes"
    bounds, count, sign = test.bounds(len(measured)), len(measured), SIGN[better]
    change = log_mean(measured) - log_mean(baseline)
    ratio = None if count == 1 else log_variance(measured) / (test.noise.sd_pct / 100) ** 2
    error, dof = test.standard_error(count), test.dof
    return Decision(
        status=_status(test, bounds, count, worse=sign * change, spread_ratio=ratio or 0.0),
        processes=count,
        change_pct=_pct(change),
        interval_pct=_interval_pct(change, critical_values.change_limit(0.025, 1, (1,), dof) * error),
        family_interval_pct=_interval_pct(change, test.regressed_limit * error),
        limit_pct=_pct(sign * bounds.regressed),
        spread_ratio=ratio,
        spread_limit=None if ratio is None else bounds.spread,
    )


def _status(
    test: SequentialTest, bounds: Bounds, processes: int, *, worse: float, spread_ratio: float
) -> Status | None:
    if spread_ratio > bounds.spread:
        return Status.INCONCLUSIVE
    if abs(worse) > bounds.regressed:
        return _beyond(bounds, worse) if processes >= test.confirmed else None
    return Status.PASS if worse < bounds.passed or processes == test.max_processes else None


def _beyond(bounds: Bounds, worse: float) -> Status:
    if worse > 0:
        return Status.REGRESSED
    return Status.SURPRISE if -worse > bounds.surprise else Status.IMPROVED


def baseline_spread_limit(noise: Noise, processes: int) -> float:
    """How many times the pooled variance so many processes may show and still become a baseline."""
    return critical_values.spread_limit(BASELINE_SPREAD_LEVEL, processes, noise.dof)


def excess_spread(values: Sequence[float], noise: Noise) -> float | None:
    """How many times the pooled sd the processes of a new baseline scatter, where that is too much; None
    where it is not, or there is a single one."""
    if len(values) == 1:
        return None
    ratio = log_variance(values) / (noise.sd_pct / 100) ** 2
    return math.sqrt(ratio) if ratio > baseline_spread_limit(noise, len(values)) else None


@dataclass(frozen=True, kw_only=True, slots=True)
class Drift:
    """What all accepted changes of a baseline add up to."""

    change_pct: float
    """From the first reference to the accepted baseline."""
    limit_pct: float
    """The change beyond which it is too much."""
    is_beyond: bool


def drift(
    first: Sequence[float],
    accepted: Sequence[float],
    better: Better,
    limit_pct: float = DRIFT_LIMIT_PCT,
) -> Drift:
    """From the immutable `first` reference to the `accepted` baseline, one positive value a process each.

    For the worse only. No allowance for noise: means of 3 processes have a tenth of the limit.
    """
    sign = SIGN[better]
    change, limit = log_mean(accepted) - log_mean(first), math.log1p(limit_pct / 100)
    return Drift(change_pct=_pct(change), limit_pct=_pct(sign * limit), is_beyond=sign * change > limit)


def _interval_pct(change: float, half: float) -> tuple[float, float]:
    return _pct(change - half), _pct(change + half)


def _pct(log_change: float) -> float:
    return math.expm1(log_change) * 100
