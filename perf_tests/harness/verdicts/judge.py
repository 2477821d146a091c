"""A run and its baseline in, verdicts out; pure, and allowed to answer "cannot tell"."""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from operator import attrgetter

import msgspec

from perf_tests.harness.baselines.files import Accepted, Entry, Provenance
from perf_tests.harness.runs import environments, validity
from perf_tests.harness.runs.record import (
    REASON_OF_PROGRESS,
    STATUS_OF_FAILURE,
    Progress,
    Run,
    Status,
    Verdict,
)
from perf_tests.harness.stats import observations
from perf_tests.harness.stats.sequential_bounds import Decision, SequentialTest, decide, drift
from perf_tests.harness.verdicts import images, layers
from perf_tests.tables.cases import Case
from perf_tests.tables.fidelity_floors import floor_of
from perf_tests.tables.metrics.rows import METRICS
from perf_tests.tables.metrics.spec import Better, Gate, Group, Metric, Reader, Rule, Tolerance
from perf_tests.tables.platforms import Noise, Platform
from perf_tests.tables.schemes.spec import FidelityFloor, Range, Scheme

FLOORS: dict[str, Callable[[FidelityFloor], float]] = {
    "psnr_db": attrgetter("psnr_db"),
    "ssim": attrgetter("ssim"),
}
"""Metric name -> the field of the case's floor that bounds it."""

SEVERITY = (
    Status.CRASH,
    Status.TIMEOUT,
    Status.OOM,
    Status.NUMERICS,
    Status.LOAD,
    Status.UNPROVEN,
    Status.REGRESSED,
    Status.SURPRISE,
    Status.INVALID,
    Status.INCONCLUSIVE,
    Status.NO_BASELINE,
    Status.NOT_RUN,
    Status.UNSUPPORTED,
    Status.IMPROVED,
    Status.PASS,
)
"""Worst first."""

DECLARED = frozenset({Status.UNSUPPORTED, Status.NOT_RUN, Status.INVALID})
"""Statuses of a whole case which no verdict can improve."""


MENTIONED_SHARE = 0.5
"""Of the limit: how far accepted baselines may have drifted without a word."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Significance:
    """How the noisy metrics of a run are tested."""

    noise: Mapping[str, Noise]
    """Metric name -> how far unchanged processes lie apart on the platform."""
    level: float
    """Of each of them (see `decision.metric_level`)."""
    max_processes: int
    """As many as may be asked for, where a run does not hold more."""


def gated_metrics(case: Case, platform: Platform, group: Group | None = None) -> tuple[Metric, ...]:
    """The metrics that can fail `case` on `platform`; of one test file, or of all."""
    return tuple(metric for metric in _applicable(case, group) if _is_gated(metric, case, platform))


def shown_metrics(case: Case, platform: Platform, group: Group | None = None) -> tuple[Metric, ...]:
    """The metrics that are recorded and reported for `case` on `platform`, and cannot fail it."""
    return tuple(metric for metric in _applicable(case, group) if not _is_gated(metric, case, platform))


def judge(
    metric: Metric,
    *,
    case: Case,
    platform: Platform,
    run: Run,
    reference: Run | None,
    accepted: Accepted | None,
    unit: str,
    significance: Significance,
) -> Verdict:
    """The verdict on one metric that `platform` gates, of a run that neither failed nor is unproven.

    `accepted` is the baseline of `case`, None where it has none; `unit` is the `Environment.unit` the run
    was measured on.
    """
    scheme = case.build.recipe.scheme
    metric = as_judged(metric, scheme)
    compared = reference if metric.reader.divides_by_reference else None
    if metric.verified_only and (why := invalidity(run, compared)):
        return _unjudged(metric, Status.INVALID, why)
    observation = observations.observe(metric, run, reference)
    if observation.missing is not None:
        return _unjudged(metric, Status.INCONCLUSIVE, observation.missing)
    expected = _expected(metric, case)
    if expected is not None:
        judged = _judge_expected(metric, observation.values, expected)
        return layers.with_culprits(judged, metric, run) if metric.reader is Reader.LAYERS else judged
    if accepted is None:
        return _no_baseline(metric, "no baseline is recorded", observation.values)
    entry, provenance = accepted.entry, accepted.provenance
    absence = _absence(metric, run, entry)
    if absence is not None:
        return _no_baseline(metric, absence, observation.values)
    another_stack = _another_stack(metric, run, entry, provenance)
    if another_stack is not None:
        return _unjudged(metric, Status.PASS, another_stack, statistics.median(observation.values))
    pair = _Pair(metric=metric, measured=observation.values, baseline=entry.metrics[metric.name])
    another_unit = metric.per_unit and unit != provenance.unit
    gate = _widened(metric.gates[platform.device], platform.unit_tolerance_pct if another_unit else 0.0)
    if metric.is_noisy:
        rule = _rule(pair, gate, entry=entry, reference=compared, significance=significance)
        judged = _judge_noisy(pair, rule)
    else:
        judged = _judge_certain(pair, gate, case, run=run, reference=reference, entry=entry)
    judged = _annotated(judged, metric=metric, run=run, entry=entry, another_unit=another_unit)
    return _with_unsteadiness(judged, metric, scheme)


def invalidity(run: Run, reference: Run | None = None) -> str | None:
    """Why no time of `run` can be trusted, or none of the `reference` it is divided by; None if they can."""
    why = validity.invalidity(run)
    if why is not None or reference is None:
        return why
    why = validity.invalidity(reference)
    return None if why is None else f"of the reference {reference.id}, {why}"


def overall(run: Run) -> tuple[Status, str]:
    """The status of a whole case and why: its failure, or the worst of its verdicts.

    The reason is empty for PASS only.
    """
    if run.failure is not None:
        return STATUS_OF_FAILURE[run.failure.kind], run.failure.message
    if run.status.is_error:
        return run.status, run.reason
    outcomes = [(each.status, f"{each.metric}: {each.reason}") for each in run.verdicts]
    if run.status in DECLARED:
        outcomes.append((run.status, run.reason))
    if not outcomes:
        return Status.INCONCLUSIVE, REASON_OF_PROGRESS[Progress.MEASURED]
    status, reason = min(outcomes, key=lambda outcome: SEVERITY.index(outcome[0]))
    return status, "" if status is Status.PASS else reason


def _applicable(case: Case, group: Group | None) -> tuple[Metric, ...]:
    return tuple(
        as_judged(metric, case.build.recipe.scheme)
        for metric in METRICS
        if group in (None, metric.group) and metric.applies(case)
    )


def as_judged(metric: Metric, scheme: Scheme) -> Metric:
    """The metric as it is judged for `scheme`: by a limit where its time is unsteady."""
    if scheme.unsteady is None or not (metric.is_noisy and metric.rests_on_step):
        return metric
    lower = metric.better is Better.LOWER
    tolerance = Tolerance(relative_pct=scheme.unsteady.slower_pct if lower else scheme.unsteady.less_pct)
    gates = dict.fromkeys(metric.gates, Gate(tolerance=tolerance))
    return dataclasses.replace(
        metric, gates=gates, rule=Rule.WITHIN_TOLERANCE, precise=False, drift_limit_pct=None
    )


def _is_gated(metric: Metric, case: Case, platform: Platform) -> bool:
    follows_plan = metric.follows_search and case.build.recipe.scheme.search is not None
    return platform.device in metric.gates and not follows_plan


def _expected(metric: Metric, case: Case) -> Range | None:
    return metric.expected and metric.expected(case)


# Judging


@dataclass(frozen=True, kw_only=True, slots=True)
class _Pair:
    """One metric's statistics per process, now and in the baseline."""

    metric: Metric
    measured: tuple[float, ...]
    baseline: tuple[float, ...]

    @property
    def baseline_median(self) -> float:
        return statistics.median(self.baseline)

    def verdict(
        self,
        status: Status,
        measured: float,
        *,
        limit: float,
        reason: str,
    ) -> Verdict:
        return Verdict(
            metric=self.metric.name,
            status=status,
            measured=measured,
            baseline=self.baseline_median,
            change_pct=_change_pct(measured, self.baseline_median),
            ci_pct=None,
            limit=limit,
            reason=reason,
        )


def _absence(metric: Metric, run: Run, entry: Entry) -> str | None:
    if entry.digest != run.digest:
        return (
            f"the case has changed since its baseline (digest {entry.digest[:12]} then, "
            f"{run.digest[:12]} now)"
        )
    if metric.name not in entry.metrics:
        return f"the baseline has no {metric.name}"
    return None


def _another_stack(metric: Metric, run: Run, entry: Entry, provenance: Provenance) -> str | None:
    """Why the baseline says nothing about this run: a package that decides the value had another version."""
    changes = {
        change
        for process in run.processes
        for change in environments.differences(
            provenance.packages, process.environment.packages, metric.same_packages
        )
    }
    if not changes:
        return None
    return (
        f"only shown beside the {statistics.median(entry.metrics[metric.name]):g} of the baseline, which is "
        f"exact only for the same {' and '.join(metric.same_packages)}: {'; '.join(sorted(changes))}"
    )


def _no_baseline(metric: Metric, reason: str, values: tuple[float, ...]) -> Verdict:
    return _unjudged(metric, Status.NO_BASELINE, reason, statistics.median(values))


def _unjudged(metric: Metric, status: Status, reason: str, measured: float | None = None) -> Verdict:
    return Verdict(
        metric=metric.name,
        status=status,
        measured=measured,
        baseline=None,
        change_pct=None,
        ci_pct=None,
        limit=None,
        reason=reason,
    )


def _judge_expected(metric: Metric, values: tuple[float, ...], expected: Range) -> Verdict:
    # Not the median: one process of three that is outside is outside.
    outside = tuple(value for value in values if not expected.low <= value <= expected.high)
    measured = outside[0] if outside else statistics.median(values)
    bounds = f"{expected.low:g} to {expected.high:g} {metric.units}".rstrip()
    where = "outside" if outside else "within"
    limit = min(expected.low, expected.high, key=lambda bound: abs(bound - measured))
    return Verdict(
        metric=metric.name,
        status=Status.REGRESSED if outside else Status.PASS,
        measured=measured,
        baseline=None,
        change_pct=None,
        ci_pct=None,
        # Of what is better the lower, the lower bound limits nothing but what cannot be.
        limit=expected.high if metric.better is Better.LOWER else limit,
        reason=f"{measured:.6g} {metric.units}".rstrip() + f" is {where} {bounds}: {expected.source}",
    )


def _judge_certain(
    pair: _Pair, gate: Gate, case: Case, *, run: Run, reference: Run | None, entry: Entry
) -> Verdict:
    """What has no noise to be tested against."""
    if pair.metric.reader is Reader.LAYERS:
        return layers.judge(pair.metric, gate.tolerance, run, entry)
    if pair.metric.reader is Reader.PAIRS:
        lowest = floor_of(case)
        floor = None if lowest is None else FLOORS[pair.metric.name](lowest)
        noise = images.noise_floor(pair.metric, reference)
        return images.judge(
            pair.metric, gate.tolerance, pair.measured, pair.baseline, floor=floor, noise=noise
        )
    if pair.metric.better is Better.EXACT:
        return _judge_exactly(pair)
    return _judge_within(pair, gate)


def _judge_exactly(pair: _Pair) -> Verdict:
    # Not medians: one process of three with a graph break has a graph break.
    baseline = pair.baseline_median
    differing = tuple(value for value in pair.measured if value != baseline)
    if not differing:
        reason = f"{baseline:g} as in the baseline"
        return pair.verdict(Status.PASS, baseline, limit=baseline, reason=reason)
    reason = f"{differing[0]:.12g} instead of {baseline:.12g}, and no difference is allowed"
    if len(pair.measured) > 1:
        reason += f" ({len(differing)} of {len(pair.measured)} processes differ)"
    return pair.verdict(Status.REGRESSED, differing[0], limit=baseline, reason=reason)


def _widened(gate: Gate, widening_pct: float) -> Gate:
    return Gate(
        tolerance=_at_least(gate.tolerance, widening_pct),
        surprise=gate.surprise and _at_least(gate.surprise, widening_pct),
    )


def _at_least(tolerance: Tolerance, relative_pct: float) -> Tolerance:
    return dataclasses.replace(tolerance, relative_pct=max(tolerance.relative_pct, relative_pct))


def _judge_within(pair: _Pair, gate: Gate) -> Verdict:
    measured = statistics.median(pair.measured)
    limit, rule = _limit(pair, gate.tolerance)
    status = _status(pair, measured, limit=limit, gate=gate)
    return pair.verdict(
        status,
        measured,
        limit=limit,
        reason=_sentence(status, pair, measured, limit=limit, rule=rule),
    )


def _limit(pair: _Pair, tolerance: Tolerance) -> tuple[float, str]:
    baseline, unit = pair.baseline_median, pair.metric.units
    allowance = tolerance.allowance(baseline)
    terms = (
        (f"{tolerance.relative_pct:.3g} %", tolerance.relative_pct > 0),
        (f"{tolerance.absolute:g} {unit}".rstrip(), tolerance.absolute > 0),
    )
    rule = " or ".join(term for term, applies in terms if applies) or "nothing"
    if pair.metric.better is Better.LOWER:
        return baseline + allowance, f"baseline + {rule}"
    return baseline - allowance, f"baseline - {rule}"


def _status(pair: _Pair, measured: float, *, limit: float, gate: Gate) -> Status:
    baseline = pair.baseline_median
    lower = pair.metric.better is Better.LOWER
    if measured > limit if lower else measured < limit:
        return Status.REGRESSED
    gain = baseline - measured if lower else measured - baseline
    # First the tolerance: in its absolute term it can be wider than the surprise bound of a small value.
    if gain <= gate.tolerance.allowance(baseline):
        return Status.PASS
    surprising = gate.surprise is not None and gain > gate.surprise.allowance(baseline)
    return Status.SURPRISE if surprising else Status.IMPROVED


# By a test


def _rule(
    pair: _Pair, gate: Gate, *, entry: Entry, reference: Run | None, significance: Significance
) -> SequentialTest:
    """The test of a noisy metric; `reference` is the run it is divided by, None where it is no ratio."""
    return SequentialTest(
        noise=significance.noise[pair.metric.name],
        level=significance.level,
        baseline_processes=len(pair.baseline),
        max_processes=max(significance.max_processes, len(pair.measured)),
        tolerance_pct=gate.tolerance.relative_pct,
        surprise_pct=None if gate.surprise is None else gate.surprise.relative_pct,
        # A reference of which it is not known how many processes it had had one for certain.
        shared_variance=0.0
        if reference is None
        else 1 / len(reference.processes) + 1 / (entry.reference_processes or 1),
    )


def _judge_noisy(pair: _Pair, rule: SequentialTest) -> Verdict:
    decided = decide(rule, pair.baseline, pair.measured, pair.metric.better)
    baseline = observations.geometric_mean(pair.baseline)
    limit = baseline * (1 + decided.limit_pct / 100)
    return Verdict(
        metric=pair.metric.name,
        status=decided.status or Status.INCONCLUSIVE,
        measured=observations.geometric_mean(pair.measured),
        baseline=baseline,
        change_pct=decided.change_pct,
        ci_pct=decided.interval_pct,
        family_ci_pct=decided.family_interval_pct,
        limit=limit,
        reason=_decision_sentence(pair, rule, decided, limit=limit),
        wants_more=decided.status is None,
    )


def _decision_sentence(pair: _Pair, rule: SequentialTest, decided: Decision, *, limit: float) -> str:
    change = f"{decided.change_pct:+.2f} %"
    processes = _count(decided.processes)
    if decided.status is None:
        return UNDECIDED.format(change=change, processes=processes, most=rule.max_processes)
    if decided.status is Status.INCONCLUSIVE:
        assert decided.spread_ratio is not None, "one process has no spread"
        assert decided.spread_limit is not None, "one process has no spread"
        return APART.format(
            processes=processes,
            times=math.sqrt(decided.spread_ratio),
            sd_pct=rule.noise.sd_pct,
            limit=math.sqrt(decided.spread_limit),
        )
    why = "the tolerance"
    if math.log1p(decided.limit_pct / 100) ** 2 > math.log1p(rule.tolerance_pct / 100) ** 2 * (1 + 1e-9):
        why = f"the noise of {processes} against {rule.baseline_processes}"
    said = SENTENCES[decided.status].format(
        change=change,
        limit=f"{limit:.6g} {pair.metric.units}".rstrip(),
        rule=f"{decided.limit_pct:+.2f} %: {why}",
    )
    return f"{said}; changes of {rule.detectable_pct:.2g} % are seen"


UNDECIDED = (
    "{change} against the baseline is neither a change nor none for certain after {processes}, up to {most} "
    "may be asked for, and the run ended before: measure it again"
)
APART = (
    "its {processes} lie {times:.1f} times as far apart as the {sd_pct:.2g} % of this platform let expect, "
    "{limit:.1f} times is the most: measure it again on a quiet machine, or look for what they differ in"
)


def _count(processes: int) -> str:
    return "1 process" if processes == 1 else f"{processes} processes"


# What is said besides


def _annotated(judged: Verdict, *, metric: Metric, run: Run, entry: Entry, another_unit: bool) -> Verdict:
    notes = (_clock_note(judged, metric=metric, run=run, entry=entry), _drift_note(metric, entry))
    said = _circumstances(metric, entry, another_unit) + judged.reason
    return msgspec.structs.replace(judged, reason="; ".join((said, *filter(None, notes))))


def _with_unsteadiness(judged: Verdict, metric: Metric, scheme: Scheme) -> Verdict:
    if scheme.unsteady is None or not metric.rests_on_step:
        return judged
    return msgspec.structs.replace(judged, reason=f"{judged.reason}; {scheme.unsteady.reason}")


def _clock_note(judged: Verdict, *, metric: Metric, run: Run, entry: Entry) -> str | None:
    """A slowdown of device time that vanishes in cycles is said to; it stays REGRESSED."""
    if judged.status is not Status.REGRESSED or not metric.is_device_time or judged.change_pct is None:
        return None
    assert judged.limit is not None, "what is beyond its limit has one"
    assert judged.baseline is not None, "what has changed has changed from something"
    return validity.in_cycles(
        judged.change_pct,
        limit_pct=(judged.limit / judged.baseline - 1.0) * 100.0,
        clocks_mhz=validity.sample_clocks_mhz(run),
        baseline_mhz=entry.metrics.get(validity.SAMPLE_CLOCK, ()),
    )


def _drift_note(metric: Metric, entry: Entry) -> str | None:
    """Accepted steps that have added up to much of what they may."""
    first = entry.first.get(metric.name)
    if first is None or metric.drift_limit_pct is None:
        return None
    moved = drift(first, entry.metrics[metric.name], metric.better, metric.drift_limit_pct)
    if moved.change_pct / moved.limit_pct < MENTIONED_SHARE:
        return None
    return (
        f"accepted steps have moved the baseline by {moved.change_pct:+.2f} % from the first, and "
        f"{moved.limit_pct:+.2f} % is the most"
    )


SENTENCES = {
    Status.REGRESSED: "{change} against the baseline, beyond the limit {limit} ({rule})",
    Status.SURPRISE: (
        "unexplained improvement of {change} against the baseline: find its cause, then bless it "
        "with a reason"
    ),
    Status.IMPROVED: "{change} against the baseline, an improvement of more than the tolerance",
    Status.PASS: "{change} against the baseline, within the limit {limit} ({rule})",
}


def _sentence(status: Status, pair: _Pair, measured: float, *, limit: float, rule: str) -> str:
    change_pct = _change_pct(measured, pair.baseline_median)
    unit = pair.metric.units
    change = f"{measured:.6g} {unit}".rstrip() if change_pct is None else f"{change_pct:+.2f} %"
    return SENTENCES[status].format(change=change, limit=f"{limit:.6g} {unit}".rstrip(), rule=rule)


def _circumstances(metric: Metric, entry: Entry, another_unit: bool) -> str:
    notes = (
        ("on another unit than the baseline's", another_unit),
        (f"provisional baseline of {_count(entry.processes)}", metric.is_noisy and entry.provisional),
    )
    said = ", ".join(note for note, applies in notes if applies)
    return f"{said}: " if said else ""


def _change_pct(measured: float, baseline: float) -> float | None:
    return None if baseline == 0 else (measured / baseline - 1.0) * 100.0
