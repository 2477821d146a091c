"""Fire drills: break exactly one thing inside the worker, so that anyone can see a gate fail."""

from __future__ import annotations

import os
import signal
import statistics
import threading
import time
from collections.abc import Mapping
from typing import Any, NoReturn

import torch

from perf_tests.protocol.errors import WorkerError
from perf_tests.protocol.messages import Failure, FailureKind, Fault, Injection, Phase
from perf_tests.worker.fidelity import layers
from perf_tests.worker.measure.memory import MIB
from perf_tests.worker.model import offload

# Work that occupies the stream for a known time. Matrix products instead of sleeping: on a power-capped GPU,
# clocks rise after an idle gap, which would take back half of the time that it was meant to cost.
GEMM_SIZE = 4096
GEMM_CALIBRATION_RUNS = 50

# More than any machine has.
TOO_MANY_BYTES = 1 << 60


class Faults:
    """The injected faults of one worker; the first warm-up arms them, and is not affected itself."""

    def __init__(self, injections: tuple[Injection, ...], device: torch.device) -> None:
        self._amounts = {injection.fault: injection.amount for injection in injections}
        self._device = device
        self._armed = False
        self._extra_ms: dict[str, float] = {}
        self._ballast: torch.Tensor | None = None
        self._gemm: tuple[torch.Tensor, float] | None = None

    @property
    def injected(self) -> bool:
        """Whether any fault is injected."""
        return bool(self._amounts)

    @property
    def armed(self) -> bool:
        """Whether `arm` was called."""
        return self._armed

    @property
    def dropped_modules(self) -> int:
        """Number of modules that are to keep their unquantized weights."""
        return int(self._amounts.get(Fault.DROP_QUANTIZATION) or 0)

    def rescale(self, pipeline: Any) -> None:
        """Falsify the scales of one quantized layer of the transformer, for the rest of the worker's life.

        The layer is the middle one by name. Raises WorkerError(load) where no layer is quantized, and where
        scales are too coarse to represent the fault: a fire drill that breaks nothing would look like a gate
        that sees nothing.
        """
        scale_pct = self._amounts.get(Fault.SCALE)
        if scale_pct is None:
            return
        quantized = layers.quantized(pipeline)
        if not quantized:
            _refuse(
                "no layer of the transformer is quantized: select quantized cases, as in 'scale:+1%@*int8*'"
            )
        name = sorted(quantized)[len(quantized) // 2]
        if not scale_by(quantized[name].weight, 1 + scale_pct / 100):
            _refuse(f"the scales of {name} are too coarse to be {scale_pct:g} % larger: take a larger amount")

    def arm(self, values: Mapping[str, tuple[float, ...]], peak_mib: float) -> None:
        """Convert percentages to milliseconds and bytes, from the values of an undisturbed generation."""
        self._armed = True
        latency_pct = self._amounts.get(Fault.LATENCY)
        if latency_pct is not None:
            self._extra_ms = {
                stage: statistics.median(spans) * latency_pct / 100
                for stage, spans in values.items()
                if stage.endswith("_ms")
            }
        memory_pct = self._amounts.get(Fault.MEMORY)
        if memory_pct is not None:
            size = int(peak_mib * MIB * memory_pct / 100)
            self._ballast = torch.ones(size, dtype=torch.uint8, device=self._device)

    def before_mark(self, stage: str) -> None:
        """Lengthen the stage that is about to end."""
        if extra_ms := self._extra_ms.get(stage):
            self._occupy(extra_ms)

    def strike(self, pipeline: Any) -> None:
        """Just before a timed generation, end the worker or spoil its numbers, where a fault says so."""
        for fault in self._amounts:
            if fault in STRIKES:
                STRIKES[fault](pipeline, self._device)

    def _occupy(self, extra_ms: float) -> None:
        if self._device.type == "cpu":
            until = time.perf_counter() + extra_ms / 1e3
            while time.perf_counter() < until:
                pass
            return
        matrix, gemm_ms = self._calibrated()
        for _ in range(max(1, round(extra_ms / gemm_ms))):
            torch.mm(matrix, matrix)

    def _calibrated(self) -> tuple[torch.Tensor, float]:
        if self._gemm is None:
            matrix = torch.randn(GEMM_SIZE, GEMM_SIZE, dtype=torch.bfloat16, device=self._device)
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            torch.mm(matrix, matrix)
            start.record()
            for _ in range(GEMM_CALIBRATION_RUNS):
                torch.mm(matrix, matrix)
            end.record()
            end.synchronize()
            self._gemm = matrix, start.elapsed_time(end) / GEMM_CALIBRATION_RUNS
        return self._gemm


def scale_by(weight: Any, factor: float) -> bool:
    """Multiply all scales of a tensor subclass, rounded to their dtype; returns whether any changed.

    Zero points that are stored with their scales are added after scaling, and grow with them.
    """
    changed = False
    for name in weight.tensor_data_names:
        if "scale" in name:
            before = getattr(weight, name)
            after = (before.float() * factor).to(before.dtype)
            setattr(weight, name, after)
            changed |= not torch.equal(before.float(), after.float())
    return changed


def _refuse(why: str) -> NoReturn:
    message = f"the fault {Fault.SCALE} cannot be injected: {why}"
    raise WorkerError(Failure(kind=FailureKind.LOAD, phase=Phase.QUANTIZE, message=message))


def _hang(pipeline: Any, device: torch.device) -> None:
    threading.Event().wait()


def _out_of_memory(pipeline: Any, device: torch.device) -> None:
    torch.empty(TOO_MANY_BYTES, dtype=torch.uint8, device=device)


def _not_a_number(pipeline: Any, device: torch.device) -> None:
    with offload.weights_in_reach(pipeline):
        vectors = [parameter for parameter in pipeline.transformer.parameters() if parameter.ndim == 1]
        vectors[-1].data.fill_(float("nan"))


def _crash(pipeline: Any, device: torch.device) -> None:
    os.kill(os.getpid(), signal.SIGSEGV)


STRIKES = {
    Fault.HANG: _hang,
    Fault.OOM: _out_of_memory,
    Fault.NAN: _not_a_number,
    Fault.CRASH: _crash,
}
