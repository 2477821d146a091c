"""Controls: two kernels of fixed shapes and data, timed before anything of the suite runs on the device.

They are the same for every case and stack: when their times change, the machine has changed.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch

from perf_tests.tables.platforms import Device
from perf_tests.worker.measure import memory
from perf_tests.worker.measure.clock import CLOCKS, Clock
from perf_tests.worker.measure.telemetry import GpuMonitor


@dataclass(frozen=True, kw_only=True, slots=True)
class ControlKernels:
    """Shapes and numbers of launches; launches run back to back in blocks, of which the median counts."""

    dtype: torch.dtype
    gemm_size: int
    """Rows and columns of the three matrices."""
    gemm_launches: int
    """Per block."""
    attention_shape: tuple[int, int, int, int]
    """(batch, heads, tokens, head size)"""
    attention_launches: int
    warmup_blocks: int
    timed_blocks: int


CONTROLS = {
    # 1.1 and 0.26 TFLOP per launch: 1.5 and 0.4 ms on an H100, so half a second for each kernel.
    # The attention is that of FLUX.1 at 1024x1024.
    Device.CUDA: ControlKernels(
        dtype=torch.bfloat16,
        gemm_size=8192,
        gemm_launches=20,
        attention_shape=(1, 24, 4608, 128),
        attention_launches=60,
        warmup_blocks=5,
        timed_blocks=15,
    ),
    # A few milliseconds: just enough to run the same code.
    Device.CPU: ControlKernels(
        dtype=torch.float32,
        gemm_size=128,
        gemm_launches=2,
        attention_shape=(1, 2, 64, 32),
        attention_launches=2,
        warmup_blocks=1,
        timed_blocks=3,
    ),
}


def measure(device: torch.device, monitor: GpuMonitor | None) -> dict[str, float]:
    """Metric name -> value: milliseconds per launch, and the mean SM clock where `monitor` can tell it.

    Leaves no memory allocated.
    """
    chosen = Device(device.type)
    control, clock = CONTROLS[chosen], CLOCKS[chosen]()
    if monitor:
        monitor.begin()
    with torch.inference_mode():
        kernels = {
            "control_gemm_ms": (_gemm(control, device), control.gemm_launches),
            "control_attention_ms": (_attention(control, device), control.attention_launches),
        }
        values = {
            name: statistics.median(_blocks_ms(launch, launches, control, clock)) / launches
            for name, (launch, launches) in kernels.items()
        }
        del kernels
    clocks = monitor.values() if monitor else {}
    memory.clear_workspaces()
    if device.type == "cuda":
        torch.cuda.empty_cache()
    return values | {f"control_{name.removeprefix('mean_')}": mhz for name, (mhz,) in clocks.items()}


def _gemm(control: ControlKernels, device: torch.device) -> Callable[[], object]:
    shape = (control.gemm_size, control.gemm_size)
    left, right = _noise(2, shape, control.dtype, device)
    return partial(torch.mm, left, right)


def _attention(control: ControlKernels, device: torch.device) -> Callable[[], object]:
    query, key, value = _noise(3, control.attention_shape, control.dtype, device)
    return partial(torch.nn.functional.scaled_dot_product_attention, query, key, value)


def _noise(
    count: int, shape: tuple[int, ...], dtype: torch.dtype, device: torch.device
) -> tuple[torch.Tensor, ...]:
    # Normally distributed, and the same each time: the power a GPU draws, and so its clock, depends on data.
    generator = torch.Generator(device).manual_seed(0)
    return tuple(torch.randn(shape, generator=generator, dtype=dtype, device=device) for _ in range(count))


def _blocks_ms(
    launch: Callable[[], object], launches: int, control: ControlKernels, clock: Clock
) -> list[float]:
    blocks = []
    for _ in range(control.warmup_blocks + control.timed_blocks):
        start = clock.mark()
        for _ in range(launches):
            launch()
        blocks.append((start, clock.mark()))
    clock.synchronize()
    return [start.until_ms(end) for start, end in blocks[control.warmup_blocks :]]
