"""One layer is timed often enough, compiled anew, and given up early where it is hopeless."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from perf_tests.tables.schemes.rows import BF16, INT8WO
from perf_tests.unit.worker.quantization.given_times import Times
from perf_tests.worker.quantization import layer_timing
from perf_tests.worker.quantization.layer_timing import median_ms

CPU = torch.device("cpu")


def of(milliseconds: list[float]) -> tuple[Callable[[Callable[[], object]], float], list[float]]:
    left = list(milliseconds)
    return lambda call: left.pop(0), left


def test_calls_are_timed_after_one_that_compiles_and_the_median_counts() -> None:
    measure, left = of([900.0, *[1.0] * 10, *[3.0] * 11])
    assert median_ms(measure, torch.Tensor, 2.0) == (3.0, None)
    assert left == []


def test_a_candidate_that_takes_ten_times_as_long_is_given_up_early() -> None:
    measure, left = of([900.0, 380.0, 379.0, 1.0])
    found_ms, reason = median_ms(measure, torch.Tensor, 0.48)
    assert found_ms is None
    assert reason == "given up: a call takes 379 ms, and 0.48 ms unquantized, more than 10 times less"
    assert left == [1.0]


def test_a_candidate_is_not_given_up_for_one_slow_call() -> None:
    measure, left = of([900.0, 380.0, *[0.4] * 20])
    assert median_ms(measure, torch.Tensor, 0.48) == (0.4, None)
    assert left == []


def test_the_unquantized_layer_is_never_given_up() -> None:
    measure, _ = of([900.0, *[380.0] * 21])
    assert median_ms(measure, torch.Tensor, None) == (380.0, None)


def test_a_candidate_that_the_stack_refuses_is_left_out_with_the_reason() -> None:
    layer, rows = nn.Linear(32, 32, dtype=torch.bfloat16), torch.ones(64, 32, dtype=torch.bfloat16)

    def refuses(call: Callable[[], object]) -> float:
        raise RuntimeError("no kernel for this\nfrom a backend")

    found = layer_timing.timed(INT8WO, layer, rows, refuses, compiles=False, rival_ms=1.0)
    assert found == (None, "RuntimeError: no kernel for this")
    with pytest.raises(RuntimeError, match="no kernel"):
        layer_timing.timed(BF16, layer, rows, refuses, compiles=False, rival_ms=None)


def test_each_layer_is_compiled_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[object] = []

    def compile(layer: nn.Module, **options: object) -> nn.Module:
        done.append(options)
        return layer

    monkeypatch.setattr(torch, "compile", compile)
    monkeypatch.setattr(torch.compiler, "reset", lambda: done.append("reset"))
    layer, rows = nn.Linear(32, 32, dtype=torch.bfloat16), torch.ones(64, 32, dtype=torch.bfloat16)
    found = layer_timing.timed(INT8WO, layer, rows, Times(int8wo=0.5), compiles=True, rival_ms=1.0)
    assert found == (0.5, None)
    assert done == [{"dynamic": False}, "reset"]


class CountingClock:
    """Each mark is a millisecond after the one before, and each call takes seven."""

    def __init__(self) -> None:
        self.now_ms = 0.0

    def call(self) -> torch.Tensor:
        self.now_ms += 7.0
        return torch.ones(1)

    def mark(self) -> Any:
        self.now_ms += 1.0
        at_ms = self.now_ms
        return SimpleNamespace(at_ms=at_ms, until_ms=lambda later: later.at_ms - at_ms)

    def synchronize(self) -> None:
        self.now_ms += 100.0


def test_a_call_timer_reads_the_clock_around_one_call() -> None:
    clock = CountingClock()
    assert layer_timing.CallTimer(clock, CPU)(clock.call) == 8.0


def test_device_work_on_a_cpu_is_the_call_itself() -> None:
    call = torch.Tensor
    assert layer_timing.device_work(call, CPU) is call
