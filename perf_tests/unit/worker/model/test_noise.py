"""A case and its reference start from the same noise, whatever their dtypes."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from diffusers.utils.torch_utils import randn_tensor

from perf_tests.protocol.errors import WorkerError
from perf_tests.tables.pipelines.rows import MINIATURES
from perf_tests.tables.pipelines.spec import PipelineSpec
from perf_tests.tables.recipes import Recipe
from perf_tests.tables.schemes.rows import BF16, FP16
from perf_tests.worker.measure.generate import call_arguments
from perf_tests.worker.model import noise

Make = Callable[..., Any]


class Seen(Exception):
    """The transformer was called."""


def first_latents(pipeline: Any, spec: PipelineSpec) -> torch.Tensor:
    """The latents of the transformer's first call."""
    seen: list[torch.Tensor] = []

    def see(_module: object, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> None:
        seen.append((*arguments, keywords.get("hidden_states"))[0])
        raise Seen

    pipeline.transformer.register_forward_pre_hook(see, with_kwargs=True)
    with pytest.raises(Seen):
        pipeline(**call_arguments(spec, dataclasses.replace(spec.workload, steps=2, measured_steps=None)))
    return seen[0]


@pytest.mark.parametrize("spec", MINIATURES, ids=lambda spec: spec.id)
def test_fp16_starts_from_the_noise_of_its_bf16_reference(make_pipeline: Make, spec: PipelineSpec) -> None:
    # Drawn in fp16, the noise would not be rounded to the eight bits of bf16.
    half = first_latents(make_pipeline(Recipe(scheme=FP16), pipeline=spec), spec)
    reference = first_latents(make_pipeline(Recipe(scheme=BF16), pipeline=spec), spec)
    assert (half.dtype, reference.dtype) == (torch.float16, torch.bfloat16)
    assert torch.equal(half, reference.half())
    assert 0.8 < float(half.std()) < 1.2


def test_the_scheduler_draws_as_the_pipeline_does(make_pipeline: Make) -> None:
    pipeline = make_pipeline(Recipe(scheme=FP16))
    draw = sys.modules[type(pipeline.scheduler).__module__].randn_tensor
    drawn = draw((64,), generator=torch.Generator().manual_seed(0), dtype=torch.float16)
    rounded = torch.randn(64, generator=torch.Generator().manual_seed(0), dtype=torch.bfloat16).half()
    assert torch.equal(drawn, rounded)


def test_the_next_build_draws_in_its_own_dtype_again(make_pipeline: Make) -> None:
    make_pipeline(Recipe(scheme=FP16))
    pipeline = make_pipeline(Recipe(scheme=BF16))
    assert sys.modules[type(pipeline).__module__].randn_tensor is randn_tensor


def test_a_pipeline_that_draws_in_another_way_is_refused() -> None:
    stranger = SimpleNamespace(scheduler=SimpleNamespace())
    with pytest.raises(WorkerError, match="SimpleNamespace does not draw its noise by randn_tensor"):
        noise.draw_in(stranger, torch.bfloat16)
