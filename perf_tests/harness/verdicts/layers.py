"""Each quantized layer compared with itself in the baseline, and the layers that moved most, named; pure."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial

import msgspec

from perf_tests.harness.baselines.entry import Entry
from perf_tests.harness.runs.record import Run, Status, Verdict
from perf_tests.harness.stats.observations import layer_values
from perf_tests.protocol.reports import LayerError
from perf_tests.tables.metrics.spec import Metric, Tolerance

NAMED = 3
"""Layers that a verdict names."""
REDRAWN_SD = 4.0
"""Standard deviations by which a layer may move where all its rounding errors are drawn anew, as happens when
another processor or release rounds its inputs differently. Of 500 layers, one exceeds this in 30 runs."""
DB_OF_RATIO = 20 / math.log(10)
"""Decibels of a small relative change of an amplitude."""


def judge_layers(metric: Metric, tolerance: Tolerance, run: Run, entry: Entry) -> Verdict:
    """The verdict on one metric of all layers: that of the layer that moved most, either way.

    REGRESSED, naming the layers, where one moved by more than the tolerance in any process, or where the
    layers are not those of the baseline.
    """
    before = layer_values(metric, entry.layers)
    by_process = [layer_values(metric, process.build.layers) for process in run.processes]
    others = sorted({name for values in by_process for name in values.keys() ^ before.keys()})
    if others:
        return _others(metric, before, others)
    moved = _moved(by_process, before)
    allowed = {
        # From the ratio in the baseline: a layer that has become worse must not gain allowance by that.
        name: max(tolerance.absolute, REDRAWN_SD * REDRAWN[metric.field](error, entry.layers[name].sqnr_db))
        for name, error in run.processes[0].build.layers.items()
        if name in moved
    }
    excess = {name: abs(moved[name] - before[name]) / allowed[name] for name in moved}
    most = sorted(moved, key=excess.__getitem__, reverse=True)
    beyond = [name for name in most if excess[name] > 1]
    name = most[0]
    return Verdict(
        metric=metric.name,
        status=Status.REGRESSED if beyond else Status.PASS,
        measured=moved[name],
        baseline=before[name],
        change_pct=None,
        ci_pct=None,
        limit=_limit(metric, before[name], moved[name], allowed[name], is_beyond=bool(beyond)),
        reason=_sentence(metric, moved, before, beyond=beyond, most=most, allowance=tolerance.absolute),
    )


def _limit(metric: Metric, before: float, moved: float, allowed: float, *, is_beyond: bool) -> float:
    """Of the two, the one that was crossed; where none was, the one on the worse side."""
    lower, upper = before - allowed, before + allowed
    if is_beyond:
        return upper if moved > before else lower
    assert metric.badness is not None, f"the row of {metric.name} does not say which value is worse"
    return max(lower, upper, key=metric.badness)


def with_culprits(judged: Verdict, metric: Metric, run: Run) -> Verdict:
    """`judged`, the verdict on the worst layer, with the worst layers named where it is red."""
    if judged.status is not Status.REGRESSED:
        return judged
    by_process = [layer_values(metric, process.build.layers) for process in run.processes]
    badness = metric.badness
    assert badness is not None, f"the row of {metric.name} does not say which layer is worst"
    worst = {
        name: max((values[name] for values in by_process if name in values), key=badness)
        for name in sorted(set().union(*by_process))
    }
    most = sorted(worst, key=lambda name: badness(worst[name]), reverse=True)[:NAMED]
    named = "; ".join(f"{name} {worst[name]:.5g} {metric.units}".rstrip() for name in most)
    return msgspec.structs.replace(judged, reason=f"{named}: {judged.reason}")


def _redrawn_sqnr_db(error: LayerError, _sqnr_db: float) -> float:
    """Standard deviation of the difference of two SQNR, each of as many independent errors as values.

    The mean square of n errors has a relative one of sqrt(2 / n), an amplitude half of it.
    """
    return DB_OF_RATIO / math.sqrt(_values(error))


def _redrawn_gain(error: LayerError, sqnr_db: float) -> float:
    """Standard deviation of the difference of two gains, where errors of that SQNR contain the signal only by
    chance."""
    return math.sqrt(2.0 / _values(error)) * 10 ** (-sqnr_db / 20)


def _redrawn_row_db(error: LayerError, _sqnr_db: float) -> float:
    return DB_OF_RATIO / math.sqrt(error.tokens or math.inf)


def _values(error: LayerError) -> float:
    """Values in the output; infinite where that was not recorded, which leaves the tolerance alone."""
    return (error.tokens or math.inf) * (error.features or math.inf)


REDRAWN: Mapping[str, Callable[[LayerError, float], float]] = {
    "sqnr_db": _redrawn_sqnr_db,
    "gain": _redrawn_gain,
    "worst_row_sqnr_db": _redrawn_row_db,
}
"""Field of a layer -> how far a layer of that SQNR moves by rounding alone: one standard deviation."""


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
    most: Sequence[str],
    allowance: float,
) -> str:
    unit = f" {metric.units}".rstrip()
    if not beyond:
        change = moved[most[0]] - before[most[0]]
        return (
            f"none of {len(moved)} layers moved by more than {allowance:g}{unit} or its rounding, {most[0]} "
            f"by {change:+.3g}{unit}"
        )
    named = "; ".join(
        f"{name} {before[name]:.5g} -> {moved[name]:.5g}{unit}" for name in most[: min(NAMED, len(beyond))]
    )
    # The culprit first: a report may cut the end.
    count = f"{len(beyond)} of {len(moved)} layers moved by more than {allowance:g}{unit} and its rounding"
    return f"{named}: {count}"


def _others(metric: Metric, before: Values, others: Sequence[str]) -> Verdict:
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
        measured=None,
        baseline=None,
        change_pct=None,
        ci_pct=None,
        limit=None,
        reason=f"the quantized layers are not those of the baseline: {'; '.join(said)}",
    )
