"""A workload measured in part generates fewer steps, and nothing else changes."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import pytest

from perf_tests.protocol.errors import WorkerError
from perf_tests.tables.cases import Case
from perf_tests.tables.pipelines.flux import FLUX_MINI
from perf_tests.tables.platforms import Device
from perf_tests.worker.measure.clock import HostClock
from perf_tests.worker.measure.generate import PRIMING_STEPS, Stages, generate_once, prime
from perf_tests.worker.session import WorkerSession

Make = Callable[..., Any]


def with_steps(case: Case, steps: int, measured_steps: int | None = None) -> Case:
    workload = dataclasses.replace(case.workload, steps=steps, measured_steps=measured_steps)
    return dataclasses.replace(case, workload=workload)


def staged() -> Stages:
    return Stages(HostClock(), lambda stage: None)


def count_steps(pipeline: Any) -> list[Any]:
    """A list that grows by one with every call of the transformer."""
    calls: list[Any] = []
    pipeline.transformer.register_forward_pre_hook(lambda module, inputs: calls.append(module))
    return calls


def test_only_the_measured_steps_are_generated(make_pipeline: Make, make_case: Callable[..., Case]) -> None:
    pipeline = make_pipeline()
    calls = count_steps(pipeline)
    values = generate_once(pipeline, with_steps(make_case(), 28, measured_steps=3), staged()).values
    assert len(calls) == 3
    assert (len(values["first_step_ms"]), len(values["denoise_step_ms"])) == (1, 2)


def test_the_values_are_those_of_the_short_generation(
    make_pipeline: Make, make_case: Callable[..., Case]
) -> None:
    pipeline = make_pipeline()
    values = generate_once(pipeline, with_steps(make_case(), 28, measured_steps=3), staged()).values
    parts = sum(sum(values[name]) for name in ("encode_ms", "first_step_ms", "denoise_step_ms", "decode_ms"))
    assert values["device_latency_s"][0] * 1e3 == pytest.approx(parts, rel=1e-9)


def test_a_scheduler_that_runs_all_steps_of_a_short_generation_is_unproven(
    make_pipeline: Make, make_case: Callable[..., Case]
) -> None:
    pipeline = make_pipeline()
    set_timesteps = pipeline.scheduler.set_timesteps

    @functools.wraps(set_timesteps)  # the pipeline looks at its signature
    def all_of_them(*args: Any, **kwargs: Any) -> None:
        set_timesteps(*args, **{**kwargs, "sigmas": [1.0, 0.75, 0.5, 0.25]})

    pipeline.scheduler.set_timesteps = all_of_them
    with pytest.raises(WorkerError, match="asked for 2 steps, the scheduler ran 4"):
        generate_once(pipeline, with_steps(make_case(), 4, measured_steps=2), staged())


@pytest.mark.parametrize("measured_steps", [None, 3])
def test_priming_takes_two_steps_of_any_workload(
    make_pipeline: Make, make_case: Callable[..., Case], measured_steps: int | None
) -> None:
    pipeline = make_pipeline()
    calls = count_steps(pipeline)
    prime(pipeline, with_steps(make_case(), 28, measured_steps=measured_steps))
    assert len(calls) == PRIMING_STEPS == 2


def test_a_tool_may_generate_all_steps_beside_the_measured_ones(make_case: Callable[..., Case]) -> None:
    from perf_tests.protocol.messages import Compile, Generate, Load, Quantize

    session = WorkerSession(None)
    session.load(Load(case=with_steps(make_case(), 4, measured_steps=2), device=Device.CPU))
    session.quantize(Quantize())
    session.compile(Compile())
    full = session.generate_other(FLUX_MINI.workload).values
    again = session.generate(Generate()).sample.values
    assert (len(full["denoise_step_ms"]), len(again["denoise_step_ms"])) == (3, 1)
