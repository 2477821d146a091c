"""Two stacks on one device: which times are compared, and the test of their pairs; pure.

The statistic of a pair is the ratio of its two processes' statistics (candidate / stable). `SequentialTest`
judges the logarithms of the ratios as it judges processes: against a ratio of 1, which has no error, and with
sqrt(2) times the platform's noise of a process. Where they scatter more than that, on a disturbed machine or
because the new stack waits for the host, they are held to their own scatter (Student's t), and never pass.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import msgspec

from perf_tests.harness.runs import environments, validity
from perf_tests.harness.runs.record import (
    Comparison,
    Run,
    Side,
    Status,
    Verdict,
    status_of,
)
from perf_tests.harness.stats import observations
from perf_tests.harness.stats.location import log_mean
from perf_tests.harness.stats.pair_noise import PairNoise, pair_noise
from perf_tests.harness.stats.sequential_bounds import (
    FAMILY_LEVEL,
    REGRESSED_SHARE,
    Bounds,
    SequentialTest,
)
from perf_tests.harness.verdicts import build_checks
from perf_tests.harness.verdicts.case_status import SEVERITY
from perf_tests.harness.verdicts.gates import gated_metrics
from perf_tests.protocol.messages import Failure, FailureKind, Phase
from perf_tests.protocol.reports import Environment
from perf_tests.tables.cases import Case
from perf_tests.tables.metrics.host_bound import is_host_bound
from perf_tests.tables.metrics.rows import METRIC_BY_NAME
from perf_tests.tables.metrics.spec import Metric
from perf_tests.tables.platforms import Noise, Platform

TOLERANCE_PCT = 0.5
"""Changes too small to matter. Smaller than against a baseline: card, day and driver are the same."""
LEVEL = 0.005
"""Probability that a time of two equal stacks is red, at most. Higher than against a baseline, where every
case of every run is tested: a comparison is asked for, and has to see 1 % in five to ten pairs."""
NO_COMMON_ERROR = 10**9
"""Processes of a baseline without error: a ratio of 1 is exact."""
OWN_LEVEL = 0.01
"""The level at which pairs must lie beyond 0 by their own scatter, too, to be red. Five pairs do not show
that a machine is two or three times as noisy as the platform: equal stacks would be red there in 6 to 12 % of
the comparisons, instead of 2 to 3. It costs 0.3 pairs where the slowdown is 1 %, none where it is larger."""
MAX_DIFFERENCES = 4

PEAKS = ("peak_device_mib", "peak_reserved_mib")
"""The metrics that say how much of the card's memory a worker takes at most."""


# What is compared


def time_of(metric: Metric) -> Metric | None:
    """The time that a comparison judges for `metric`: a noisy time, or one of the device, itself, or the time
    that a noisy ratio is formed from; None for all others."""
    if metric.by_device:
        return metric
    if not metric.is_noisy:
        return None
    return METRIC_BY_NAME[metric.of] if metric.of else metric


def times_of(case: Case, platform: Platform) -> tuple[Metric, ...]:
    """The times that a comparison of `case` judges; empty where no noisy metric of it gates on `platform`."""
    times = (time_of(metric) for metric in gated_metrics(case, platform))
    return tuple({time.name: time for time in times if time is not None}.values())


def is_asked(verdict: Verdict, metric: Metric) -> bool:
    """Whether the verdict wants a comparison: a regression to be confirmed, or a time without a baseline.

    A ratio without a baseline stays without one: a time cannot stand in for it.
    """
    time = time_of(metric)
    missing = verdict.status is Status.NO_BASELINE and time is metric
    return missing or (time is not None and verdict.status is Status.REGRESSED)


def known_peak_mib(run: Run, accepted: Mapping[str, Sequence[float]]) -> float | None:
    """The largest peak of the card's memory in the processes of `run` and in the `accepted` metrics of its
    baseline; None where none was measured."""
    now = (process.build.values for process in run.processes)
    measured = [values[name] for values in now for name in PEAKS if name in values]
    return max((*measured, *(mib for name in PEAKS for mib in accepted.get(name, ()))), default=None)


def differences(stable: Environment, candidate: Environment) -> tuple[str, ...]:
    """`name stable -> candidate` for every package, setting and variable that differs."""
    before, now = (
        {"python": each.python, **each.packages, **each.settings, **each.variables}
        for each in (stable, candidate)
    )
    return tuple(environments.differences(before, now))


def stable_versions(comparison: Comparison) -> str:
    """What the stable stack is called in a sentence: the packages in which it differs from the candidate."""
    stable, candidate = comparison.stable, comparison.candidate
    if stable is None or candidate is None:
        return f"the stack of {comparison.against}"
    names = [name for name in stable.packages if stable.packages[name] != candidate.packages.get(name)]
    # As a worker reports it, torch's version ends with its git revision in brackets.
    versions = [f"{name} {stable.packages[name].partition(' (')[0]}" for name in names[:MAX_DIFFERENCES]]
    return ", ".join(versions) or "the same versions"


# The test


def level(times: int) -> float:
    """The level of each of the times that a session may compare, one or more (Bonferroni)."""
    return min(LEVEL, FAMILY_LEVEL / times)


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
    if noise.is_scattered or (is_beyond and is_last):
        return Status.INCONCLUSIVE
    return Status.PASS if not is_beyond and (change < bounds.passed or is_last) else None


def _beyond(change: float) -> Status:
    return Status.REGRESSED if change > 0 else Status.IMPROVED


# A comparison


@dataclass(frozen=True, kw_only=True, slots=True)
class Question:
    """What a comparison of one case is to answer."""

    case: Case
    tests: Mapping[str, SequentialTest]
    """Name of a time -> its test."""
    least_pairs: int
    """Nothing is decided with fewer."""


def judge_comparison(question: Question, comparison: Comparison) -> Comparison | None:
    """The comparison with a verdict on each time, or with why there is none; None: one more pair is wanted.

    It ends at once where one side failed, is not what was asked for, or was disturbed so long that samples
    stayed invalid.
    """
    times = [METRIC_BY_NAME[name] for name in question.tests]
    if over := ended(question.case, times, comparison):
        return over
    if len(comparison.pairs) < question.least_pairs:
        return None
    verdicts = [_judged(comparison, time, question.tests[time.name]) for time in times]
    found = tuple(verdict for verdict in verdicts if verdict is not None)
    if len(found) < len(times):
        return None
    worst = min(found, key=lambda verdict: SEVERITY.index(verdict.status))
    reason = "" if worst.status is Status.PASS else f"{worst.metric}: {worst.reason}"
    level = max(test.level for test in question.tests.values())
    return msgspec.structs.replace(
        comparison, verdicts=found, level=level, status=worst.status, reason=reason
    )


def ended(case: Case, times: Sequence[Metric], comparison: Comparison) -> Comparison | None:
    """The comparison with why it gives no verdict on `times`; None where it goes on."""
    unproven = _unproven(comparison, case)
    if unproven is not None:
        comparison = msgspec.structs.replace(
            comparison, failure=unproven[1], failed_side=unproven[0], verdicts=()
        )
    if comparison.failure is not None:
        return _ended(comparison, *_failure(comparison, comparison.failure))
    problem = _problem(comparison, times, host=not is_host_bound(case))
    return None if problem is None else _ended(comparison, *problem)


def side_run(comparison: Comparison, side: Side) -> Run:
    """The processes of one side, as a run."""
    return Run(
        id=comparison.id,
        digest=comparison.digest,
        platform=comparison.platform,
        pipeline=comparison.pipeline,
        status=Status.INCONCLUSIVE,
        processes=comparison.processes(side),
    )


def _ended(comparison: Comparison, status: Status, reason: str) -> Comparison:
    return msgspec.structs.replace(comparison, status=status, reason=reason)


def _unproven(comparison: Comparison, case: Case) -> tuple[Side, Failure] | None:
    for side in Side:
        for process in comparison.processes(side)[-1:]:
            for sentence in build_checks.contradictions(case, process.build)[:1]:
                message = f"what was built is not what was asked for: {sentence}"
                kind, phase = FailureKind.UNPROVEN, Phase.INSPECT
                return side, Failure(kind=kind, phase=phase, message=message)
    return None


def _failure(comparison: Comparison, failure: Failure) -> tuple[Status, str]:
    """A scheme that one side lacks excuses its run, not the comparison."""
    status = status_of(failure)
    whose = {Side.STABLE: f"stable stack ({comparison.against})", Side.CANDIDATE: "candidate"}
    side = whose[comparison.failed_side or Side.CANDIDATE]
    return (
        status if status.is_error else Status.INCONCLUSIVE,
        f"the {side} failed: {status.value}: {failure.message}",
    )


def _problem(comparison: Comparison, times: Sequence[Metric], *, host: bool) -> tuple[Status, str] | None:
    """Why the comparison says nothing; without `host`, what disturbs the device alone counts."""
    if not comparison.pairs:
        return None
    for side in Side:
        run = side_run(comparison, side)
        if why := validity.invalidity(run, host=host):
            return Status.INVALID, f"of the {side}'s processes, {why}"
        missing = (observations.observe(time, run, None).missing for time in times)
        if sentence := next(filter(None, missing), None):
            return Status.INCONCLUSIVE, f"of the {side}'s processes, {sentence}"
    return None


def values(comparison: Comparison, time: Metric, side: Side) -> tuple[float, ...]:
    """The statistic of the time in each process of one side; empty where one of them lacks it."""
    return observations.observe(time, side_run(comparison, side), None).values


def ratios(comparison: Comparison, time: Metric) -> list[float]:
    """Candidate / stable of the time, pair by pair."""
    stable, candidate = (values(comparison, time, side) for side in (Side.STABLE, Side.CANDIDATE))
    return [after / before for before, after in zip(stable, candidate, strict=True)]


def _judged(comparison: Comparison, time: Metric, test: SequentialTest) -> Verdict | None:
    stable, candidate = (values(comparison, time, side) for side in (Side.STABLE, Side.CANDIDATE))
    decision = decide(test, ratios(comparison, time))
    if decision.status is None:
        return None
    baseline = statistics.median(stable)
    return Verdict(
        metric=time.name,
        status=decision.status,
        measured=statistics.median(candidate),
        baseline=baseline,
        change_pct=decision.change_pct,
        ci_pct=decision.interval_pct,
        limit=baseline * (1 + decision.limit_pct / 100),
        reason=_sentence(comparison, decision),
    )


SCATTERED = "the pairs scatter {spread:.1f} times more than the platform's noise allows for"
HELD_TO_THAT = f"; {SCATTERED}, and are held to their own scatter"
SENTENCES = {
    Status.REGRESSED: "slower than {stable} on this device, now: {change}, beyond the limit {limit}",
    Status.IMPROVED: "faster than {stable} on this device, now: {change}, beyond the limit -{limit}",
    Status.PASS: "as fast as {stable} on this device, now: {change}, within the limit {limit}",
    Status.INCONCLUSIVE: (
        f"{SCATTERED}: {{change}} against {{stable}} says nothing; look for what disturbs the machine"
    ),
}


def _sentence(comparison: Comparison, decision: PairDecision) -> str:
    assert decision.status is not None, "only what is decided is said"
    held = decision.noise.is_scattered and decision.status is not Status.INCONCLUSIVE
    sentence = (SENTENCES[decision.status] + HELD_TO_THAT * held).format(
        stable=stable_versions(comparison),
        change=change_in_words(decision.change_pct, decision.interval_pct),
        limit=f"{decision.limit_pct:.2f} %",
        spread=decision.noise.times,
    )
    return f"{sentence} ({len(comparison.pairs)} pairs, {comparison.schedule})"


def change_in_words(change_pct: float, interval_pct: tuple[float, float] | None) -> str:
    """`+1.20 %, 95 % interval +0.80 to +1.60 %`."""
    assert interval_pct is not None, "every change comes with an interval"
    low, high = interval_pct
    return f"{change_pct:+.2f} %, 95 % interval {low:+.2f} to {high:+.2f} %"


def _pct(log_change: float) -> float:
    return math.expm1(log_change) * 100
