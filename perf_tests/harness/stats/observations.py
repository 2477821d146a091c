"""Samples in, one statistic per process out; pure. A value that was not measured is named, never invented."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from perf_tests.harness.records.fidelity import Fidelity
from perf_tests.harness.runs import stalls
from perf_tests.harness.runs.record import Process, Run
from perf_tests.harness.runs.validity import SAMPLE_CLOCK
from perf_tests.harness.stats import over_images
from perf_tests.harness.stats.location import geometric_mean, trimmed_mean
from perf_tests.protocol.reports import LayerError, Sample
from perf_tests.tables.metrics.spec import IDENTICAL_DB, Metric, Reader, Trait

REFERENCE_FAILED = "the bf16 reference {} failed: "  # begins the reason why nothing was compared with it


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """One statistic per process in the metric's units, or why there is none."""

    values: tuple[float, ...] = ()
    """Empty where `missing` says why."""
    missing: str | None = None
    """A sentence naming the metric and what was found instead."""


class NotMeasured(Exception):
    """A process, or the run it is compared with, does not have what a metric needs."""


def observe(metric: Metric, run: Run, reference: Run | None) -> Observation:
    """The statistic of `metric` for each process of `run`, or for each of its pairs of prompt and seed.

    One process without it makes the whole observation missing, unless the metric says that some processes are
    enough. `reference` is the bf16 twin's run, None where there is none.
    """
    reading = READERS[metric.reader]
    values: list[float] = []
    gaps: list[str] = []
    for number, process in enumerate(reading.processes(run), start=1):
        try:
            values += [_finite(metric, each) for each in reading.read(metric, process, reference)]
        except NotMeasured as gap:
            gaps.append(f"process {number}: {gap}")
    if values and (metric.some_processes or not gaps):
        return Observation(values=tuple(values))
    why = gaps[0] if gaps else reading.absence(reference)
    return Observation(missing=f"{metric.name} of {run.id} is missing: {why}")


def _finite(metric: Metric, value: float) -> float:
    if not math.isfinite(value):
        raise NotMeasured(f"{metric.name} is {value}, not a finite number")
    if metric.is_noisy and value <= 0:
        raise NotMeasured(f"{metric.name} is {value}, which has no relative change")
    return float(value)


# One function per Reader: the values of one process


def _samples(metric: Metric, process: Process, _reference: Run | None) -> float:
    return _statistic(metric.name, process)


def _every_sample(metric: Metric, process: Process, _reference: Run | None) -> tuple[float, ...]:
    samples = (*process.warmups, *process.samples, *process.retaken)
    if not process.samples:
        raise NotMeasured("it has no samples")
    return tuple(sorted({value for sample in samples for value in values_of(metric.name, sample)}))


def _build(metric: Metric, process: Process, _reference: Run | None) -> float:
    values = process.build.values
    if metric.name in process.build.uncounted:
        raise NotMeasured(process.build.uncounted[metric.name])
    if metric.name not in values:
        raise NotMeasured(f"the worker reported no {metric.name}, only {_listed(values)}")
    return values[metric.name]


def _twin_ratio(metric: Metric, process: Process, _reference: Run | None) -> float:
    samples, twins = process.samples, process.twin_samples
    if len(samples) != len(twins):
        raise NotMeasured(f"{len(samples)} samples do not pair up with {len(twins)} of the fp32 twin")
    of = _of(metric)
    pairs = zip(samples, twins, strict=True)
    return _median(of, tuple(_ratio(of, *(_of_sample(of, each) for each in pair)) for pair in pairs))


def _reference_ratio(metric: Metric, process: Process, reference: Run | None) -> float:
    if reference is None:
        raise NotMeasured("the bf16 reference was not measured")
    if reference.failure is not None or reference.status.is_error or not reference.processes:
        why = reference.failure.message if reference.failure else reference.reason or reference.status
        raise NotMeasured(REFERENCE_FAILED.format(reference.id) + why)
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
    if len(process.samples) == len(by_pair):
        raise NotMeasured(f"its samples repeat no prompt and seed, and there are {len(by_pair)} of them")
    return float(max(map(len, by_pair.values())))


def _growth(metric: Metric, process: Process, _reference: Run | None) -> float:
    of = _of(metric)
    values = [_of_sample(of, sample) for sample in _images(process)]
    if len(values) < over_images.FROM_SECOND:
        raise NotMeasured(f"{len(values)} samples do not show what grows from the second to the last")
    return over_images.growth_per_image(values)


def _trend(_metric: Metric, process: Process, _reference: Run | None) -> float:
    images = _images(process)
    if len(images) < over_images.TREND_IMAGES:
        raise NotMeasured(f"{len(images)} samples do not show a trend")
    if (
        process.warmups and images[0] is process.warmups[0]
    ):  # it fills caches, and takes longer than any trend would let it
        images = images[1:]
    clocks_mhz = over_images.medians([each.values.get(SAMPLE_CLOCK, ()) for each in images])
    return over_images.trend_pct(_generations_s(images), clocks_mhz)


def _images(process: Process) -> Sequence[Sample]:
    """The timed images of a process, one after another; where they are few, with the warm-ups before them."""
    missing = over_images.TREND_IMAGES - len(process.samples)
    return (*process.warmups[-missing:], *process.samples) if missing > 0 else process.samples


def _stalls(_metric: Metric, process: Process, _reference: Run | None) -> float:
    _generations_s(process.samples)  # raises where one of them has no time
    return float(len(stalls.of_process(process)))


def _generations_s(samples: Sequence[Sample]) -> list[float]:
    if not samples:
        raise NotMeasured("it has no samples")
    found = [stalls.generation_s(sample) for sample in samples]
    seconds = [each for each in found if each is not None and math.isfinite(each) and each > 0]
    if len(seconds) < len(samples):
        raise NotMeasured("a sample has no latency_s")
    return seconds


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
        raise NotMeasured(
            f"the output is not a video, or its reference does not move: it has no {metric.name}"
        )
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


def _pairs(metric: Metric, process: Process, _reference: Run | None) -> tuple[float, ...]:
    assert process.fidelity is not None, "processes without a comparison are left out by observe()"
    # Where there is a single pair, a comparison holds it alone, under the metric's own name.
    single = (getattr(process.fidelity, metric.name),)
    return tuple(_unlike(metric, process, each) for each in getattr(process.fidelity, metric.field) or single)


def _unlike(metric: Metric, process: Process, value: float | None) -> float:
    """`value`, or what stands for the PSNR of a pair without any difference, where there need be none."""
    if value is None and not _quantizes(process):
        return IDENTICAL_DB
    if value is None:
        # Not a perfect score: a quantized pipeline that gives the very same bits was not quantized.
        raise NotMeasured(f"the output is identical to the bf16 reference: {metric.name} is infinite")
    return value


def _quantizes(process: Process) -> bool:
    """Whether anything was to be quantized; a process that does not say so is taken to."""
    quantization = process.build.quantization
    return quantization is None or quantization.expected_modules > 0


# Which processes are read, and why there are none


def _all_processes(run: Run) -> tuple[Process, ...]:
    return run.processes


def _none_measured(_reference: Run | None) -> str:
    return "no process was measured"


def _compared(run: Run) -> tuple[Process, ...]:
    # Only the first process of a case captures its output: the others have nothing to compare.
    return tuple(process for process in run.processes if process.fidelity is not None)


def _first_compared(run: Run) -> tuple[Process, ...]:
    return _compared(run)[:1]


def _none_compared(reference: Run | None) -> str:
    if reference is not None and reference.failure is not None:
        return REFERENCE_FAILED.format(reference.id) + reference.failure.message
    return "no output was compared with the bf16 reference's"


def _compared_with_eager(run: Run) -> tuple[Process, ...]:
    return tuple(process for process in run.processes if process.noise is not None)


def _none_compared_with_eager(_reference: Run | None) -> str:
    return "no process was compared with itself before it was compiled"


Read = Callable[[Metric, Process, Run | None], tuple[float, ...]]
"""The values of one process; the run is the bf16 reference's. Raises NotMeasured."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Reading:
    """How the readers of one kind find the values of a run."""

    read: Read
    processes: Callable[[Run], tuple[Process, ...]] = _all_processes
    """Those that have what is read."""
    absence: Callable[[Run | None], str] = _none_measured
    """Why there are none of these processes, given the bf16 reference's run."""


def _single(read: Callable[[Metric, Process, Run | None], float]) -> Read:
    return lambda metric, process, reference: (read(metric, process, reference),)


READERS: Mapping[Reader, Reading] = {
    Reader.SAMPLES: Reading(read=_single(_samples)),
    Reader.EVERY_SAMPLE: Reading(read=_every_sample),
    Reader.BUILD: Reading(read=_single(_build)),
    Reader.TWIN_RATIO: Reading(read=_single(_twin_ratio)),
    Reader.REFERENCE_RATIO: Reading(read=_single(_reference_ratio)),
    Reader.OUTPUTS: Reading(read=_single(_outputs)),
    Reader.GROWTH: Reading(read=_single(_growth)),
    Reader.TREND: Reading(read=_single(_trend)),
    Reader.STALLS: Reading(read=_single(_stalls)),
    Reader.LAYERS: Reading(read=_single(_layers)),
    Reader.CAPTURE: Reading(read=_single(_capture), processes=_compared, absence=_none_compared),
    Reader.PAIRS: Reading(read=_pairs, processes=_first_compared, absence=_none_compared),
    Reader.NOISE: Reading(
        read=_single(_noise), processes=_compared_with_eager, absence=_none_compared_with_eager
    ),
}


# What the readers share


def _of(metric: Metric) -> str:
    assert metric.of is not None, f"the row of {metric.name} does not say what it is a ratio of"
    return metric.of


def _statistic(name: str, process: Process) -> float:
    per_sample = tuple(values_of(name, sample) for sample in process.samples)
    return _located(trimmed_mean, name, tuple(value for values in per_sample for value in values))


def _of_sample(name: str, sample: Sample) -> float:
    return _median(name, values_of(name, sample))


def values_of(name: str, sample: Sample) -> tuple[float, ...]:
    """What `sample` reported as `name`, one value or more; raises NotMeasured where it reported none."""
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
