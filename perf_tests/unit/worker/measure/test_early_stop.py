"""A pipeline's call ends where it is told to, without an error, and nothing stays attached."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from perf_tests.tables.cases import Case
from perf_tests.worker.measure import early_stop
from perf_tests.worker.measure.generate import call_arguments

Make = Callable[..., Any]


def logged(pipeline: Any) -> list[str]:
    """A list that grows with each call of the transformer and of the decoder."""
    log: list[str] = []
    pipeline.transformer.register_forward_pre_hook(lambda *_: log.append("transformer"))
    decode = pipeline.vae.decode

    def logging(*args: Any, **kwargs: Any) -> Any:
        log.append("decode")
        return decode(*args, **kwargs)

    pipeline.vae.decode = logging
    return log


def generate(pipeline: Any, case: Case, steps: int) -> None:
    workload = dataclasses.replace(case.workload, steps=steps)
    pipeline(**call_arguments(case.build.pipeline, workload))


def test_a_block_ends_where_stop_is_called() -> None:
    done = []
    with early_stop.stoppable():
        done.append("before")
        early_stop.stop()
        done.append("after")
    assert done == ["before"]


def test_an_error_is_not_taken_for_a_stop() -> None:
    with pytest.raises(ZeroDivisionError), early_stop.stoppable():
        _ = 1 / 0


def test_a_call_ends_after_two_steps_of_three(make_pipeline: Make, make_case: Callable[..., Case]) -> None:
    pipeline = make_pipeline()
    log = logged(pipeline)
    latents: list[torch.Tensor] = []
    before = pipeline.scheduler.set_timesteps, pipeline.scheduler.step
    with early_stop.after_steps(
        pipeline, 2, at_timesteps=lambda: log.append("timesteps"), after_step=latents.append
    ):
        generate(pipeline, make_case(), steps=3)
    assert log == ["timesteps", "transformer", "transformer"]
    assert [each.shape for each in latents] == [torch.Size([1, 64, 16])] * 2
    assert (pipeline.scheduler.set_timesteps, pipeline.scheduler.step) == before


def test_a_call_that_takes_fewer_steps_ends_by_itself(
    make_pipeline: Make, make_case: Callable[..., Case]
) -> None:
    pipeline = make_pipeline()
    log = logged(pipeline)
    with early_stop.after_steps(pipeline, 3):
        generate(pipeline, make_case(), steps=1)
    assert log == ["transformer", "decode"]


def test_a_scheduler_is_restored_after_an_error(make_pipeline: Make) -> None:
    pipeline = make_pipeline()
    before = pipeline.scheduler.set_timesteps, pipeline.scheduler.step
    with pytest.raises(ZeroDivisionError), early_stop.after_steps(pipeline, 1):
        _ = 1 / 0
    assert (pipeline.scheduler.set_timesteps, pipeline.scheduler.step) == before


def test_a_module_is_called_once_and_hooks_that_were_there_see_the_answer() -> None:
    module = nn.Linear(2, 2)
    answers: list[torch.Tensor] = []
    module.register_forward_hook(lambda _module, _arguments, output: answers.append(output))
    with early_stop.after_one_call(module):
        for _ in range(3):
            module(torch.ones(2))
    assert len(answers) == 1
    module(torch.ones(2))
    assert len(answers) == 2
