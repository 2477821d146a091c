"""How many pairs two stacks of an attribution are compared with, and what they say of one time; pure."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable
from dataclasses import dataclass

import msgspec

from perf_tests.harness.attribution import shares
from perf_tests.harness.attribution.shares import StackChange
from perf_tests.harness.records.attributions import Amount
from perf_tests.harness.runs.record import Comparison, Side, Status, Verdict
from perf_tests.harness.stats import critical_values
from perf_tests.harness.stats.location import log_mean
from perf_tests.harness.stats.pairs import PairNoise, pair_noise
from perf_tests.harness.verdicts import ab_comparison
from perf_tests.tables.cases import Case
from perf_tests.tables.metrics.spec import Metric
from perf_tests.tables.platforms import Noise

SPREAD_LEVEL = 0.001
"""The probability that pairs of undisturbed processes are said to scatter too much."""

IsClear = Callable[[StackChange], bool]
"""Whether more pairs would hardly change what a difference of two stacks says."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PairQuestion:
    """One time of one case, whose difference between two stacks is wanted."""

    case: Case
    time: Metric
    noise: Noise
    """Of a process on the platform."""
    least_pairs: int
    most_pairs: int


def judge(question: PairQuestion, is_clear: IsClear, comparison: Comparison) -> Comparison | None:
    """The comparison with a verdict on the time, or with why there is none; None: one more pair is wanted."""
    ended = ab_comparison.ended(question.case, (question.time,), comparison)
    if ended is not None:
        return ended
    count = len(comparison.pairs)
    if count < question.least_pairs:
        return None
    noise = _noise_of(comparison, question.time, question.noise)
    change = change_of(comparison, question.time, question.noise)
    is_undecided = not is_clear(change) or (noise.is_scattered and not noise.tells_its_own)
    if is_undecided and count < question.most_pairs:
        return None
    if is_undecided and noise.is_scattered:
        reason = f"the pairs scatter {noise.times:.1f} times more than the platform's noise allows for"
        return msgspec.structs.replace(comparison, status=Status.INCONCLUSIVE, reason=reason)
    verdict = _verdict(question.time, comparison, change)
    return msgspec.structs.replace(comparison, status=Status.PASS, reason="", verdicts=(verdict,))


def _verdict(time: Metric, comparison: Comparison, change: StackChange) -> Verdict:
    amount = in_percent(change)
    candidate, stable = (
        ab_comparison.values(comparison, time, side) for side in (Side.CANDIDATE, Side.STABLE)
    )
    return Verdict(
        metric=time.name,
        status=Status.PASS,
        measured=statistics.median(candidate),
        baseline=statistics.median(stable),
        change_pct=amount.value,
        ci_pct=(amount.low, amount.high),
        limit=None,
        reason=f"two stacks of an attribution, {len(comparison.pairs)} pairs: no verdict on the code",
    )


def change_of(comparison: Comparison, time: Metric, noise: Noise) -> StackChange:
    """The difference that a comparison with pairs has measured of the time; `noise` is that of a process on
    the platform, and pairs that scatter more are held to their own."""
    of_pair = _noise_of(comparison, time, noise)
    of_process = Noise(sd_pct=of_pair.noise.sd_pct / math.sqrt(2), dof=of_pair.noise.dof)
    return shares.of_pairs(log_mean(ab_comparison.ratios(comparison, time)), of_pair.pairs, of_process)


def _noise_of(comparison: Comparison, time: Metric, noise: Noise) -> PairNoise:
    ratios = ab_comparison.ratios(comparison, time)
    limit = critical_values.spread_limit(SPREAD_LEVEL, len(ratios), noise.dof)
    return pair_noise(ratios, Noise(sd_pct=noise.sd_pct * math.sqrt(2), dof=noise.dof), limit)


def in_percent(change: StackChange) -> Amount:
    """A difference of logarithms in percent."""
    low, high = change.value - change.half, change.value + change.half
    return Amount(value=_pct(change.value), low=_pct(low), high=_pct(high))


def _pct(log_change: float) -> float:
    return math.expm1(log_change) * 100
