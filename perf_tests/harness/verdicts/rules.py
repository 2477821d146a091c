"""The rules by which one metric is judged, each with or without a baseline; pure."""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass

import msgspec

from perf_tests.harness.baselines.entry import Accepted, Entry
from perf_tests.harness.runs import projection, stalls
from perf_tests.harness.runs.record import Run, Status, Verdict
from perf_tests.harness.verdicts import images, layers, noisy
from perf_tests.harness.verdicts.noisy import Significance
from perf_tests.tables.cases import Case
from perf_tests.tables.fidelity_floors import floor_of
from perf_tests.tables.metrics.spec import STEP, Better, Gate, Metric, Tolerance
from perf_tests.tables.platforms import Noise, Platform
from perf_tests.tables.schemes.spec import Range


@dataclass(frozen=True, kw_only=True, slots=True)
class Facts:
    """What there is to know when one metric of a run is judged."""

    metric: Metric
    """As it is judged for the scheme of `case` (`gates.as_judged`)."""
    case: Case
    platform: Platform
    run: Run
    reference: Run | None
    values: tuple[float, ...]
    """One or more: what `stats.observations.observe` found."""
    accepted: Accepted | None
    unit: str
    """The `Environment.unit` that the run was measured on."""
    significance: Significance

    @property
    def median(self) -> float:
        """Of the values."""
        return statistics.median(self.values)

    @property
    def between_cards(self) -> Noise | None:
        """How far cards of the platform lie apart in the metric, where the baseline is of another one.

        None on the same card, and where nobody knows: an eager step is launched kernel by kernel, and a short
        one waits for the host, which changes with the card.
        """
        assert self.accepted is not None, "only asked with a baseline"
        is_launched_eagerly = self.metric.name == STEP and not self.case.build.recipe.compiles
        if is_launched_eagerly or self.unit == self.accepted.provenance.unit:
            return None
        return self.platform.between_cards.get(self.metric.name)

    @property
    def divided_by(self) -> Run | None:
        """The reference, where a time of it enters the metric; else None."""
        return self.reference if self.metric.reader.divides_by_reference else None


def unjudged(metric: Metric, status: Status, reason: str, measured: float | None = None) -> Verdict:
    """A verdict that compares nothing."""
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


# Without a baseline


def expected_range(facts: Facts) -> Verdict:
    """Every process must lie within the range that the tables imply for the case."""
    metric = facts.metric
    expected = metric.expected and metric.expected(facts.case)
    assert expected is not None, f"{metric.name} does not apply to {facts.case.id}"
    # Not the median: one process of three that is outside is outside.
    outside = tuple(value for value in facts.values if not expected.low <= value <= expected.high)
    measured = outside[0] if outside else facts.median
    nearest = min(expected.low, expected.high, key=lambda bound: abs(bound - measured))
    bounds, where = _said(expected, metric.units, is_outside=bool(outside))
    return Verdict(
        metric=metric.name,
        status=Status.REGRESSED if outside else Status.PASS,
        measured=measured,
        baseline=None,
        change_pct=None,
        ci_pct=None,
        # For lower-is-better metrics the lower bound never binds.
        limit=expected.high if metric.better is Better.LOWER else nearest,
        reason=f"{measured:.6g} {metric.units}".rstrip() + f" is {where} {bounds}: {expected.source}",
    )


def _said(expected: Range, units: str, *, is_outside: bool) -> tuple[str, str]:
    """The range in words, and where a value lies."""
    if math.isinf(expected.low):
        return f"{expected.high:g} {units}".rstrip(), "above" if is_outside else "not above"
    bounds = f"{expected.low:g} to {expected.high:g} {units}".rstrip()
    return bounds, "outside" if is_outside else "within"


def confirmed(facts: Facts) -> Verdict:
    """Judged by `expected_range`; one process outside is nothing until another one confirms it."""
    judged = expected_range(facts)
    values = facts.values
    if judged.status is Status.PASS:
        return judged
    expected = facts.metric.expected and facts.metric.expected(facts.case)
    assert expected is not None, "expected_range has found it"
    outside = sum(not expected.low <= value <= expected.high for value in values)
    seen = f"{judged.reason}; {outside} of {noisy.count_of(len(values))} show it"
    if outside > 1:
        return msgspec.structs.replace(judged, reason=seen)
    if len(values) > 1:
        reason = f"{seen}, and no other confirms it"
        return msgspec.structs.replace(judged, status=Status.PASS, reason=reason)
    reason = f"{judged.reason}; another process has to confirm it, and none was measured"
    return msgspec.structs.replace(judged, status=Status.INCONCLUSIVE, reason=reason, wants_more=True)


def tail(facts: Facts) -> Verdict:
    """Two stalled images are the code's, in one process or in two; a single one is the machine's.

    The single one is of no consequence where it was taken again, and makes the times INVALID where it was
    not.
    """
    found = [
        (number, stall)
        for number, process in enumerate(facts.run.processes, start=1)
        for stall in stalls.of_process(process)
    ]
    limit = f"no image took more than {stalls.STALL_RATIO:g} times the median of its process"
    if not found:
        return _of_stalls(facts, Status.PASS, 0, limit)
    named = "; ".join(f"one of process {number} took {stall.text}" for number, stall in found)
    if len(found) > 1:
        return _of_stalls(facts, Status.REGRESSED, len(found), f"{len(found)} images stalled: {named}")
    if found[0][1].was_retaken:
        return _of_stalls(facts, Status.PASS, 1, f"one image stalled and was taken again: {named}")
    return _of_stalls(facts, Status.INVALID, 1, f"one image stalled, and no other confirms it: {named}")


def _of_stalls(facts: Facts, status: Status, stalled: int, reason: str) -> Verdict:
    judged = unjudged(facts.metric, status, reason, float(stalled))
    return msgspec.structs.replace(judged, limit=0.0)


def expected_range_of_layers(facts: Facts) -> Verdict:
    """Judged by `expected_range`; a failing verdict names the worst layers."""
    return layers.with_culprits(expected_range(facts), facts.metric, facts.run)


# With a baseline


def noisy_metric(facts: Facts, entry: Entry, gate: Gate) -> Verdict:
    """The sequential test, with the noise of the platform."""
    baseline = entry.metrics[facts.metric.name]
    test = noisy.sequential_test(
        facts.metric,
        gate,
        facts.significance,
        measured=len(facts.values),
        baseline=len(baseline),
        shared_variance=_shared_variance(facts, entry),
        between=facts.between_cards,
    )
    return noisy.judge_noisy(facts.metric, test, facts.values, baseline)


def _shared_variance(facts: Facts, entry: Entry) -> float:
    """Of the reference, now and in the baseline, where the metric is divided by one; else 0."""
    if facts.divided_by is None:
        return 0.0
    # An entry that does not say how many processes its reference had is taken to have had one.
    return 1 / len(facts.divided_by.processes) + 1 / (entry.reference_processes or 1)


def per_layer(facts: Facts, entry: Entry, gate: Gate) -> Verdict:
    """Each layer is compared with itself in the baseline."""
    return layers.judge_layers(facts.metric, gate.tolerance, facts.run, entry)


def per_pair(facts: Facts, entry: Entry, gate: Gate) -> Verdict:
    """Each pair of prompt and seed is compared with itself in the baseline, and with the scheme's floor."""
    name = facts.metric.name
    # It may have been recorded when more of them were generated.
    baseline = entry.metrics[name][: projection.pairs(facts.case, facts.platform)]
    lowest = floor_of(facts.case)
    noise = images.noise_floor(facts.metric, facts.reference)
    judged = images.judge_pairs(
        facts.metric,
        gate.tolerance,
        facts.values,
        baseline,
        # The fields of a floor have the names of the metrics.
        floor=None if lowest is None else getattr(lowest, name),
        noise=noise,
    )
    return images.with_surprise(judged, facts.metric, gate.surprise, noise)


def exact(facts: Facts, entry: Entry, _gate: Gate) -> Verdict:
    """Every process must have the value of the baseline."""
    # Not medians: one process of three with a graph break has a graph break.
    values = facts.values
    baseline = statistics.median(entry.metrics[facts.metric.name])
    differing = tuple(value for value in values if value != baseline)
    if not differing:
        reason = f"{baseline:g} as in the baseline"
        return _compared(facts.metric, Status.PASS, baseline, baseline, limit=baseline, reason=reason)
    most = max(differing, key=lambda value: abs(value - baseline))
    reason = f"{most:.12g} instead of {baseline:.12g}, and no difference is allowed"
    if len(values) > 1:
        reason += f" ({len(differing)} of {len(values)} processes differ)"
    return _compared(facts.metric, Status.REGRESSED, most, baseline, limit=baseline, reason=reason)


def within_tolerance(facts: Facts, entry: Entry, gate: Gate) -> Verdict:
    """The median must be within the tolerance of the baseline's; of an exact metric, every process."""
    metric, measured = facts.metric, facts.median
    baseline = statistics.median(entry.metrics[metric.name])
    if metric.better is Better.EXACT:
        measured = max(facts.values, key=lambda value: abs(value - baseline))
    limit, why = _limit(metric, measured, baseline, gate.tolerance)
    status = _status(metric, measured, baseline, limit=limit, gate=gate)
    change_pct = _change_pct(metric, measured, baseline)
    difference = f"{measured - baseline:+.4g} {metric.units}".rstrip()
    reason = noisy.SENTENCES[status].format(
        change=difference if change_pct is None else f"{change_pct:+.2f} %",
        limit=f"{limit:.6g} {metric.units}".rstrip(),
        why=why,
    )
    return _compared(metric, status, measured, baseline, limit=limit, reason=reason)


def _limit(metric: Metric, measured: float, baseline: float, tolerance: Tolerance) -> tuple[float, str]:
    """The last value that is tolerated, in the direction of the change where both are limited, and how it
    comes about."""
    terms = (
        (f"{tolerance.relative_pct:.3g} %", tolerance.relative_pct > 0),
        (f"{tolerance.absolute:g} {metric.units}".rstrip(), tolerance.absolute > 0),
    )
    why = " or ".join(term for term, applies in terms if applies) or "nothing"
    allowance = tolerance.allowance(baseline)
    if _is_limited_above(metric, measured, baseline):
        return baseline + allowance, f"baseline + {why}"
    return baseline - allowance, f"baseline - {why}"


def _is_limited_above(metric: Metric, measured: float, baseline: float) -> bool:
    return metric.better is Better.LOWER or (metric.better is Better.EXACT and measured > baseline)


def _status(metric: Metric, measured: float, baseline: float, *, limit: float, gate: Gate) -> Status:
    above = _is_limited_above(metric, measured, baseline)
    if measured > limit if above else measured < limit:
        return Status.REGRESSED
    if metric.better is Better.EXACT:
        return Status.PASS
    gain = baseline - measured if above else measured - baseline
    # The tolerance comes first: its absolute term can exceed the surprise bound of a small value.
    if gain <= gate.tolerance.allowance(baseline):
        return Status.PASS
    surprising = gate.surprise is not None and gain > gate.surprise.allowance(baseline)
    return Status.SURPRISE if surprising else Status.IMPROVED


def _compared(
    metric: Metric, status: Status, measured: float, baseline: float, *, limit: float, reason: str
) -> Verdict:
    return Verdict(
        metric=metric.name,
        status=status,
        measured=measured,
        baseline=baseline,
        change_pct=_change_pct(metric, measured, baseline),
        ci_pct=None,
        limit=limit,
        reason=reason,
    )


def _change_pct(metric: Metric, measured: float, baseline: float) -> float | None:
    return None if baseline == 0 or metric.is_in_decibels else (measured / baseline - 1.0) * 100.0
