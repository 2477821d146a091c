"""A session reports what each request asks for and nothing else, and does things in the right order."""

from __future__ import annotations

import dataclasses
import itertools
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from perf_tests.protocol.errors import WorkerError
from perf_tests.protocol.messages import (
    Compile,
    FailureKind,
    Fault,
    Generate,
    Injection,
    Inspect,
    Load,
    Phase,
    Quantize,
    Quantized,
    Trace,
)
from perf_tests.protocol.reports import CompileCache
from perf_tests.tables.cases import Case
from perf_tests.tables.pipelines.flux import FLUX_MINI
from perf_tests.tables.platforms import Device
from perf_tests.tables.recipes import CompileMode, Recipe
from perf_tests.tables.schemes.rows import BF16, INT8WO, NVFP4
from perf_tests.tables.schemes.spec import Scheme
from perf_tests.unit.worker.quantization.given_times import EAGER, INT8DQ_FIRST, Times
from perf_tests.worker import session
from perf_tests.worker.fidelity import anchor, trace
from perf_tests.worker.inspection import counters, kernels
from perf_tests.worker.measure import memory
from perf_tests.worker.model import build, compile, compile_cache
from perf_tests.worker.quantization import apply, layer_timing
from perf_tests.worker.session import WorkerSession

MakeCase = Callable[..., Case]
MIDDLE = "transformer.time_text_embed.timestep_embedder.linear_1"
REGIONAL = Recipe(scheme=BF16, compile=CompileMode.REGIONAL)


def loaded(case: Case, *injections: Injection) -> WorkerSession:
    worker = WorkerSession(None)
    worker.load(Load(case=case, device=Device.CPU, injections=injections))
    return worker


def quantized(case: Case, request: Quantize, *injections: Injection) -> Quantized:
    return loaded(case, *injections).quantize(request)


def with_steps(case: Case, steps: int, measured_steps: int | None = None) -> Case:
    workload = dataclasses.replace(case.workload, steps=steps, measured_steps=measured_steps)
    return dataclasses.replace(case, workload=workload)


# Load


def test_an_unsupported_scheme_is_refused_before_anything_is_built(
    make_case: MakeCase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(build, "build", lambda *_: pytest.fail("the pipeline was built"))
    with pytest.raises(WorkerError, match="nvfp4 needs a CUDA device") as caught:
        loaded(make_case(Recipe(scheme=NVFP4)))
    assert caught.value.failure.kind is FailureKind.UNSUPPORTED


# Quantize


def values(case: Case, request: Quantize) -> dict[str, float]:
    worker = loaded(case)
    worker.quantize(request)
    return worker._quantized.values


def test_the_sqnr_of_the_output_is_reported_where_it_is_asked_for(make_case: MakeCase) -> None:
    reported = values(make_case(Recipe(scheme=INT8WO)), Quantize(probe=True))
    assert 33.0 < reported["output_sqnr_db"] < 38.0
    assert reported["weight_bytes_vs_implied"] == 1.0


@pytest.mark.parametrize(
    ("scheme", "asked"),
    [pytest.param(INT8WO, False, id="not-asked"), pytest.param(BF16, True, id="not-quantized")],
)
def test_the_sqnr_of_the_output_is_not_reported_otherwise(
    make_case: MakeCase, scheme: Scheme, asked: bool
) -> None:
    assert "output_sqnr_db" not in values(make_case(Recipe(scheme=scheme)), Quantize(probe=asked))


def test_a_bf16_pipeline_is_compared_with_its_anchor_and_a_quantized_one_is_not(make_case: MakeCase) -> None:
    compared = values(make_case(), Quantize())
    assert 37.0 < compared["anchor_sqnr_db"] < 43.0
    assert set(anchor.METRICS.values()) <= compared.keys()
    assert not set(anchor.METRICS.values()) & values(make_case(Recipe(scheme=INT8WO)), Quantize()).keys()


def test_layers_are_compared_with_the_injected_fault_in_them(make_case: MakeCase) -> None:
    fault = Injection(fault=Fault.SCALE, amount=1.0)
    found = quantized(make_case(Recipe(scheme=INT8WO)), Quantize(layers=True), fault).layers
    assert found[MIDDLE].gain == pytest.approx(1.01, abs=2e-3)
    assert max(abs(error.gain - 1) for name, error in found.items() if name != MIDDLE) < 1e-3


@pytest.mark.parametrize(
    ("scheme", "asked"),
    [pytest.param(INT8WO, False, id="not-asked"), pytest.param(BF16, True, id="not-quantized")],
)
def test_layers_are_not_compared_otherwise(make_case: MakeCase, scheme: Scheme, asked: bool) -> None:
    assert quantized(make_case(Recipe(scheme=scheme)), Quantize(layers=asked)).layers == {}


def noting(steps: list[str], name: str, right: Callable[..., Any]) -> Callable[..., Any]:
    """Does what `right` does, and adds `name` to `steps`."""

    def note(*arguments: Any, **keywords: Any) -> Any:
        steps.append(name)
        return right(*arguments, **keywords)

    return note


def test_memory_of_recording_is_given_back_before_the_model_is_quantized(
    make_case: MakeCase, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    steps: list[str] = []
    for module, name in ((trace, "record"), (memory, "clear_workspaces"), (apply, "apply")):
        monkeypatch.setattr(module, name, noting(steps, name, getattr(module, name)))
    case = make_case()
    worker = loaded(case)
    steps.clear()
    answer = worker.quantize(Quantize(traces=(Trace(case=case, stem=str(tmp_path / "case")),)))
    assert steps == ["record", "clear_workspaces", "apply"]
    assert answer.fidelity_s > 0
    assert answer.recorded[case.id].picture is None


def test_no_time_is_reported_for_fidelity_that_was_not_asked_for(make_case: MakeCase) -> None:
    assert quantized(make_case(), Quantize()).fidelity_s == 0.0


def test_the_plan_and_its_outcome_are_reported(
    make_case: MakeCase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(layer_timing, "CallTimer", lambda *_: Times(**INT8DQ_FIRST))
    monkeypatch.setattr(session, "prime", lambda *_: None)
    seconds = itertools.count(step=100.0)
    monkeypatch.setattr(time, "perf_counter", lambda: next(seconds))
    worker = loaded(make_case(EAGER), Injection(fault=Fault.DROP_QUANTIZATION, amount=1.0))
    answer = worker.quantize(Quantize(plan=str(tmp_path / "plan.json")))
    worker.compile(Compile())
    reported = worker.inspect(Inspect()).values

    assert answer.quantization.plan is not None
    assert answer.quantization.plan.search_s == 100.0
    assert answer.seconds == 200.0  # from 0 to 300, without the search from 100 to 200
    assert reported["modules_off_plan"] == 1
    assert reported["quantized_modules"] == 61  # of the miniature's 62


def test_a_search_without_a_file_for_its_plan_is_refused(make_case: MakeCase) -> None:
    with pytest.raises(WorkerError, match="no file is named for the plan that autoquant follows") as caught:
        quantized(make_case(EAGER), Quantize())
    assert caught.value.failure.phase is Phase.SEARCH


# Compile


@pytest.fixture
def compiling(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The steps of compiling, in order; nothing is compiled."""
    steps: list[str] = []
    monkeypatch.setattr(compile, "apply", noting(steps, "mark", lambda *_: None))
    monkeypatch.setattr(session, "prime", noting(steps, "prime", lambda *_: None))
    monkeypatch.setattr(compile_cache, "save", noting(steps, "save", lambda *_: compile_cache.SAVED))
    return steps


def cache_of(case: Case, file: Path | None) -> CompileCache | None:
    worker = loaded(case)
    worker.quantize(Quantize())
    return worker.compile(Compile(artifacts=None if file is None else str(file))).cache


def test_artifacts_are_written_after_the_first_generation(
    make_case: MakeCase, tmp_path: Path, compiling: list[str]
) -> None:
    cache = cache_of(make_case(REGIONAL), tmp_path / "case.bin")
    assert compiling == ["mark", "prime", "save"]
    assert cache is not None
    assert cache.artifacts == "saved"


def test_artifacts_are_loaded_before_anything_compiles_and_not_written_again(
    make_case: MakeCase, tmp_path: Path, compiling: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compile_cache, "load", noting(compiling, "load", lambda *_: compile_cache.LOADED))
    cache = cache_of(make_case(REGIONAL), tmp_path / "case.bin")
    assert compiling == ["load", "mark", "prime"]
    assert cache is not None
    assert cache.artifacts == "loaded"


def test_artifacts_are_left_alone_where_no_file_is_named(make_case: MakeCase, compiling: list[str]) -> None:
    cache = cache_of(make_case(REGIONAL), None)
    assert compiling == ["mark", "prime"]
    assert cache is not None
    assert cache.artifacts is None


def test_artifacts_of_an_eager_pipeline_do_not_exist(
    make_case: MakeCase, tmp_path: Path, compiling: list[str]
) -> None:
    assert cache_of(make_case(), tmp_path / "case.bin") is None
    assert compiling == ["mark", "prime"]


# Generate and Inspect


def test_another_workload_can_be_generated_without_changing_the_measured_one(make_case: MakeCase) -> None:
    worker = loaded(with_steps(make_case(), 4, measured_steps=2))
    worker.quantize(Quantize())
    worker.compile(Compile())
    full = worker.generate_other(FLUX_MINI.workload).values
    again = worker.generate(Generate()).sample.values
    assert (len(full["denoise_step_ms"]), len(again["denoise_step_ms"])) == (3, 1)


def inspected(case: Case, device: str, *, work: bool = True) -> dict[str, float]:
    """What a session on the CPU reports if it takes its device for another one when it is inspected."""
    worker = loaded(case)
    worker.quantize(Quantize())
    worker.compile(Compile())
    worker.generate(Generate(warmup=True))
    worker._loaded = dataclasses.replace(worker._loaded, device=torch.device(device))
    return worker.inspect(Inspect(work=work)).values


def test_work_is_counted_in_the_units_of_the_device_and_only_after_everything_else_was_read(
    make_case: MakeCase, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []
    for module, name in ((counters, "read"), (memory, "peaks"), (memory.Meter, "read")):
        monkeypatch.setattr(module, name, noting(read, name, getattr(module, name)))

    def step(_pipeline: Any, _case: Case, _clock: Any, unit: kernels.WorkUnit) -> kernels.CountedWork:
        return kernels.CountedWork(values={unit.metrics[kernels.STEP]: 7.0}, step=None)

    monkeypatch.setattr(kernels, "measure", noting(read, "kernels", step))
    case = with_steps(make_case(), 2)
    assert "operators_per_step" not in inspected(case, "cpu", work=False)
    assert "kernels" not in read
    assert inspected(case, "cpu")["operators_per_step"] == 7.0
    assert inspected(case, "cuda")["kernels_per_step"] == 7.0
    assert read[-4:] == ["read", "read", "peaks", "kernels"]
