"""The pictures of each prompt and seed against those of the baseline, each with its own; pure."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

import msgspec

from perf_tests.harness.records import Run, Status, Verdict
from perf_tests.tables.metrics import Metric, Tolerance

NOISE = {"psnr_db": "psnr_db", "ssim": "ssim"}
"""Metric name -> the field of the noise floor (`Process.noise`) that it is held against."""


def judge(
    metric: Metric,
    tolerance: Tolerance,
    measured: Sequence[float],
    baseline: Sequence[float],
    floor: float | None,
) -> Verdict:
    """The verdict on `measured`, one value for each pair, the higher the better.

    REGRESSED where the pairs have lost more than the tolerance of one of them over the square root of their
    number, on average, or where their median is below `floor`. A trajectory amplifies rounding, so that
    a single pair moves by itself; their mean moves less. Pairs that the baseline lacks are held against the
    floor alone.
    """
    common = min(len(measured), len(baseline))
    change = statistics.fmean(now - then for now, then in zip(measured, baseline, strict=False))
    allowance = tolerance.absolute / math.sqrt(common)
    median = statistics.median(measured)
    unit = f" {metric.unit}".rstrip()
    pairs = "1 pair" if common == 1 else f"{common} pairs"
    before = statistics.fmean(baseline[:common])
    below = floor is not None and median < floor
    limit = before - allowance if floor is None else max(before - allowance, floor)
    lost = change < -allowance
    if lost:
        reason = f"{pairs} moved by {change:+.3g}{unit} on average, beyond the limit -{allowance:.3g}{unit}"
    elif below:
        reason = f"the median of {len(measured)} is {median:.4g}{unit}, below the floor {floor:g}{unit}"
    else:
        reason = f"{pairs} moved by {change:+.3g}{unit} on average, within the limit -{allowance:.3g}{unit}"
    status = Status.IMPROVED if change > allowance else Status.PASS
    return Verdict(
        metric=metric.name,
        status=Status.REGRESSED if lost or below else status,
        measured=statistics.fmean(measured[:common]),
        baseline=before,
        change_pct=None if before == 0 else change / before * 100,
        ci_pct=None,
        limit=limit,
        reason=f"{reason} ({_listed(measured)} against {_listed(baseline[:common])})",
    )


def with_noise_floor(judged: Verdict, reference: Run | None) -> Verdict:
    """`judged` with what compiling alone costs the first pair, where the reference knows; a picture that is
    as close is no evidence of anything, and is said to be none."""
    processes = reference.processes if reference else ()
    noise = next((process.noise for process in processes if process.noise), None)
    if noise is None or judged.measured is None:
        return judged
    floor = getattr(noise, NOISE[judged.metric])
    if floor is None:
        return judged
    note = f"bf16 compiled against eager is at {floor:.4g}"
    if judged.measured >= floor:
        note += ": the pictures are at the noise floor, and no evidence; the layers are"
    return msgspec.structs.replace(judged, reason=f"{judged.reason}; {note}")


def _listed(values: Sequence[float]) -> str:
    return ", ".join(f"{value:.4g}" for value in values)
