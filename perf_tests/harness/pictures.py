"""The pictures of each prompt and seed against those of the baseline, each with its own; pure."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

import msgspec

from perf_tests.harness.records import Run, Status, Verdict
from perf_tests.tables.metrics import Metric, Tolerance


def judge(
    metric: Metric,
    tolerance: Tolerance,
    measured: Sequence[float],
    baseline: Sequence[float],
    floor: float | None,
) -> Verdict:
    """The verdict on `measured`, one value for each pair, the higher the better.

    REGRESSED where one of them has lost more than the tolerance or is below `floor`, and where they have
    lost more than the tolerance over the square root of their number on average: a trajectory amplifies
    rounding, so that a single pair moves by itself, and their mean less. Pairs that an older baseline lacks
    are held against the floor alone; INCONCLUSIVE where the baseline has more than were measured.
    """
    changes = [now - then for now, then in zip(measured, baseline, strict=False)]
    change, allowance = statistics.fmean(changes), tolerance.absolute / math.sqrt(len(changes))
    before = statistics.fmean(baseline[: len(changes)])
    status, finding = _finding(metric, tolerance, measured, changes, floor)
    if len(measured) < len(baseline):
        status = Status.INCONCLUSIVE
        finding = f"{len(measured)} of the {len(baseline)} pairs of its baseline were measured"
    return Verdict(
        metric=metric.name,
        status=status,
        measured=statistics.fmean(measured[: len(changes)]),
        baseline=before,
        change_pct=None if before == 0 else change / before * 100,
        ci_pct=None,
        limit=max(before - allowance, -math.inf if floor is None else floor),
        reason=f"{finding} ({_listed(measured)} against {_listed(baseline)})",
    )


def _finding(
    metric: Metric,
    tolerance: Tolerance,
    measured: Sequence[float],
    changes: Sequence[float],
    floor: float | None,
) -> tuple[Status, str]:
    unit = f" {metric.unit}".rstrip()
    pairs = "1 pair" if len(changes) == 1 else f"{len(changes)} pairs"
    change, allowance = statistics.fmean(changes), tolerance.absolute / math.sqrt(len(changes))
    worst, lowest = min(changes), min(measured)
    moved = f"{pairs} moved by {change:+.3g}{unit} on average"
    if change < -allowance:
        return Status.REGRESSED, f"{moved}, beyond the limit -{allowance:.3g}{unit}"
    if worst < -tolerance.absolute:
        beyond = f"beyond the limit -{tolerance.absolute:.3g}{unit} of one"
        return Status.REGRESSED, f"pair {changes.index(worst)} moved by {worst:+.3g}{unit}, {beyond}"
    if floor is not None and lowest < floor:
        number = list(measured).index(lowest)
        return Status.REGRESSED, f"pair {number} is at {lowest:.4g}{unit}, below the floor {floor:g}{unit}"
    status = Status.IMPROVED if change > allowance else Status.PASS
    return status, f"{moved}, within the limit -{allowance:.3g}{unit}"


def with_noise_floor(judged: Verdict, reference: Run | None) -> Verdict:
    """`judged` with what compiling alone costs the first pair, where the reference knows; a picture that is
    as close is no evidence of anything, and is said to be none."""
    processes = reference.processes if reference else ()
    noise = next((process.noise for process in processes if process.noise), None)
    # The fields of a comparison are called as the metrics are.
    floor = None if noise is None else getattr(noise, judged.metric)
    if floor is None or judged.measured is None:
        return judged
    note = f"bf16 compiled against eager is at {floor:.4g}"
    if judged.measured >= floor:
        note += ": the pictures are at the noise floor, and no evidence; the layers are"
    return msgspec.structs.replace(judged, reason=f"{judged.reason}; {note}")


def _listed(values: Sequence[float]) -> str:
    return ", ".join(f"{value:.4g}" for value in values)
