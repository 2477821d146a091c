"""Whether the generations of a process suffice, and how far they lie apart; pure."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from itertools import pairwise

from perf_tests.harness.records.process_ends import SamplingEnd
from perf_tests.harness.runs.record import Process, Run
from perf_tests.harness.runs.stalls import generation_s
from perf_tests.harness.stats.location import MAD_TO_SD, TRIMMED_ERROR, trimmed_mean
from perf_tests.harness.stats.observations import NotMeasured, values_of
from perf_tests.protocol.reports import Sample
from perf_tests.tables.metrics.spec import STEP, TRAIN_STEP

WITHIN_SHARE = 0.4
"""A process is sampled until the error of its statistic is this share of the noise between processes, which
that error then widens by less than a tenth."""
MOST_SAMPLES = 9
"""Timed generations of a process at most, precise or not."""
SLOW_GENERATION_S = 6.0
"""A longer generation is not repeated for precision: it would cost a process more than a minute."""


def sampling_end(
    samples: Sequence[Sample], noise_pct: Mapping[str, float], least: int, *, enough: int | None = None
) -> SamplingEnd | None:
    """Whether the `samples` of a process suffice; None: one more.

    `noise_pct` is the noise between processes of each metric that has to be precise; with none of them, or a
    generation that lacks one, `least` samples do. Slow generations are not repeated for precision beyond
    `enough`, which is `least` unless given.
    """
    if len(samples) < least:
        return None
    try:
        errors_pct = {name: location_error_pct(samples, name) for name in noise_pct}
    except NotMeasured:
        return SamplingEnd.FIXED
    is_slow = (generation_s(samples[-1]) or 0.0) > SLOW_GENERATION_S
    if not errors_pct or (is_slow and len(samples) >= (enough or least)):
        return SamplingEnd.FIXED
    if all(errors_pct[name] <= WITHIN_SHARE * between_pct for name, between_pct in noise_pct.items()):
        return SamplingEnd.PRECISE
    return SamplingEnd.MOST if len(samples) >= MOST_SAMPLES else None


def location_error_pct(samples: Sequence[Sample], name: str) -> float:
    """Standard error of the trimmed mean of `name` over `samples`, in percent of it.

    From the median absolute difference between neighbouring generations, step by step: the steps of one
    generation differ in a pattern that repeats, which is not noise, and stalls are rare. A single
    sample has no such error: infinite.
    """
    if len(samples) < 2:
        return math.inf
    steps = [values_of(name, sample) for sample in samples]
    apart = [abs(b - a) for one, next_ in pairwise(steps) for a, b in zip(one, next_, strict=False)]
    sd = MAD_TO_SD * statistics.median(apart) / math.sqrt(2)
    values = [value for each in steps for value in each]
    return 100.0 * TRIMMED_ERROR * sd / math.sqrt(len(values)) / trimmed_mean(values)


def generation_noise_pct(run: Run) -> float:
    """How far the steps of a process's generations lie apart: the largest of all processes, in percent.

    1.4826 x the median absolute deviation, which estimates a standard deviation and is not moved by one
    stalled generation. 0 where the processes hold fewer than three generations with steps, of denoising or
    of training.
    """
    spreads_pct = (_spread_pct(process, name) for process in run.processes for name in (STEP, TRAIN_STEP))
    return max(spreads_pct, default=0.0)


def _spread_pct(process: Process, name: str) -> float:
    medians = [
        statistics.median(sample.values[name]) for sample in process.samples if sample.values.get(name)
    ]
    if len(medians) < 3:
        return 0.0
    centre = statistics.median(medians)
    return MAD_TO_SD * statistics.median(abs(value - centre) for value in medians) / centre * 100.0
