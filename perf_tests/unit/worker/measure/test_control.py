from __future__ import annotations

from typing import Any

import pytest
import torch

from perf_tests.tables.platforms import Device
from perf_tests.worker.measure import control
from perf_tests.worker.measure.clock import CLOCKS

CPU = torch.device("cpu")


class CountingMark:
    """A mark of `CountingClock`."""

    def __init__(self, ms: float) -> None:
        self.ms = ms

    def until_ms(self, later: Any) -> float:
        return float(later.ms - self.ms)


class CountingClock:
    """The first block takes 1000 ms, one is stalled, the others take 60 ms."""

    def __init__(self) -> None:
        self.marks = 0
        self.ms = 0.0

    def mark(self) -> CountingMark:
        block, is_end = divmod(self.marks, 2)
        if is_end:
            self.ms += {0: 1000.0, 2: 600.0}.get(block, 60.0)
        self.marks += 1
        return CountingMark(self.ms)

    def synchronize(self) -> None:
        """Nothing to wait for."""


class Monitor:
    """A monitor that saw 1650 MHz, once it was told that something begins."""

    def __init__(self) -> None:
        self.began = False

    def begin(self) -> None:
        self.began = True

    def values(self) -> dict[str, tuple[float, ...]]:
        return {"mean_sm_clock_mhz": (1650.0,)} if self.began else {}


def test_a_control_is_the_median_of_its_timed_blocks_over_their_launches(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(CLOCKS, "cpu", CountingClock)
    # One clock for both kernels: the second one's blocks are all warm to it.
    found = control.measure(CPU, None)
    assert found == {"control_gemm_ms": 30.0, "control_attention_ms": 30.0}


def test_a_control_is_recorded_with_its_clock() -> None:
    found = control.measure(CPU, Monitor())  # type: ignore[arg-type]  # a fake
    assert found.keys() == {"control_gemm_ms", "control_attention_ms", "control_sm_clock_mhz"}
    assert found["control_sm_clock_mhz"] == 1650.0
    assert found["control_gemm_ms"] > 0


def test_a_control_multiplies_the_same_numbers_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[torch.Tensor] = []
    monkeypatch.setattr(torch, "mm", lambda left, right: seen.append(left))
    for _ in range(2):
        control.measure(CPU, None)
    assert torch.equal(seen[0], seen[-1])
    assert float(seen[0].std()) == pytest.approx(1.0, abs=0.05)


def test_the_control_of_a_gpu_is_that_of_flux() -> None:
    chosen = control.CONTROLS[Device.CUDA]
    assert (chosen.gemm_size, chosen.attention_shape, chosen.dtype) == (
        8192,
        (1, 24, 4608, 128),
        torch.bfloat16,
    )
