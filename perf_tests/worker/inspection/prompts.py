"""Whether another prompt makes a difference, as it does in any sound pipeline, with any weights."""

from __future__ import annotations

import dataclasses
import hashlib
from typing import Any

import torch

from perf_tests.tables.cases import Case
from perf_tests.tables.pipelines.spec import PROMPTS, Workload
from perf_tests.worker.measure import early_stop
from perf_tests.worker.measure.generate import call_arguments

TEXT_INPUTS = ("encoder_hidden_states", "pooled_projections")
"""Keywords by which the pipelines hand their transformer what the text encoders made of the prompt."""
STEPS = 2
"""Denoise steps before the latents of two prompts are compared."""


def differences(pipeline: Any, case: Case) -> dict[str, float]:
    """Metric name -> value, of an eager, unquantized `pipeline`, one image at a time.

    Every prompt starts from the same noise. Only a reference takes steps: what is compared with one shares
    this part of the pipeline with it.
    """
    inputs = [_text_inputs(pipeline, case, pair) for pair in range(PROMPTS)]
    found = {}
    if all(inputs):
        different = [len({each.get(name) for each in inputs}) for name in inputs[0]]
        found["distinct_prompt_embeddings"] = float(min(different))
    if case.is_reference:
        latents = {_latents(pipeline, case, pair) for pair in range(2)}
        found["distinct_prompt_latents"] = float(len(latents))
    return found


def _text_inputs(pipeline: Any, case: Case, pair: int) -> dict[str, str]:
    """Keyword -> digest of what the transformer is first called with."""
    found: dict[str, str] = {}

    def keep(_module: Any, _arguments: tuple[Any, ...], keywords: dict[str, Any]) -> None:
        given = {name: keywords[name] for name in TEXT_INPUTS if keywords.get(name) is not None}
        found.update({name: _digest(tensor) for name, tensor in given.items()})
        early_stop.stop()

    hook = pipeline.transformer.register_forward_pre_hook(keep, with_kwargs=True)
    try:
        with early_stop.stoppable():
            pipeline(**call_arguments(case.build.pipeline, _of_prompt(case, pair)))
    finally:
        hook.remove()
    return found


def _latents(pipeline: Any, case: Case, pair: int) -> str:
    """Digest of the latents after `STEPS` steps."""
    digests: list[str] = []
    with early_stop.after_steps(pipeline, STEPS, after_step=lambda each: digests.append(_digest(each))):
        pipeline(**call_arguments(case.build.pipeline, _of_prompt(case, pair)))
    return digests[-1]


def _of_prompt(case: Case, pair: int) -> Workload:
    """The workload of one image, with the prompt of `pair` and the noise of the first."""
    first = case.workload
    return dataclasses.replace(
        first.of_prompt(pair), seed=first.seed, batch_size=1, steps=STEPS, measured_steps=None
    )


def _digest(tensor: torch.Tensor) -> str:
    """sha256 of the values of `tensor` as float32."""
    return hashlib.sha256(tensor.detach().cpu().float().contiguous().numpy().data).hexdigest()
