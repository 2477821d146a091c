"""The sequential test applied to a noisy metric, and what its decision says in words; pure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from perf_tests.harness.runs.record import Status, Verdict
from perf_tests.harness.stats.location import geometric_mean
from perf_tests.harness.stats.sequential_bounds import Decision, SequentialTest, decide
from perf_tests.tables.metrics.spec import Gate, Metric
from perf_tests.tables.platforms import Noise


@dataclass(frozen=True, kw_only=True, slots=True)
class Significance:
    """How the noisy metrics of a run are tested."""

    noise: Mapping[str, Noise]
    """Metric name -> how far unchanged processes lie apart on the platform."""
    level: float
    """Of each of them (see `sequential_bounds.metric_level`)."""
    max_processes: int
    """As many as may be asked for, where a run does not hold more."""


def sequential_test(
    metric: Metric,
    gate: Gate,
    significance: Significance,
    *,
    measured: int,
    baseline: int,
    shared_variance: float,
    between: Noise | None = None,
) -> SequentialTest:
    """The test of `metric`, of which so many processes were measured, now and for the baseline.

    `shared_variance` and `between` are those of `SequentialTest`.
    """
    return SequentialTest(
        noise=significance.noise[metric.name],
        level=significance.level,
        baseline_processes=baseline,
        max_processes=max(significance.max_processes, measured),
        tolerance_pct=gate.tolerance.relative_pct,
        surprise_pct=None if gate.surprise is None else gate.surprise.relative_pct,
        shared_variance=shared_variance,
        between=between,
    )


def judge_noisy(
    metric: Metric, test: SequentialTest, measured: Sequence[float], baseline: Sequence[float]
) -> Verdict:
    """The verdict of `test` on the processes `measured` so far; it wants more where it is undecided."""
    decided = decide(test, baseline, measured, metric.better)
    mean = geometric_mean(baseline)
    limit = mean * (1 + decided.limit_pct / 100)
    return Verdict(
        metric=metric.name,
        status=decided.status or Status.INCONCLUSIVE,
        measured=geometric_mean(measured),
        baseline=mean,
        change_pct=decided.change_pct,
        ci_pct=decided.interval_pct,
        family_ci_pct=decided.family_interval_pct,
        limit=limit,
        reason=_sentence(metric, test, decided, limit=limit),
        wants_more=decided.status is None,
    )


SENTENCES = {
    Status.REGRESSED: "{change} against the baseline, beyond the limit {limit} ({why})",
    Status.SURPRISE: (
        "unexplained improvement of {change} against the baseline: find its cause, then accept it "
        "with a reason"
    ),
    Status.IMPROVED: "{change} against the baseline, an improvement of more than the tolerance",
    Status.PASS: "{change} against the baseline, within the limit {limit} ({why})",
}
"""What is said of a change; `why` the limit lies where it does."""

UNDECIDED = (
    "{change} against the baseline is undecided after {processes}, up to {most} may be asked for, and the "
    "run ended before that: measure it again"
)
APART = (
    "its {processes} scatter {times:.1f} times more than this platform's noise of {sd_pct:.2f} %, and "
    "{limit:.1f} times is the most: measure it again on a quiet machine, or look for how they differ"
)


def _sentence(metric: Metric, test: SequentialTest, decided: Decision, *, limit: float) -> str:
    change = f"{decided.change_pct:+.2f} %"
    processes = count_of(decided.processes)
    if decided.status is None:
        return UNDECIDED.format(change=change, processes=processes, most=test.max_processes)
    if decided.status is Status.INCONCLUSIVE:
        assert decided.spread_ratio is not None, "one process has no spread"
        assert decided.spread_limit is not None, "one process has no spread"
        return APART.format(
            processes=processes,
            times=math.sqrt(decided.spread_ratio),
            sd_pct=test.noise.sd_pct,
            limit=math.sqrt(decided.spread_limit),
        )
    why = "the tolerance"
    if math.log1p(decided.limit_pct / 100) ** 2 > math.log1p(test.tolerance_pct / 100) ** 2 * (1 + 1e-9):
        cards = "" if test.between is None else f", and {test.between.sd_pct:g} % between cards"
        why = f"the noise of {processes} against {test.baseline_processes}{cards}"
    said = SENTENCES[decided.status].format(
        change=change,
        limit=f"{limit:.6g} {metric.units}".rstrip(),
        why=f"{decided.limit_pct:+.2f} %: {why}",
    )
    return f"{said}; changes of {test.detectable_pct:.2g} % are seen"


def count_of(processes: int) -> str:
    """`1 process`, or `3 processes`."""
    return "1 process" if processes == 1 else f"{processes} processes"
