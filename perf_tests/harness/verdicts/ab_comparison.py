"""Two stacks on one device: which times are compared, and what their pairs say; pure."""

from __future__ import annotations

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
from perf_tests.harness.stats.pairs import PairDecision, decide
from perf_tests.harness.stats.sequential_bounds import FAMILY_LEVEL, SequentialTest
from perf_tests.harness.verdicts import build_checks
from perf_tests.harness.verdicts.case_status import SEVERITY
from perf_tests.harness.verdicts.gates import gated_metrics
from perf_tests.protocol.messages import Failure, FailureKind, Phase
from perf_tests.protocol.reports import Environment
from perf_tests.tables.cases import Case
from perf_tests.tables.metrics.host_bound import is_host_bound
from perf_tests.tables.metrics.rows import METRIC_BY_NAME
from perf_tests.tables.metrics.spec import Metric
from perf_tests.tables.platforms import Platform

LEVEL = 0.005
"""Probability that a time of two equal stacks is red, at most. Higher than against a baseline, where every
case of every run is tested: a comparison is asked for, and has to see 1 % in five to ten pairs."""
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
UNSURE = (
    "{change} against {stable} is beyond the limit {limit}, but may be chance by how far the pairs lie "
    "apart: compare again"
)
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
    scattered, unsure = decision.noise.is_scattered, decision.status is Status.INCONCLUSIVE
    template = UNSURE if unsure and not scattered else SENTENCES[decision.status]
    sentence = (template + HELD_TO_THAT * (scattered and not unsure)).format(
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
