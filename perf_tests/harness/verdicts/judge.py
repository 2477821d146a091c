"""A run and its baseline in, a verdict on one metric out; pure, and allowed to answer "cannot tell"."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Callable, Mapping
from functools import partial

import msgspec

from perf_tests.harness.baselines.entry import Accepted, Entry, Provenance
from perf_tests.harness.runs import environments, validity
from perf_tests.harness.runs.record import Run, Status, Verdict
from perf_tests.harness.stats import observations
from perf_tests.harness.stats.sequential_bounds import drift
from perf_tests.harness.verdicts import rules
from perf_tests.harness.verdicts.gates import as_judged
from perf_tests.harness.verdicts.noisy import Significance, count_of
from perf_tests.harness.verdicts.rules import Facts, unjudged
from perf_tests.tables.cases import Case
from perf_tests.tables.metrics.host_bound import is_host_bound, unsteady_of
from perf_tests.tables.metrics.spec import BUSY_TIMES, Gate, Metric, Rule, Tolerance
from perf_tests.tables.platforms import Platform

OF_REFERENCE = "of the reference {}, "
"""Begins the reason of a verdict that was found in the run of another case, whose id it takes."""
MENTIONED_SHARE = 0.5
"""Share of the limit up to which the drift of accepted baselines is not mentioned."""


def judge_metric(
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

    `accepted` is the baseline of `case`, None where it has none; `unit` is the `Environment.unit` that the
    run was measured on.
    """
    metric = as_judged(metric, case)
    if accepted is not None and run.processes:
        accepted = accepted.fitting(metric, run.processes[0].environment.settings)
    if metric.needs_verification and (refused := _refused(metric, case, run, reference)):
        return refused
    observation = observations.observe(metric, run, reference)
    if observation.missing is not None:
        return _unobserved(metric, run, accepted, observation.missing)
    facts = Facts(
        metric=metric,
        case=case,
        platform=platform,
        run=run,
        reference=reference,
        values=observation.values,
        accepted=accepted,
        unit=unit,
        significance=significance,
    )
    return RULES[metric.rule](facts)


def _refused(metric: Metric, case: Case, run: Run, reference: Run | None) -> Verdict | None:
    """The verdict where no time of `run` can be trusted, or none of the run that it is divided by.

    A busy host makes the times of the device no worse: where a row is judged by those, its wall clock is not
    compared, and nothing is INVALID.
    """
    divided_by = reference if metric.reader.divides_by_reference else None
    bound = is_host_bound(case)
    if why := _why(partial(validity.invalidity, host=not bound), run, divided_by):
        return unjudged(metric, Status.INVALID, why)
    if bound and metric.follows_host and (why := _why(validity.busy_host, run, divided_by)):
        instead = f"; {BUSY_TIMES[case.build.activity]} is judged instead" if metric.rests_on_step else ""
        return unjudged(metric, Status.NOT_COMPARED, f"{why}{instead}")
    return None


def _why(check: Callable[[Run], str | None], run: Run, divided_by: Run | None) -> str | None:
    why = check(run)
    if why is not None or divided_by is None:
        return why
    why = check(divided_by)
    return None if why is None else OF_REFERENCE.format(divided_by.id) + why


def _unobserved(metric: Metric, run: Run, accepted: Accepted | None, missing: str) -> Verdict:
    """The verdict on a metric without a value: red, unless another stack than the baseline's cannot count it,
    or every process was spared what it measures.

    On the baseline's own stack it could be counted, so that whatever hides it is a change of the code.
    """
    if metric.cold_caches_only and has_loaded_its_caches(run):
        return unjudged(
            metric, Status.NOT_COMPARED, "every process loaded what it compiled or tuned from a file"
        )
    uncountable = any(metric.name in process.build.uncounted for process in run.processes)
    elsewhere = accepted is not None and _other_stack(metric, run, accepted.provenance)
    status = Status.NOT_COMPARED if uncountable and elsewhere else Status.INCONCLUSIVE
    return unjudged(metric, status, missing)


def has_loaded_its_caches(run: Run) -> bool:
    """Whether each of its processes loaded compile caches or tuned kernels from a file, and so was spared
    most of a cold compilation."""
    caches = [process.build.cache for process in run.processes]
    return bool(caches) and all(cache is not None and cache.was_spared for cache in caches)


# Against a baseline

BaselineRule = Callable[[Facts, Entry, Gate], Verdict]


def _against_baseline(rule: BaselineRule, facts: Facts) -> Verdict:
    """What `rule` says, where there is a baseline that says something about the run."""
    metric, accepted = facts.metric, facts.accepted
    if accepted is None:
        return unjudged(metric, Status.NO_BASELINE, "no baseline is recorded", facts.median)
    entry = accepted.entry
    absence = _absence(metric, facts.run, entry)
    if absence is not None:
        return unjudged(metric, Status.NO_BASELINE, absence, facts.median)
    changes = _other_stack(metric, facts.run, accepted.provenance)
    if changes and metric.elsewhere is None:
        return unjudged(metric, Status.NOT_COMPARED, _not_compared(metric, entry, changes), facts.median)
    if changes and metric.elsewhere is not None:
        gate, rule = Gate(tolerance=metric.elsewhere), rules.within_tolerance
    else:
        gate = metric.gates[facts.platform.device]
    another_unit = metric.per_unit and facts.unit != accepted.provenance.unit
    is_known = metric.is_noisy and facts.between_cards is not None
    widened = _widened(gate, facts.platform.unit_tolerance_pct if another_unit and not is_known else 0.0)
    judged = rule(facts, entry, widened)
    return _annotated(judged, facts, entry, changes, another_unit=another_unit)


RULES: Mapping[Rule, Callable[[Facts], Verdict]] = {
    Rule.EXPECTED_RANGE: rules.expected_range,
    Rule.CONFIRMED: rules.confirmed,
    Rule.TAIL: rules.tail,
    Rule.EXPECTED_OF_LAYERS: rules.expected_range_of_layers,
    Rule.NOISY: partial(_against_baseline, rules.noisy_metric),
    Rule.PER_LAYER: partial(_against_baseline, rules.per_layer),
    Rule.PER_PAIR: partial(_against_baseline, rules.per_pair),
    Rule.EXACT: partial(_against_baseline, rules.exact),
    Rule.WITHIN_TOLERANCE: partial(_against_baseline, rules.within_tolerance),
}


def _absence(metric: Metric, run: Run, entry: Entry) -> str | None:
    if entry.digest != run.digest:
        return (
            f"the case has changed since its baseline (digest {entry.digest[:12]} then, "
            f"{run.digest[:12]} now)"
        )
    if metric.name not in entry.metrics:
        return f"the baseline has no {metric.name}"
    return None


def _other_stack(metric: Metric, run: Run, provenance: Provenance) -> tuple[str, ...]:
    """`name before -> now` of the packages and settings that decide the value and have changed since."""
    recorded = tuple(name for name in metric.same_settings if name in provenance.settings)
    changes = {
        change
        for environment in (process.environment for process in run.processes)
        for change in (
            *environments.differences(provenance.packages, environment.packages, metric.same_packages),
            *environments.differences(provenance.settings, environment.settings, recorded),
        )
    }
    return tuple(sorted(changes))


def _not_compared(metric: Metric, entry: Entry, changes: tuple[str, ...]) -> str:
    return (
        f"not compared with the {statistics.median(entry.metrics[metric.name]):g} of the baseline, which "
        f"holds only for the same {' and '.join((*metric.same_packages, *metric.same_settings))}: "
        f"{'; '.join(changes)}"
    )


def _widened(gate: Gate, widening_pct: float) -> Gate:
    return Gate(
        tolerance=_at_least(gate.tolerance, widening_pct),
        surprise=gate.surprise and _at_least(gate.surprise, widening_pct),
    )


def _at_least(tolerance: Tolerance, relative_pct: float) -> Tolerance:
    return dataclasses.replace(tolerance, relative_pct=max(tolerance.relative_pct, relative_pct))


# What a verdict says about its circumstances


def _annotated(
    judged: Verdict, facts: Facts, entry: Entry, changes: tuple[str, ...], *, another_unit: bool
) -> Verdict:
    metric = facts.metric
    notes = (
        _clock_note(judged, metric, facts.run, entry),
        _drift_note(metric, entry),
        _unsteadiness_note(facts),
    )
    said = _circumstances(metric, entry, changes, another_unit=another_unit) + judged.reason
    return msgspec.structs.replace(judged, reason="; ".join((said, *filter(None, notes))))


def _circumstances(metric: Metric, entry: Entry, changes: tuple[str, ...], *, another_unit: bool) -> str:
    notes = (
        (f"on another stack than the baseline's ({'; '.join(changes)})", bool(changes)),
        ("on another unit than the baseline's", another_unit),
        (f"provisional baseline of {count_of(entry.processes)}", metric.is_noisy and entry.provisional),
    )
    said = ", ".join(note for note, applies in notes if applies)
    return f"{said}: " if said else ""


def _clock_note(judged: Verdict, metric: Metric, run: Run, entry: Entry) -> str | None:
    """Whether a slowdown of device time vanishes when counted in cycles; the verdict stays REGRESSED."""
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
    """How far accepted changes have moved the baseline, where that is much of what they may."""
    first = entry.first.get(metric.name)
    if first is None or metric.drift_limit_pct is None:
        return None
    moved = drift(first, entry.metrics[metric.name], metric.better, metric.drift_limit_pct)
    if moved.change_pct / moved.limit_pct < MENTIONED_SHARE:
        return None
    return (
        f"accepted changes have moved the baseline by {moved.change_pct:+.2f} % from the first, and "
        f"{moved.limit_pct:+.2f} % is the most"
    )


def _unsteadiness_note(facts: Facts) -> str | None:
    """Why the time of the case's steps is not tested but limited, where that decides the metric."""
    unsteady = unsteady_of(facts.case)
    return unsteady.reason if unsteady is not None and facts.metric.rests_on_step else None
