"""Which metrics can fail a case on a platform, and how they are judged for its scheme; pure."""

from __future__ import annotations

import dataclasses

from perf_tests.tables.cases import Case
from perf_tests.tables.metrics.host_bound import unsteady_of
from perf_tests.tables.metrics.rows import METRICS
from perf_tests.tables.metrics.spec import Better, Gate, Group, Metric, Reader, Rule, Tolerance, Trait
from perf_tests.tables.platforms import Device, Platform


def gated_metrics(case: Case, platform: Platform, group: Group | None = None) -> tuple[Metric, ...]:
    """The metrics that can fail `case` on `platform`; of one test file, or of all."""
    return tuple(metric for metric in _applicable(case, group) if _is_gated(metric, case, platform))


def shown_metrics(case: Case, platform: Platform, group: Group | None = None) -> tuple[Metric, ...]:
    """The metrics that are recorded and reported for `case` on `platform`, and cannot fail it."""
    return tuple(metric for metric in _applicable(case, group) if not _is_gated(metric, case, platform))


def is_verified_only(case: Case, platform: Platform) -> bool:
    """Whether `platform` only verifies `case`, and takes one sample: where times mean nothing, a case that
    must equal its built twin has nothing of its own to show, what makes no pictures is always the same, and
    one whose shapes change is about what changes."""
    reshaped = case.build.recipe.reshaping is not None
    is_of_few = case.built_twin is not None or not case.is_generating or reshaped
    return platform.device is Device.CPU and is_of_few


def as_judged(metric: Metric, case: Case) -> Metric:
    """The metric as it is judged for `case`: by a wide tolerance where the time of its steps is unsteady,
    where weights are copied while it is taken, or where kernels are tuned that it counts."""
    if metric.where_tuned is not None and case.build.recipe.is_tuned:
        return _within(metric, metric.where_tuned)
    if metric.where_offloaded is not None and case.build.recipe.offload is not None:
        return dataclasses.replace(_within(metric, metric.where_offloaded), drift_limit_pct=None)
    unsteady = unsteady_of(case) if metric.is_noisy and metric.rests_on_step else None
    if unsteady is None:
        return metric
    lower = metric.better is Better.LOWER
    tolerance = Tolerance(relative_pct=unsteady.slower_pct if lower else unsteady.less_pct)
    return dataclasses.replace(_within(metric, tolerance), precise=False, drift_limit_pct=None)


def _within(metric: Metric, tolerance: Tolerance) -> Metric:
    gates = dict.fromkeys(metric.gates, Gate(tolerance=tolerance))
    return dataclasses.replace(metric, gates=gates, rule=Rule.WITHIN_TOLERANCE)


def _applicable(case: Case, group: Group | None) -> tuple[Metric, ...]:
    return tuple(
        as_judged(metric, case)
        for metric in METRICS
        if group in (None, metric.group) and metric.applies(case)
    )


def _is_gated(metric: Metric, case: Case, platform: Platform) -> bool:
    follows_search = metric.follows_search and case.build.recipe.scheme.search is not None
    needs_more = _needs_more_than_verifying(metric) and is_verified_only(case, platform)
    may_fail = not (follows_search or needs_more) and metric.can_fail(case)
    return platform.device in metric.gates and may_fail


def _needs_more_than_verifying(metric: Metric) -> bool:
    """Whether one sample, compared with nothing, does not tell it."""
    return metric.reader is Reader.GROWTH or Trait.UNTWINNED in metric.only_for
