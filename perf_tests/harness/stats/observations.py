"""Samples in, one statistic per process out; pure. What was not measured is said, never invented."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from perf_tests.harness.runs.record import Fidelity, Process, Run, SamplingEnd
from perf_tests.protocol.reports import LayerError, Sample
from perf_tests.tables.metrics.spec import IDENTICAL_DB, STEP, Metric, Reader, Trait
from perf_tests.tables.platforms import Noise

TRIMMED = 0.1
"""The share of the values which a trimmed mean leaves out at each end."""
TRIMMED_ERROR = 1.03
"""Standard error of a trimmed mean over that of a mean, of normal values."""
WITHIN_SHARE = 0.4
"""A process is sampled until the error of its statistic is this share of the noise between processes, which
that error then widens by less than a tenth."""
MOST_SAMPLES = 9
"""Timed generations of a process, whatever they show."""
SLOW_GENERATION_S = 6.0
"""A generation of more is not repeated for precision: it would cost a process more than a minute."""
MAD_TO_SD = 1.4826
"""Standard deviations in a median absolute deviation of normal values."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """One statistic per process in the metric's unit, or why there is none."""

    values: tuple[float, ...] = ()
    """Empty where `missing` says why."""
    missing: str | None = None
    """A sentence naming the metric and what was found instead."""


class NotMeasured(Exception):
    """A process, or the run it is compared with, does not have what a metric needs."""


def observe(metric: Metric, run: Run, reference: Run | None) -> Observation:
    """The statistic of `metric` for each process of `run`.

    One process without it makes the whole observation missing, unless the metric says that some
    processes are enough. `reference` is the bf16 twin's run, None where there is none.
    """
    if metric.reader is Reader.PAIRS:
        return _observed_pairs(metric, run, reference)
    values: list[float] = []
    gaps: list[str] = []
    for number, process in enumerate(_reporting(metric, run), start=1):
        try:
            values.append(_finite(metric, READERS[metric.reader](metric, process, reference)))
        except NotMeasured as gap:
            gaps.append(f"process {number}: {gap}")
    if values and (metric.some_processes or not gaps):
        return Observation(values=tuple(values))
    return Observation(missing=f"{metric.name} of {run.id} is missing: {_why(metric, gaps, reference)}")


def _observed_pairs(metric: Metric, run: Run, reference: Run | None) -> Observation:
    compared = _reporting(metric, run)
    try:
        if compared and compared[0].fidelity:
            # A record from before there were several pairs has the first alone, under the metric's own name.
            single = (getattr(compared[0].fidelity, metric.name),)
            values = getattr(compared[0].fidelity, metric.field) or single
            return Observation(
                values=tuple(_finite(metric, _unlike(metric, compared[0], each)) for each in values)
            )
        gaps = []
    except NotMeasured as gap:
        gaps = [f"process 1: {gap}"]
    return Observation(missing=f"{metric.name} of {run.id} is missing: {_why(metric, gaps, reference)}")


def trimmed_mean(values: Sequence[float]) -> float:
    """The mean without the tenth of the values at each end, rounded up, as long as one or two remain.

    The statistic of a process: as a median it withstands host stalls, single steps of several times the
    others' time, and its variance is 1.06 times that of a mean of undisturbed steps, a median's 1.57. Of
    three or four values it is the median.
    """
    ordered = sorted(values)
    left_out = min(math.ceil(TRIMMED * len(ordered)), (len(ordered) - 1) // 2)
    return statistics.fmean(ordered[left_out : len(ordered) - left_out])


def log_mean(values: Sequence[float]) -> float:
    """The mean of the logarithms, in whatever order; ValueError for a value that is not positive."""
    for value in values:
        if not (math.isfinite(value) and value > 0):
            raise ValueError(f"{value} has no relative change: a noisy metric is a positive number")
    return math.fsum(map(math.log, values)) / len(values)


def geometric_mean(values: Sequence[float]) -> float:
    """The value whose logarithm is their `log_mean`; ValueError for a value that is not positive."""
    # One value, or several that are the same, exactly: not what exp(log(value)) makes of it.
    return values[0] if len(set(values)) == 1 else math.exp(log_mean(values))


def log_variance(values: Sequence[float]) -> float:
    """The sample variance of the logarithms of two or more positive values, in whatever order."""
    mean = log_mean(values)
    return math.fsum((math.log(value) - mean) ** 2 for value in values) / (len(values) - 1)


def pooled_noise(groups: Iterable[Sequence[float]], prior: Noise) -> Noise:
    """The noise that the `groups` share, each the processes of one case: sum of squares over sum of degrees.

    `prior` counts as one more group: what the platform is known for before it has baselines. A group of one
    process tells nothing.
    """
    degrees, squares = prior.dof, prior.dof * prior.sd_pct**2
    for values in groups:
        if len(values) > 1:
            degrees += len(values) - 1
            squares += (len(values) - 1) * log_variance(values) * 100.0**2
    return Noise(sd_pct=math.sqrt(squares / degrees), dof=degrees)


def _reporting(metric: Metric, run: Run) -> tuple[Process, ...]:
    # Only the first process of a case captures its output: the others have nothing to compare.
    if metric.reader in (Reader.CAPTURE, Reader.PAIRS):
        return tuple(process for process in run.processes if process.fidelity is not None)
    if metric.reader is Reader.NOISE:
        return tuple(process for process in run.processes if process.noise is not None)
    return run.processes


def _why(metric: Metric, gaps: list[str], reference: Run | None) -> str:
    if gaps:
        return gaps[0]
    if metric.reader is Reader.NOISE:
        return "no process was compared with itself before it was compiled"
    if metric.reader not in (Reader.CAPTURE, Reader.PAIRS):
        return "no process was measured"
    if reference is not None and reference.failure is not None:
        return f"the bf16 reference {reference.id} failed: {reference.failure.message}"
    return "no output was compared with the bf16 reference's"


def _finite(metric: Metric, value: float) -> float:
    if not math.isfinite(value):
        raise NotMeasured(f"{metric.name} is {value}, not a finite number")
    if metric.is_noisy and value <= 0:
        raise NotMeasured(f"{metric.name} is {value}, which has no relative change")
    return float(value)


# One reader per Source


def _samples(metric: Metric, process: Process, _reference: Run | None) -> float:
    return _statistic(metric.name, process)


def _build(metric: Metric, process: Process, _reference: Run | None) -> float:
    values = process.build.values
    if metric.name not in values:
        raise NotMeasured(f"the worker reported no {metric.name}, only {_listed(values)}")
    return values[metric.name]


def _twin_ratio(metric: Metric, process: Process, _reference: Run | None) -> float:
    samples, twins = process.samples, process.twin_samples
    if len(samples) != len(twins):
        raise NotMeasured(f"{len(samples)} samples stand beside {len(twins)} of the fp32 twin")
    of = _of(metric)
    return _median(
        of,
        tuple(
            _ratio(of, _of_sample(of, sample), _of_sample(of, twin))
            for sample, twin in zip(samples, twins, strict=True)
        ),
    )


def _reference_ratio(metric: Metric, process: Process, reference: Run | None) -> float:
    if reference is None:
        raise NotMeasured("the bf16 reference was not measured")
    if reference.failure is not None or reference.status.is_error or not reference.processes:
        why = reference.failure.message if reference.failure else reference.reason or reference.status
        raise NotMeasured(f"the bf16 reference {reference.id} failed: {why}")
    of = _of(metric)
    by_process = tuple(_statistic(of, each) for each in reference.processes)
    if min(by_process) <= 0:
        raise NotMeasured(f"{of} of the bf16 reference was reported as {min(by_process)}")
    return _ratio(of, geometric_mean(by_process), _statistic(of, process))


def _outputs(_metric: Metric, process: Process, _reference: Run | None) -> float:
    if not process.samples:
        raise NotMeasured("it has no samples")
    by_pair: dict[int, set[str]] = {}
    for sample in process.samples:
        by_pair.setdefault(sample.pair, set()).add(sample.output_sha256)
    if 1 < len(process.samples) == len(by_pair):
        raise NotMeasured(f"none of its {len(process.samples)} samples repeats a prompt and seed")
    return float(max(map(len, by_pair.values())))


def layer_values(metric: Metric, layers: Mapping[str, LayerError]) -> dict[str, float]:
    """Layer -> its value of the metric; without those that have none."""
    found = {name: getattr(error, metric.field) for name, error in layers.items()}
    return {name: value for name, value in found.items() if value is not None}


def _layers(metric: Metric, process: Process, _reference: Run | None) -> float:
    values = layer_values(metric, process.build.layers)
    if not values:
        raise NotMeasured(f"the worker reported {len(process.build.layers)} layers, and no {metric.name}")
    for name, value in values.items():  # the largest of all would hide a NaN
        if not math.isfinite(value):
            raise NotMeasured(f"{metric.name} of {name} was reported as {value}")
    return max(values.values(), key=metric.badness)


def _of_comparison(metric: Metric, comparison: Fidelity) -> float | None:
    """The metric's field of `comparison`: of several values, one for each step, the lowest."""
    value: float | tuple[float, ...] | None = getattr(comparison, metric.field)
    return min(value, default=None) if isinstance(value, tuple) else value


def _capture(metric: Metric, process: Process, _reference: Run | None) -> float:
    assert process.fidelity is not None, "processes without a comparison are left out by observe()"
    value = _of_comparison(metric, process.fidelity)
    if value is None and Trait.VIDEO in metric.only_for:
        raise NotMeasured(f"the output is no video, or its reference does not move: it has no {metric.name}")
    if value is None:
        raise NotMeasured(f"the transformer was not asked again: it has no {metric.name}")
    return value


def _noise(metric: Metric, process: Process, _reference: Run | None) -> float:
    assert process.noise is not None, "processes without a comparison are left out by observe()"
    # Of all fields, PSNR alone is infinite where the outputs are the same.
    if process.noise.identical and metric.field == "psnr_db":
        return IDENTICAL_DB
    value = _of_comparison(metric, process.noise)
    if value is None:
        raise NotMeasured(f"the transformer was not asked again: it has no {metric.name}")
    return value


def _unlike(metric: Metric, process: Process, value: float | None) -> float:
    """`value`, or what stands for the PSNR of a pair without any difference, where there need be none."""
    if value is None and not _quantizes(process):
        return IDENTICAL_DB
    if value is None:
        # Not a perfect score: a quantized pipeline which gives the very same bits was not quantized.
        raise NotMeasured(f"the output is identical to the bf16 reference: {metric.name} is infinite")
    return value


def _quantizes(process: Process) -> bool:
    """Whether anything was to be quantized; a process that does not say so is taken to."""
    quantization = process.build.quantization
    return quantization is None or quantization.expected_modules > 0


READERS: dict[Reader, Callable[[Metric, Process, Run | None], float]] = {
    Reader.SAMPLES: _samples,
    Reader.BUILD: _build,
    Reader.TWIN_RATIO: _twin_ratio,
    Reader.REFERENCE_RATIO: _reference_ratio,
    Reader.OUTPUTS: _outputs,
    Reader.LAYERS: _layers,
    Reader.CAPTURE: _capture,
    Reader.NOISE: _noise,
}


# What the readers share


def _of(metric: Metric) -> str:
    assert metric.of is not None, f"the row of {metric.name} does not say what it is a ratio of"
    return metric.of


def _statistic(name: str, process: Process) -> float:
    per_sample = tuple(_values(name, sample) for sample in process.samples)
    return _located(trimmed_mean, name, tuple(value for values in per_sample for value in values))


def _of_sample(name: str, sample: Sample) -> float:
    return _median(name, _values(name, sample))


def _values(name: str, sample: Sample) -> tuple[float, ...]:
    values = sample.values.get(name, ())
    if not values:
        raise NotMeasured(f"a sample has no {name}, only {_listed(sample.values)}")
    return values


def _median(name: str, values: tuple[float, ...]) -> float:
    return _located(statistics.median, name, values)


def _located(location: Callable[[Sequence[float]], float], name: str, values: tuple[float, ...]) -> float:
    if not values:
        raise NotMeasured("it has no samples")
    for value in values:  # a median would hide a NaN anywhere but in the middle
        if not math.isfinite(value):
            raise NotMeasured(f"{name} was reported as {value}")
    return location(values)


def _ratio(name: str, numerator: float, denominator: float) -> float:
    if denominator <= 0:
        raise NotMeasured(f"{name} was reported as {denominator}")
    return numerator / denominator


def _listed(names: Iterable[str]) -> str:
    return ", ".join(sorted(names)) or "nothing"


def sampling_end(samples: Sequence[Sample], noise_pct: Mapping[str, float], least: int) -> SamplingEnd | None:
    """Whether the `samples` of a process suffice; None: one more.

    `noise_pct` is the noise between processes of each metric that has to be precise; with none of them, or a
    generation that is slow or lacks one, `least` samples are enough.
    """
    if len(samples) < least:
        return None
    try:
        errors_pct = {name: location_error_pct(samples, name) for name in noise_pct}
    except NotMeasured:
        return SamplingEnd.FIXED
    if not errors_pct or _generation_s(samples[-1]) > SLOW_GENERATION_S:
        return SamplingEnd.FIXED
    if all(errors_pct[name] <= WITHIN_SHARE * between_pct for name, between_pct in noise_pct.items()):
        return SamplingEnd.PRECISE
    return SamplingEnd.MOST if len(samples) >= MOST_SAMPLES else None


def _generation_s(sample: Sample) -> float:
    """What the generation itself took, where `latency_s` is composed for more steps; 0 where it is not
    known."""
    names = [name for name in ("measured_latency_s", "latency_s") if sample.values.get(name)]
    return sample.values[names[0]][0] if names else 0.0


def location_error_pct(samples: Sequence[Sample], name: str) -> float:
    """Standard error of the trimmed mean of `name` over `samples`, in percent of it.

    From the median absolute difference between neighbouring generations, step by step: the steps of one
    generation differ in a pattern that repeats, which is no noise, and a stall is not the rule. A single
    sample has no such error: infinite.
    """
    if len(samples) < 2:
        return math.inf
    steps = [_values(name, sample) for sample in samples]
    apart = [abs(b - a) for one, next_ in pairwise(steps) for a, b in zip(one, next_, strict=False)]
    sd = MAD_TO_SD * statistics.median(apart) / math.sqrt(2)
    values = [value for each in steps for value in each]
    return 100.0 * TRIMMED_ERROR * sd / math.sqrt(len(values)) / trimmed_mean(values)


def generation_noise_pct(run: Run, name: str = STEP) -> float:
    """How far the generations of a process lie apart: the largest of all processes, in percent.

    1.4826 x the median absolute deviation, which estimates a standard deviation and is not moved by one
    stalled generation. 0 where the processes hold fewer than three generations with `name`.
    """
    return max((_spread_pct(process, name) for process in run.processes), default=0.0)


def _spread_pct(process: Process, name: str) -> float:
    medians = [
        statistics.median(sample.values[name]) for sample in process.samples if sample.values.get(name)
    ]
    if len(medians) < 3:
        return 0.0
    centre = statistics.median(medians)
    return MAD_TO_SD * statistics.median(abs(value - centre) for value in medians) / centre * 100.0
