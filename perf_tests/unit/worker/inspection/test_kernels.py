"""Each stage is counted once, and the pipeline is left as it was; no GPU is needed."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from typing import Any

import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from perf_tests.tables.cases import Case
from perf_tests.tables.pipelines.cogvideox import COGVIDEOX_MINI
from perf_tests.tables.pipelines.flux import FLUX_MINI
from perf_tests.tables.pipelines.spec import PipelineSpec
from perf_tests.tables.platforms import Device
from perf_tests.tables.recipes import CompileMode, Recipe
from perf_tests.tables.schemes.rows import BF16
from perf_tests.worker.inspection import counters, kernels
from perf_tests.worker.inspection.kernels import (
    ENCODE,
    STEP,
    UNITS,
    Event,
    KinetoRecorder,
    NotCounted,
    count,
    measure,
    record,
)
from perf_tests.worker.measure.clock import HostClock
from perf_tests.worker.measure.generate import Stages, generate_once, output_sha256, prime
from perf_tests.worker.model import compile

Make = Callable[..., Any]
GPU = UNITS[Device.CUDA]

TRACE: tuple[Event, ...] = (
    {"ph": "M", "name": "process_name", "pid": 0},
    {"ph": "X", "cat": "cuda_runtime", "name": "cudaLaunchKernel"},
    {"ph": "X", "cat": "cuda_runtime", "name": "cudaGraphLaunch"},
    {"ph": "X", "cat": "kernel", "name": "sm90_xmma_gemm_bf16"},
    {"ph": "X", "cat": "gpu_memcpy", "name": "Memcpy HtoD (Pageable -> Device)"},
    {"ph": "X", "cat": "gpu_memset", "name": "Memset (Device)"},
    {"ph": "X", "cat": "gpu_user_annotation", "name": "Torch-Compiled Region"},
    {"ph": "X", "cat": "kernel", "name": "triton_poi_fused_gelu_0"},
    {"ph": "X", "cat": "kernel", "name": "triton_poi_fused_gelu_0"},
)


class FakeRecorder:
    """A recorder that returns `TRACE`, or refuses."""

    def __init__(self, log: list[str], refusal: str | None = None) -> None:
        self.log = log
        self.refusal = refusal

    def start(self) -> None:
        """Refuse if told to."""
        self.log.append("start")
        if self.refusal:
            raise NotCounted(self.refusal)

    def stop(self) -> Iterable[Event]:
        """The trace."""
        self.log.append("stop")
        return TRACE


class LoggedClock(HostClock):
    """Logs when the host waits for the device."""

    def __init__(self, log: list[str]) -> None:
        self.log = log

    def synchronize(self) -> None:
        """Nothing to wait for; only logged."""
        self.log.append("synchronize")


def watched(pipeline: Any, log: list[str]) -> Any:
    """`pipeline`, whose calls of the transformer and the VAE are logged."""
    pipeline.transformer.register_forward_pre_hook(lambda *_: log.append("transformer"))
    decode = pipeline.vae.decode

    def logged(*args: Any, **kwargs: Any) -> Any:
        log.append("decode")
        return decode(*args, **kwargs)

    pipeline.vae.decode = logged
    return pipeline


def of_steps(case: Case, steps: int) -> Case:
    return dataclasses.replace(case, workload=dataclasses.replace(case.workload, steps=steps))


def test_kernels_are_counted_once_per_launch_and_nothing_else_is() -> None:
    assert count(TRACE, GPU) == 3


def test_kernels_missing_from_a_trace_are_not_a_count_of_zero() -> None:
    with pytest.raises(NotCounted, match="recorded no kernel"):
        count([event for event in TRACE if event.get("cat") != "kernel"], GPU)


@pytest.mark.parametrize("spec", [FLUX_MINI, COGVIDEOX_MINI], ids=lambda spec: spec.id)
def test_encoders_second_step_and_decoder_are_recorded_between_two_waits(
    make_pipeline: Make, make_case: Callable[..., Case], spec: PipelineSpec
) -> None:
    log: list[str] = []
    pipeline, case = watched(make_pipeline(pipeline=spec), log), of_steps(make_case(pipeline=spec), 4)
    work = measure(pipeline, case, LoggedClock(log), GPU, FakeRecorder(log))
    assert work.values == {
        "kernels_per_encode": 3.0,
        "kernels_per_step": 3.0,
        "kernels_per_decode": 3.0,
        "graph_launches_per_step": 1.0,
    }
    assert work.step == {"sm90_xmma_gemm_bf16": 1, "triton_poi_fused_gelu_0": 2}
    encoders = ["synchronize", "start", "synchronize", "stop"]
    step = ["transformer", "synchronize", "start", "transformer", "synchronize", "stop"]
    decoder = ["transformer", "transformer", "synchronize", "start", "decode", "synchronize", "stop"]
    assert log == [*encoders, *step, *decoder]


def test_a_recording_of_torch_holds_one_step(make_pipeline: Make, make_case: Callable[..., Case]) -> None:
    recorder = KinetoRecorder(ProfilerActivity.CPU)
    recorded = record(make_pipeline(), make_case(), HostClock(), recorder, (ENCODE, STEP))
    named = {
        stage: [event["name"] for event in events if event.get("cat") == "cpu_op"]
        for stage, events in recorded.items()
    }
    # One for each block of the miniature: two double ones, four single ones.
    assert named[STEP].count("aten::scaled_dot_product_attention") == 6
    # The layers of the two encoders.
    assert 0 < named[ENCODE].count("aten::embedding") < 10


def test_a_counted_pipeline_is_left_as_it_was(make_pipeline: Make, make_case: Callable[..., Case]) -> None:
    case, pipeline = make_case(), make_pipeline()
    before = pipeline.scheduler.step, pipeline.scheduler.set_timesteps
    measure(pipeline, case, HostClock(), GPU, FakeRecorder([]))
    assert (pipeline.scheduler.step, pipeline.scheduler.set_timesteps) == before
    stages = Stages(HostClock(), lambda stage: None)
    digests = {
        output_sha256(generate_once(each, case, stages).output) for each in (pipeline, make_pipeline())
    }
    assert len(digests) == 1


def refused(pipeline: Any, case: Case, recorder: kernels.Recorder | None, message: str) -> None:
    """Neither the encoders nor the step are reported, and the worker's log says why."""
    with pytest.warns(RuntimeWarning) as said:
        work = measure(pipeline, case, HostClock(), GPU, recorder)
    assert set(work.values) <= {"kernels_per_decode"}
    assert work.step is None
    names = "kernels_per_encode and kernels_per_step"
    assert str(said[0].message).startswith(f"{names} of {case.id} were not counted: {message}")


def test_a_refusal_ends_the_generation_and_reports_nothing(
    make_pipeline: Make, make_case: Callable[..., Case]
) -> None:
    log: list[str] = []
    pipeline = watched(make_pipeline(), log)
    refused(pipeline, make_case(), FakeRecorder(log, refusal="CUPTI is in use"), "CUPTI is in use")
    assert log == ["start", "transformer", "transformer", "start"]


def test_torch_without_cuda_reports_nothing(
    make_pipeline: Make, make_case: Callable[..., Case], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kernels, "supported_activities", lambda: {ProfilerActivity.CPU})
    refused(make_pipeline(), make_case(), None, "this build of torch cannot record CUDA activity")


def test_a_profiler_that_does_not_start_reports_nothing(
    make_pipeline: Make, make_case: Callable[..., Case], monkeypatch: pytest.MonkeyPatch
) -> None:
    def start(_profile: Any) -> None:
        raise RuntimeError("CUPTI_ERROR_INSUFFICIENT_PRIVILEGES")

    monkeypatch.setattr(profile, "start", start)
    recorder = KinetoRecorder(ProfilerActivity.CPU)
    refused(make_pipeline(), make_case(), recorder, "the profiler did not start: CUPTI_ERROR_INSUFFICIENT")


def test_a_workload_of_one_step_has_no_steady_step(
    make_pipeline: Make, make_case: Callable[..., Case]
) -> None:
    refused(make_pipeline(), of_steps(make_case(), 1), FakeRecorder([]), "its workload has no second step")


def test_an_error_of_the_pipeline_is_not_taken_for_a_refusal(
    make_pipeline: Make, make_case: Callable[..., Case], monkeypatch: pytest.MonkeyPatch
) -> None:
    pipeline = make_pipeline()

    def fail(*_: Any, **__: Any) -> None:
        raise torch.OutOfMemoryError("out of memory")

    monkeypatch.setattr(pipeline.transformer, "forward", fail)
    with pytest.raises(torch.OutOfMemoryError):
        measure(pipeline, make_case(), HostClock(), GPU, FakeRecorder([]))


@pytest.mark.usefixtures("dynamo_only")
def test_counting_compiles_nothing_and_a_step_that_compiles_is_not_counted(
    make_pipeline: Make, make_case: Callable[..., Case]
) -> None:
    recipe = Recipe(scheme=BF16, compile=CompileMode.REGIONAL)
    case, pipeline = make_case(recipe), make_pipeline(recipe)
    compile.apply(pipeline, case.build)
    refused(pipeline, case, FakeRecorder([]), "something was compiled during it")
    prime(pipeline, case)
    before = counters.read()
    work = measure(pipeline, case, HostClock(), GPU, FakeRecorder([]))
    assert set(work.values) == {*GPU.metrics.values(), "graph_launches_per_step"}
    assert counters.read().since(before).graphs == 0
