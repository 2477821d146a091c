"""Each fault breaks its one thing by the asked amount, and one that would break nothing is refused."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from perf_tests.protocol.errors import WorkerError
from perf_tests.protocol.messages import FailureKind, Fault, Injection, Phase
from perf_tests.tables.cases import Case
from perf_tests.tables.recipes import Recipe
from perf_tests.tables.schemes.rows import INT8WO
from perf_tests.worker.faults import Faults, scale_by
from perf_tests.worker.quantization import apply

CPU = torch.device("cpu")
MIDDLE = "transformer.time_text_embed.timestep_embedder.linear_1"


def injected(fault: Fault, amount: float | None = None) -> Faults:
    return Faults((Injection(fault=fault, amount=amount),), CPU)


def test_latency_lengthens_each_stage_by_its_share(monkeypatch: pytest.MonkeyPatch) -> None:
    latency = injected(Fault.LATENCY, 50.0)
    occupied: list[float] = []
    monkeypatch.setattr(latency, "_occupy", occupied.append)
    latency.arm({"encode_ms": (10.0,), "denoise_step_ms": (4.0, 6.0, 5.0), "latency_s": (1.0,)}, peak_mib=1.0)
    for stage in ("encode_ms", "denoise_step_ms", "decode_ms"):
        latency.before_mark(stage)
    assert occupied == [5.0, 2.5]


def test_latency_is_not_added_before_a_generation_was_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    latency = injected(Fault.LATENCY, 50.0)
    monkeypatch.setattr(latency, "_occupy", lambda _: pytest.fail("a stage was lengthened"))
    latency.before_mark("encode_ms")
    assert not latency.armed


def test_latency_keeps_a_cpu_busy_for_its_time() -> None:
    latency = injected(Fault.LATENCY, 10.0)
    latency.arm({"encode_ms": (200.0,)}, peak_mib=1.0)
    started_s, used_s = time.perf_counter(), time.process_time()
    latency.before_mark("encode_ms")
    assert time.perf_counter() - started_s >= 0.02
    assert time.process_time() - used_s > 0.002  # some, on a machine that others keep busy, too


def test_memory_is_a_live_allocation_of_its_share() -> None:
    memory = injected(Fault.MEMORY, 3.0)
    memory.arm({}, peak_mib=100.0)
    assert memory._ballast is not None
    assert memory._ballast.nbytes == 3 * (1 << 20)


@pytest.mark.parametrize(
    ("fault", "amount", "dropped"),
    [(Fault.DROP_QUANTIZATION, 2.0, 2), (Fault.LATENCY, 3.0, 0)],
    ids=["drop-quantization", "another-fault"],
)
def test_modules_are_dropped_only_where_the_fault_says_so(fault: Fault, amount: float, dropped: int) -> None:
    assert injected(fault, amount).dropped_modules == dropped


def test_no_injection_breaks_nothing() -> None:
    none = Faults((), CPU)
    none.arm({"encode_ms": (10.0,)}, peak_mib=1.0)
    none.before_mark("encode_ms")
    none.rescale(pipeline=None)
    none.strike(pipeline=None)
    assert (none.injected, none.armed, none._ballast) == (False, True, None)


def test_wrong_scales_need_a_layer_that_has_some(make_pipeline: Callable[..., Any]) -> None:
    with pytest.raises(WorkerError, match="no layer of the transformer is quantized") as caught:
        injected(Fault.SCALE, 1.0).rescale(make_pipeline())
    assert (caught.value.failure.kind, caught.value.failure.phase) == (FailureKind.LOAD, Phase.QUANTIZE)


def test_wrong_scales_that_rounding_takes_back_are_refused(
    make_pipeline: Callable[..., Any], make_case: Callable[..., Case]
) -> None:
    pipeline = make_pipeline()
    apply.apply(pipeline, make_case(Recipe(scheme=INT8WO)).build)
    with pytest.raises(WorkerError, match=f"the scales of {MIDDLE} are too coarse to be 1e-07 % larger"):
        injected(Fault.SCALE, 1e-7).rescale(pipeline)


@pytest.mark.parametrize(("factor", "changes"), [(1.5, True), (1.0 + 2.0**-20, False)])
def test_scales_are_multiplied_in_their_dtype_and_values_are_not(factor: float, changes: bool) -> None:
    weight = SimpleNamespace(
        tensor_data_names=["qdata", "scale"], qdata=torch.ones(2), scale=torch.ones(2, dtype=torch.bfloat16)
    )
    assert scale_by(weight, factor) is changes
    assert weight.qdata.tolist() == [1.0, 1.0]
    assert weight.scale.tolist() == ([1.5, 1.5] if changes else [1.0, 1.0])
    assert weight.scale.dtype is torch.bfloat16


def test_nan_spoils_a_parameter_of_the_transformer() -> None:
    transformer = nn.Linear(2, 2)
    pipeline = SimpleNamespace(transformer=transformer, components={"transformer": transformer})
    injected(Fault.NAN).strike(pipeline)
    assert bool(pipeline.transformer.bias.isnan().all())
    assert not bool(pipeline.transformer.weight.isnan().any())


def test_oom_asks_for_more_than_any_machine_has() -> None:
    with pytest.raises(RuntimeError, match="can't allocate memory"):
        injected(Fault.OOM).strike(pipeline=None)


def test_crash_is_a_segmentation_fault_of_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[tuple[int, int]] = []
    monkeypatch.setattr(os, "kill", lambda pid, number: sent.append((pid, number)))
    injected(Fault.CRASH).strike(pipeline=None)
    assert sent == [(os.getpid(), signal.SIGSEGV)]


def test_hang_waits_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float | None] = []
    monkeypatch.setattr(threading.Event, "wait", lambda _, timeout=None: waits.append(timeout))
    injected(Fault.HANG).strike(pipeline=None)
    assert waits == [None]
