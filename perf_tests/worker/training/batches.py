"""What FLUX is trained on: latents, texts and noise from a seed, the same on every device."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import torch

from perf_tests.tables.cases import Case
from perf_tests.tables.pipelines.spec import PipelineSpec

STEP_SEEDS: Final = 1000
"""Seeds between those of two pairs: more than there are steps."""
REDRAWN: Final = 500
"""Beyond the seed of a step, that of its redrawn noise."""


@dataclass(frozen=True, slots=True)
class Batch:
    """One step's input, and what the transformer is to answer."""

    arguments: dict[str, Any]
    """Of the transformer's call."""
    target: torch.Tensor


def batches(case: Case, device: torch.device, *, pair: int = 0, redrawn: bool = False) -> list[Batch]:
    """The batches of all steps of one seed; `redrawn` are the same with other noise.

    Flow matching: between latents x and noise e, at (1 - t) x + t e, the answer is to be e - x.
    """
    training = case.build.recipe.training
    assert training is not None, f"{case.id} does not train"
    first = case.workload.of_prompt(pair).seed * STEP_SEEDS
    return [_batch(case, device, first + step, redrawn=redrawn) for step in range(training.steps)]


def _batch(case: Case, device: torch.device, seed: int, *, redrawn: bool) -> Batch:
    spec, size = case.build.pipeline, case.workload.batch_size
    config: Mapping[str, Any] = spec.modules["transformer"].config
    dtype = getattr(torch, case.build.recipe.scheme.dtype)
    given = torch.Generator("cpu").manual_seed(seed)
    rows, columns = _grid(spec, case.workload.height, case.workload.width)
    shape = (size, rows * columns, config["in_channels"])
    texts: Any = case.workload.arguments["max_sequence_length"]
    latents = torch.randn(shape, generator=given)
    time = torch.rand(size, generator=given)
    text = torch.randn(size, texts, config["joint_attention_dim"], generator=given)
    pooled = torch.randn(size, config["pooled_projection_dim"], generator=given)
    noise = torch.randn(shape, generator=given.manual_seed(seed + REDRAWN) if redrawn else given)
    share = time[:, None, None]
    arguments = {
        "hidden_states": ((1 - share) * latents + share * noise).to(dtype),
        "timestep": time.to(dtype),
        "encoder_hidden_states": text.to(dtype),
        "pooled_projections": pooled.to(dtype),
        "img_ids": _positions(rows, columns).to(dtype),
        "txt_ids": torch.zeros(texts, 3).to(dtype),
        **({"guidance": torch.ones(size)} if config["guidance_embeds"] else {}),
    }
    moved = {name: each.to(device) for name, each in arguments.items()}
    return Batch({**moved, "return_dict": False}, (noise - latents).to(device))


def _grid(spec: PipelineSpec, height: int, width: int) -> tuple[int, int]:
    """Rows and columns of tokens: each is two by two latents, of which the VAE makes one from a square."""
    levels = spec.modules["vae"].config["block_out_channels"]
    assert isinstance(levels, tuple)
    side = 2 ** len(levels)
    return height // side, width // side


def _positions(rows: int, columns: int) -> torch.Tensor:
    grid = torch.zeros(rows, columns, 3)
    grid[..., 1] = torch.arange(rows)[:, None]
    grid[..., 2] = torch.arange(columns)[None]
    return grid.reshape(rows * columns, 3)
