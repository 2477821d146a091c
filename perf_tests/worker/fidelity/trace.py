"""A transformer's answers to the inputs of five steps, and the latents after four of them."""

from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import torch

from perf_tests.protocol.reports import Arrays
from perf_tests.tables.cases import Case
from perf_tests.worker.measure import early_stop
from perf_tests.worker.measure.generate import call_arguments, unproven

STEPS = 5
"""Steps of the schedule, from pure noise to the picture: a transformer's errors differ between its ends."""
LATENTS_AFTER = 4
"""Steps before the latents are compared."""


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class TransformerTrace:
    """A recording over one schedule, all in host memory, so that it outlives what was on the device."""

    calls: tuple[Any, ...]
    """Arguments and keyword arguments of each of the transformer's calls."""
    answers: tuple[torch.Tensor, ...]
    """float32, in the shape of the latents or of their tokens."""
    latents: torch.Tensor
    """float32, after `LATENTS_AFTER` steps."""


def record(pipeline: Any, case: Case) -> TransformerTrace:
    """The trace of `case`, at its batch size; nothing stays attached to `pipeline`.

    Raises WorkerError(unproven) where the scheduler takes another number of steps than asked for.
    """
    calls: list[Any] = []
    answers: list[torch.Tensor] = []

    def keep_call(_module: Any, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> None:
        calls.append(_copied((arguments, keywords), torch.device("cpu")))

    def keep_answer(_module: Any, _arguments: tuple[Any, ...], output: Any) -> None:
        answers.append(_plain(output[0]))

    hooks = (
        pipeline.transformer.register_forward_pre_hook(keep_call, with_kwargs=True),
        pipeline.transformer.register_forward_hook(keep_answer),
    )
    try:
        latents = _stepped(pipeline, case, STEPS)
    finally:
        for hook in hooks:
            hook.remove()
    return TransformerTrace(calls=tuple(calls), answers=tuple(answers), latents=latents[LATENTS_AFTER - 1])


def repeat(pipeline: Any, case: Case, before: TransformerTrace, device: torch.device) -> TransformerTrace:
    """What `pipeline` answers now to the calls of `before` (teacher forcing), and its own latents.

    Raises WorkerError(unproven) where the scheduler takes another number of steps than asked for.
    """
    answers = []
    with torch.no_grad():
        for call in before.calls:
            arguments, keywords = _copied(call, device)
            answers.append(_plain(pipeline.transformer(*arguments, **keywords)[0]))
    latents = _stepped(pipeline, case, LATENTS_AFTER)[-1]
    return TransformerTrace(calls=before.calls, answers=tuple(answers), latents=latents)


def save(trace: TransformerTrace, file: str) -> Arrays:
    """Write `file`, an `.npz` of `answers` (calls, ...) and `latents`, both float32."""
    path = Path(file)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as opened:
        np.savez(opened, answers=torch.stack(trace.answers).numpy(), latents=trace.latents.numpy())
    return Arrays(file=file, sha256=hashlib.sha256(path.read_bytes()).hexdigest())


def _stepped(pipeline: Any, case: Case, steps: int) -> list[torch.Tensor]:
    """The latents after each of the first `steps` steps of a schedule of `STEPS`."""
    workload = dataclasses.replace(case.workload, steps=STEPS, measured_steps=None)
    latents: list[torch.Tensor] = []
    with early_stop.after_steps(pipeline, steps, after_step=lambda each: latents.append(_plain(each))):
        pipeline(**call_arguments(case.build.pipeline, workload))
    if len(latents) != steps:
        unproven(f"asked for {steps} steps of {STEPS}, the scheduler ran {len(latents)}")
    return latents


def _plain(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.detach().to("cpu", torch.float32, copy=True)


def _copied(value: Any, device: torch.device) -> Any:
    """`value` with every tensor in it copied to `device`: pipelines may modify what they have passed on."""
    if isinstance(value, torch.Tensor):
        return value.detach().to(device, copy=True)
    if isinstance(value, dict):
        return {key: _copied(item, device) for key, item in value.items()}
    if isinstance(value, (tuple, list)):
        return type(value)(_copied(item, device) for item in value)
    return value
