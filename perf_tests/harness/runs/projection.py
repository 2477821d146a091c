"""The latency of a long generation, composed from the stages of a short one; pure.

    latency = encode + first step + (n - 1) x steady step + decode

n is the workload's number of steps, the steady step is the mean of the measured ones, stalls left out: those
more than `STALL_PCT` above the median count as the median. A mean, because steps of one generation differ by
up to 6 % in a pattern that repeats (at the power cap, clocks follow the data, which is noise at first and a
picture at last), and a short schedule visits the same range of noise as a long one. It holds because a
diffusion pipeline calls one network of fixed shapes n times, with a scheduler update that costs next to
nothing: only the first call pays for what is done once a generation (allocator, caches, the queue's start).

Where it does not hold:
- Schedulers whose steps differ in network calls (Heun, PNDM's Runge-Kutta start). One whose steps differ in
  order only (DPM-Solver++ starts and ends with first-order updates) differs by a few pointwise kernels.
- Pipelines that switch within a generation: guidance or an adapter only up to some step, step caching, a
  second expert. Guidance that stays (CFG) is in each step alike; dynamic CFG changes a scalar.
- A GPU that heats up or meets its power cap only after many steps: a short generation sees the clocks of a
  short load. The warm-ups (`is_steady`) and back-to-back samples bring it to those of a long one.
- Stalls of the host: they are left out, a full generation of many steps has its share. What waits for its
  host, as FLUX.1-dev in fp8 at batch 1, is 1 to 2 % slower in full: the matrix measures it in full.

`tools/projection.py` holds composed latencies beside those of full generations.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence

import msgspec

from perf_tests.protocol.reports import Sample
from perf_tests.tables.pipelines.spec import Workload

STALL_PCT = 8.0
"""Beyond the median, a step waited for the host: its own variation is smaller, a stall costs more."""
MAX_WARMUPS = 3
"""A process that is not steady by then is measured as it is; its noise is judged like any other's."""
STEADY_PCT = 1.0
"""Generations of a warm GPU mostly differ by less; those during which it heats up, by more."""

Values = Mapping[str, tuple[float, ...]]

LATENCIES = {"latency_s": "measured_latency_s", "device_latency_s": "measured_device_latency_s"}
"""What is composed -> the name under which the value of the shorter generation is kept."""


def composed(sample: Sample, workload: Workload) -> Sample:
    """`sample` with the latencies in seconds that all `workload.steps` would take.

    `latency_s` is `device_latency_s` plus the host's share of the measured generation, which is paid once.
    A latency whose parts were not measured is left out. A sample of all steps is returned as it is.
    """
    if workload.measured_steps is None:
        return sample
    kept = {LATENCIES.get(name, name): value for name, value in sample.values.items()}
    return msgspec.structs.replace(sample, values={**kept, **_latencies(sample.values, workload.steps)})


def is_steady(samples: Sequence[Sample]) -> bool:
    """Whether the last two generations took the same time a step: another warm-up would change nothing."""
    steps = [sample.values.get("denoise_step_ms", ()) for sample in samples[-2:]]
    if len(steps) < 2 or not all(steps):
        return False
    before_ms, last_ms = map(statistics.median, steps)
    return abs(last_ms - before_ms) <= before_ms * STEADY_PCT / 100


def steady_step_ms(steps_ms: Sequence[float]) -> float:
    """The mean of `steps_ms`, in which a stalled step counts as the median."""
    median_ms = statistics.median(steps_ms)
    stalled_ms = median_ms * (1 + STALL_PCT / 100)
    return statistics.fmean(median_ms if step_ms > stalled_ms else step_ms for step_ms in steps_ms)


def _latencies(values: Values, steps: int) -> dict[str, tuple[float, ...]]:
    stages = [values.get(name, ()) for name in ("encode_ms", "first_step_ms", "denoise_step_ms", "decode_ms")]
    if not all(stages):
        return {}
    encode_ms, first_ms, _, decode_ms = map(statistics.median, stages)
    device_s = (encode_ms + first_ms + (steps - 1) * steady_step_ms(stages[2]) + decode_ms) / 1e3
    whole, device = (values.get(name, ()) for name in LATENCIES)
    if not whole or not device:
        return {"device_latency_s": (device_s,)}
    host_s = max(0.0, whole[0] - device[0])
    return {"device_latency_s": (device_s,), "latency_s": (device_s + host_s,)}
