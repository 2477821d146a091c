"""A worker that has switched to another workload measures it as a worker of its own would."""

from __future__ import annotations

import dataclasses
import gc
from collections.abc import Callable
from typing import Any

import pytest
import torch

from perf_tests.protocol.errors import WorkerError
from perf_tests.protocol.messages import (
    Compile,
    Fault,
    Generate,
    Injection,
    Inspect,
    Load,
    Quantize,
    SwitchWorkload,
)
from perf_tests.protocol.reports import MemoryWindow
from perf_tests.tables.cases import Case
from perf_tests.tables.platforms import Device
from perf_tests.tables.recipes import CompileMode, Recipe
from perf_tests.tables.schemes.rows import BF16, INT8WO
from perf_tests.worker.session import WorkerSession

COUNTERS = ("compiled_graphs", "graph_breaks", "recompiles")
EAGER = Recipe(scheme=BF16)
REGIONAL = Recipe(scheme=BF16, compile=CompileMode.REGIONAL)


def of_batch(case: Case, batch_size: int) -> Case:
    workload = dataclasses.replace(case.workload, batch_size=batch_size, steps=2)
    return dataclasses.replace(case, workload=workload)


def built(case: Case, *injections: Injection) -> WorkerSession:
    session = WorkerSession(None)
    session.load(Load(case=case, device=Device.CPU, injections=injections))
    session.quantize(Quantize())
    return session


def measured(session: WorkerSession) -> dict[str, float]:
    session.compile(Compile())
    session.generate(Generate(warmup=True))
    session.generate(Generate())
    return session.inspect(Inspect()).values


@pytest.mark.usefixtures("dynamo_only")
def test_a_workload_compiles_as_many_graphs_as_in_a_worker_of_its_own(
    make_case: Callable[..., Case],
) -> None:
    case = of_batch(make_case(REGIONAL), 1)
    session = built(case)
    # Without a reset, three workloads need more graphs of a block than this limit, and dynamo gives up.
    with torch._dynamo.config.patch(recompile_limit=2, fail_on_recompile_limit_hit=True):
        found = [measured(session)]
        for batch_size in (2, 1):
            session.switch_workload(SwitchWorkload(case=of_batch(case, batch_size)))
            found.append(measured(session))
    torch.compiler.reset()
    fresh = measured(built(of_batch(case, 2)))
    # One graph of the double blocks and two of the single ones, which see two strides.
    expected = {"compiled_graphs": 3, "graph_breaks": 0, "recompiles": 0}
    for values in (*found, fresh):
        assert {name: values[name] for name in COUNTERS} == expected


@pytest.mark.usefixtures("dynamo_only")
def test_the_decoder_is_compiled_anew_and_not_around_itself(make_case: Callable[..., Case]) -> None:
    case = of_batch(make_case(Recipe(scheme=BF16, compile_vae=True)), 1)
    session = built(case)
    session.compile(Compile())
    session.switch_workload(SwitchWorkload(case=of_batch(case, 2)))
    session.compile(Compile())
    inner = session._loaded.pipeline.vae.decode._torchdynamo_orig_callable
    assert not hasattr(inner, "_torchdynamo_orig_callable")
    assert session.inspect(Inspect()).values["compiled_graphs"] == 1


def test_values_of_the_build_stay_after_a_switch(make_case: Callable[..., Case]) -> None:
    case = of_batch(make_case(Recipe(scheme=INT8WO)), 1)
    session = built(case)
    before = measured(session)
    session.switch_workload(SwitchWorkload(case=of_batch(case, 2)))
    after = measured(session)
    of_the_build = {"model_memory_mib", "weight_bytes", "quantized_modules"}
    assert {name: after[name] for name in of_the_build} == {name: before[name] for name in of_the_build}
    assert before.keys() == after.keys()
    assert after["quantized_modules"] == 62


class HighWater:
    """A meter that reports one peak after another."""

    def __init__(self, *peaks_mib: float) -> None:
        self._peaks_mib = iter(peaks_mib)

    def reset(self) -> None:
        """Nothing is counted."""

    look = reset

    def read(self) -> MemoryWindow:
        peak_mib = next(self._peaks_mib)
        return MemoryWindow(allocated_mib=peak_mib, reserved_mib=None, device_mib=None, rss_mib=1.0)


def test_a_peak_is_that_of_the_workload_switched_to(make_case: Callable[..., Case]) -> None:
    session = built(make_case())
    # Of compiling, after the warm-up and of generating, for each workload.
    meter: Any = HighWater(900.0, 1000.0, 1000.0, 300.0, 400.0, 400.0)
    session._loaded = dataclasses.replace(session._loaded, meter=meter)
    assert measured(session)["peak_allocated_mib"] == 1000.0
    session.switch_workload(SwitchWorkload(case=make_case()))
    session.compile(Compile())
    session.generate(Generate(warmup=True))
    assert session.inspect(Inspect()).values["peak_allocated_mib"] == 400.0


def test_an_output_is_that_of_the_workload_switched_to(make_case: Callable[..., Case]) -> None:
    case = of_batch(make_case(), 1)
    session = built(case)
    session.compile(Compile())
    first = session.generate(Generate()).sample.output_sha256
    session.switch_workload(SwitchWorkload(case=of_batch(case, 2)))
    session.compile(Compile())
    second = session.generate(Generate()).sample.output_sha256
    assert second == generated_alone(of_batch(case, 2)) != first


def generated_alone(case: Case) -> str:
    session = built(case)
    session.compile(Compile())
    return session.generate(Generate()).sample.output_sha256


def test_garbage_is_collected_again_after_a_switch(make_case: Callable[..., Case]) -> None:
    session = built(make_case())
    gc.unfreeze()
    session.compile(Compile())
    assert gc.get_freeze_count() > 0
    session.switch_workload(SwitchWorkload(case=make_case()))
    assert gc.get_freeze_count() == 0


@pytest.mark.parametrize(
    ("recipe", "injections", "message"),
    [
        pytest.param(Recipe(scheme=INT8WO), (), "it holds the build of flux-mini-b1-bf16-eager", id="build"),
        pytest.param(EAGER, (Injection(fault=Fault.NAN),), "a fault is injected into it", id="fire drill"),
    ],
)
def test_a_worker_does_not_switch_to(
    make_case: Callable[..., Case], recipe: Recipe, injections: tuple[Injection, ...], message: str
) -> None:
    session = WorkerSession(None)
    session.load(Load(case=make_case(), device=Device.CPU, injections=injections))
    with pytest.raises(WorkerError, match=message) as caught:
        session.switch_workload(SwitchWorkload(case=make_case(recipe)))
    assert (caught.value.failure.kind, caught.value.failure.phase) == ("load", "turn")
