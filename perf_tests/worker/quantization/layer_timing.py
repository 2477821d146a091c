"""How long one Linear module takes under one scheme, by the device's clock."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from functools import partial

import torch
from torch import nn

from perf_tests.tables.schemes.spec import Scheme
from perf_tests.worker.measure.clock import Clock
from perf_tests.worker.model import compile as compiling
from perf_tests.worker.quantization import one_layer
from perf_tests.worker.quantization.apply import REFUSALS

REPEATS = 21
"""Timed calls, of which the median counts; one more call before them compiles and allocates."""

GIVE_UP_RATIO = 10.0
GIVE_UP_CALLS = 2
"""A candidate is given up when each of its first `GIVE_UP_CALLS` timed calls takes more than `GIVE_UP_RATIO`
times as long as the unquantized layer; a single slow call may be the host's fault."""

# Overwritten before each timed call: the caches (50 MB on an H100) then hold nothing of the previous call,
# and in the 0.2 ms that this takes (at 3 TB/s) the host runs ahead: its time is not in the device's.
FLUSH_BYTES = 512 << 20

Measure = Callable[[Callable[[], object]], float]
"""Makes one call and returns how many milliseconds it took."""


class CallTimer:
    """Times one call between two marks of a clock, as the stages of a generation are timed."""

    def __init__(self, clock: Clock, device: torch.device) -> None:
        self._clock = clock
        size = FLUSH_BYTES if device.type == "cuda" else 0
        self._flushed = torch.empty(size, dtype=torch.int8, device=device)

    def __call__(self, call: Callable[[], object]) -> float:
        self._flushed.zero_()
        start = self._clock.mark()
        call()
        end = self._clock.mark()
        self._clock.synchronize()
        return start.until_ms(end)


def timed(
    scheme: Scheme,
    module: nn.Linear,
    rows: torch.Tensor,
    measure: Measure,
    *,
    compiles: bool,
    rival_ms: float | None,
) -> tuple[float | None, str | None]:
    """Median milliseconds of `module` under `scheme`, or None and why there is none.

    `rival_ms` is what the unquantized layer takes; None for that layer itself, whose errors are not caught.
    """
    try:
        layer = one_layer.detached(module) if scheme.config is None else one_layer.quantized(module, scheme)
        call: Callable[[], object] = partial(
            torch.compile(layer, **compiling.OPTIONS) if compiles else layer, rows
        )
        with torch.no_grad():
            return median_ms(measure, device_work(call, rows.device) if compiles else call, rival_ms)
    except torch.OutOfMemoryError:
        raise
    except REFUSALS as error:
        if rival_ms is None:
            raise
        return None, one_layer.first_line(error)
    finally:
        if compiles:
            # To dynamo all layers are one function, and beyond a few graphs of one function it runs eager.
            torch.compiler.reset()


def device_work(call: Callable[[], object], device: torch.device) -> Callable[[], object]:
    """The device work of `call` without the host's: a CUDA graph of it; on a CPU `call` itself.

    A layer inside a compiled block waits for nothing, but a layer compiled by itself waits for its guards and
    launches: 0.1 to 0.4 ms on an H100, as long as most layers of FLUX.1-dev take.
    """
    if device.type != "cuda":
        return call
    # Compiles and initialises all libraries before the capture.
    for _ in range(2):
        call()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        call()
    return graph.replay


def median_ms(
    measure: Measure, call: Callable[[], object], rival_ms: float | None
) -> tuple[float | None, str | None]:
    """The median of `REPEATS` calls in milliseconds, or None and why the candidate was given up."""
    measure(call)
    first_ms = [measure(call) for _ in range(GIVE_UP_CALLS)]
    if rival_ms is not None and min(first_ms) > GIVE_UP_RATIO * rival_ms:
        return None, (
            f"given up: a call takes {min(first_ms):.3g} ms, and {rival_ms:.3g} ms unquantized, more than "
            f"{GIVE_UP_RATIO:g} times less"
        )
    return statistics.median((*first_ms, *(measure(call) for _ in range(REPEATS - GIVE_UP_CALLS)))), None
