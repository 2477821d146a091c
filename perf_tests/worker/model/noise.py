"""The noise that a pipeline starts from, in the dtype of its reference.

What `torch.randn` draws on a CPU depends on the dtype. With one seed, float32, float16 and bfloat16 give
numbers that are independent of one another in torch 2.11 (huggingface/diffusers#11056), and that differ by
rounding in torch 2.13 (pytorch/pytorch#179834). A case in another dtype than its reference would generate
another picture.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, Final

import torch
from diffusers.utils.torch_utils import randn_tensor

from perf_tests.protocol.errors import WorkerError
from perf_tests.protocol.messages import Failure, FailureKind, Phase

DRAW: Final = "randn_tensor"
"""Name under which modules of diffusers hold the function that draws."""


def draw_in(pipeline: Any, dtype: torch.dtype | None) -> None:
    """Let `pipeline` and its scheduler draw noise in `dtype`, and round it to the dtype that they ask for.

    None: draw in the dtype that they ask for. It holds for all pipelines of these classes, until the next
    call. Raises WorkerError(load) where the pipeline does not draw by diffusers' own function.
    """
    draw = randn_tensor if dtype is None else _drawing_in(dtype)
    holders = [sys.modules[type(each).__module__] for each in (pipeline, pipeline.scheduler)]
    if not hasattr(holders[0], DRAW):
        message = f"{type(pipeline).__name__} does not draw its noise by {DRAW}: its dtype is out of reach"
        raise WorkerError(Failure(kind=FailureKind.LOAD, phase=Phase.LOAD, message=message))
    for holder in holders:
        if hasattr(holder, DRAW):
            setattr(holder, DRAW, draw)


def _drawing_in(drawn: torch.dtype) -> Callable[..., torch.Tensor]:
    def draw(
        shape: Any, generator: Any = None, device: Any = None, dtype: Any = None, **rest: Any
    ) -> torch.Tensor:
        noise: torch.Tensor = randn_tensor(shape, generator, device, drawn, **rest)
        return noise.to(dtype)

    return draw
