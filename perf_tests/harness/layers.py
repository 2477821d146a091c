"""Each quantized layer against itself in the baseline, and the names of those that moved most; pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

from perf_tests.harness.baseline import Entry
from perf_tests.harness.records import Run, Status, Verdict
from perf_tests.harness.stats import layer_values
from perf_tests.tables.metrics import Metric, Tolerance

NAMED = 3
"""Layers that a verdict names."""


def judge(metric: Metric, tolerance: Tolerance, run: Run, entry: Entry) -> Verdict:
    """The verdict on one metric of all layers: that of the layer that moved most, either way.

    REGRESSED where a layer moved by more than the tolerance in any process, and where the layers are others
    than the baseline's; both name the layers.
    """
    before = layer_values(metric.name, entry.layers)
    by_process = [layer_values(metric.name, process.build.layers) for process in run.processes]
    others = sorted({name for values in by_process for name in values.keys() ^ before.keys()})
    if others:
        return _others(metric, by_process, before, others)
    moved = _moved(by_process, before)
    name = max(moved, key=lambda each: abs(moved[each] - before[each]))
    allowance = tolerance.absolute
    beyond = [each for each in moved if abs(moved[each] - before[each]) > allowance]
    limit = before[name] + (allowance if moved[name] > before[name] else -allowance)
    return Verdict(
        metric=metric.name,
        status=Status.REGRESSED if beyond else Status.PASS,
        measured=moved[name],
        baseline=before[name],
        change_pct=None,
        ci_pct=None,
        limit=limit,
        reason=_sentence(metric, moved, before, beyond=beyond, allowance=allowance),
    )


Values = Mapping[str, float]
"""Layer -> its value of one metric."""


def _moved(by_process: Sequence[Values], before: Values) -> dict[str, float]:
    """Each layer in the process in which it is farthest from the baseline."""
    return {
        name: max((values[name] for values in by_process), key=partial(_distance, was))
        for name, was in before.items()
    }


def _distance(was: float, value: float) -> float:
    return abs(value - was)


def _sentence(
    metric: Metric,
    moved: Values,
    before: Values,
    *,
    beyond: Sequence[str],
    allowance: float,
) -> str:
    unit = f" {metric.unit}".rstrip()
    most = sorted(moved, key=lambda name: abs(moved[name] - before[name]), reverse=True)
    if not beyond:
        change = moved[most[0]] - before[most[0]]
        return (
            f"none of {len(moved)} layers moved by more than {allowance:g}{unit}, {most[0]} by "
            f"{change:+.3g}{unit}"
        )
    named = "; ".join(
        f"{name} {before[name]:.5g} -> {moved[name]:.5g}{unit}" for name in most[: min(NAMED, len(beyond))]
    )
    return f"{len(beyond)} of {len(moved)} layers moved by more than {allowance:g}{unit}, most of all {named}"


def _others(metric: Metric, by_process: Sequence[Values], before: Values, others: Sequence[str]) -> Verdict:
    lost = [name for name in others if name in before]
    new = [name for name in others if name not in before]
    said = [
        f"{len(names)} {what} ({', '.join(names[:NAMED])})"
        for what, names in (("no longer quantized", lost), ("quantized, and not in the baseline", new))
        if names
    ]
    return Verdict(
        metric=metric.name,
        status=Status.REGRESSED,
        measured=float(min(map(len, by_process))),
        baseline=float(len(before)),
        change_pct=None,
        ci_pct=None,
        limit=float(len(before)),
        reason=f"the quantized layers are others than the baseline's: {'; '.join(said)}",
    )
