"""The latency of a long generation, composed from the stages of a short one; pure.

    latency = encode + first step + (n - 1) x steady step + decode

n is the workload's number of steps. The steady step is the mean of the measured ones without stalls: a step
more than `STALL_PCT` above the median counts as the median. It is a mean because the steps of one generation
differ by up to 6 % in a pattern that repeats (at the power cap, clocks follow the data, which starts as noise
and ends as a picture), and a short schedule covers the same range of noise as a long one. The formula holds
because a diffusion pipeline calls one network of fixed shapes n times, with a scheduler update that costs
next to nothing: only the first call pays for what happens once per generation (allocator, caches, filling
the queue).

It does not hold for:
- Schedulers whose steps make different numbers of network calls (Heun, PNDM's Runge-Kutta start). One whose
  steps only differ in order (DPM-Solver++ starts and ends with first-order updates) is off by a few pointwise
  kernels.
- Pipelines that change within a generation: guidance or an adapter only up to some step, step caching, a
  second expert. Constant guidance (CFG) is the same in each step; dynamic CFG only changes a scalar.
- A GPU that heats up or reaches its power cap only after many steps: a short generation sees the clocks of a
  short load. The warm-ups (`is_steady`) and back-to-back samples bring it to the clocks of a long one.
- Stalls of the host: they are left out, while a full generation has its share of them. A case that waits for
  its host, such as FLUX.1-dev in fp8 at batch 1, is 1 to 2 % slower in full; the matrix measures it in full.

`tools/projection.py` compares composed latencies with those of full generations.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence

import msgspec

from perf_tests.protocol.reports import Sample
from perf_tests.tables.cases import Case
from perf_tests.tables.metrics.spec import STAGES, STEP
from perf_tests.tables.pipelines.spec import PROMPTS, Workload
from perf_tests.tables.platforms import Platform

STALL_PCT = 8.0
"""A step this far above the median waited for the host: steps vary by less, and a stall costs more."""
MAX_WARMUPS = 3
"""A process that is not steady by then is measured as it is; its noise is judged like that of any other."""
STEADY_PCT = 1.0
"""Generations on a warm GPU mostly differ by less than this; while it heats up they differ by more."""

COMPOSED_PAIRS = 2
"""Pairs of prompt and seed of a composed row: large batches, schemes with slow steps, videos. They show the
same code as the rows that generate all steps, and take up to half a minute each.

A baseline of four videos holds means over the frames of all of them: the only one there is, `cogvideox-2b` in
fp16, is to be recorded again for another reason.
"""

Values = Mapping[str, tuple[float, ...]]

LATENCIES = {"latency_s": "measured_latency_s", "device_latency_s": "measured_device_latency_s"}
"""Composed latency -> the name under which the measured value of the shorter generation is kept."""


def composed(sample: Sample, workload: Workload) -> Sample:
    """`sample` with the latencies in seconds that a generation of all `workload.steps` would have.

    `latency_s` is `device_latency_s` plus the host's share of the measured generation, which is paid once. A
    latency whose parts were not measured is left out. A sample of all steps is returned unchanged.
    """
    if workload.measured_steps is None:
        return sample
    kept = {LATENCIES.get(name, name): value for name, value in sample.values.items()}
    return msgspec.structs.replace(sample, values={**kept, **_latencies(sample.values, workload.steps)})


def is_steady(samples: Sequence[Sample]) -> bool:
    """Whether the last two generations took the same time per step, so that another warm-up is not needed."""
    steps = [sample.values.get(STEP, ()) for sample in samples[-2:]]
    if len(steps) < 2 or not all(steps):
        return False
    before_ms, last_ms = map(statistics.median, steps)
    return abs(last_ms - before_ms) <= before_ms * STEADY_PCT / 100


def steady_step_ms(steps_ms: Sequence[float]) -> float:
    """The mean of `steps_ms`, counting a stalled step as the median."""
    median_ms = statistics.median(steps_ms)
    stalled_ms = median_ms * (1 + STALL_PCT / 100)
    return statistics.fmean(median_ms if step_ms > stalled_ms else step_ms for step_ms in steps_ms)


def _latencies(values: Values, steps: int) -> dict[str, tuple[float, ...]]:
    stages = [values.get(name, ()) for name in STAGES]
    if not all(stages):
        return {}
    encode_ms, first_ms, _, decode_ms = map(statistics.median, stages)
    device_s = (encode_ms + first_ms + (steps - 1) * steady_step_ms(stages[2]) + decode_ms) / 1e3
    whole, device = (values.get(name, ()) for name in LATENCIES)
    if not whole or not device:
        return {"device_latency_s": (device_s,)}
    host_s = max(0.0, whole[0] - device[0])
    return {"device_latency_s": (device_s,), "latency_s": (device_s + host_s,)}


def pairs(case: Case, platform: Platform) -> int:
    """How many pairs of prompt and seed a process of `case` generates, in turn."""
    return COMPOSED_PAIRS if _has_few_pairs(case, platform) else PROMPTS


def least_samples(case: Case, platform: Platform) -> int:
    """Timed generations of a process of `case`, at least: on a GPU each pair, and the first again."""
    least = COMPOSED_PAIRS + 1 if _has_few_pairs(case, platform) else platform.samples
    return min(platform.samples, least)


def _has_few_pairs(case: Case, platform: Platform) -> bool:
    return case.workload.measured_steps is not None and not platform.interleave_twin
