"""TABLE: what can silently go wrong in a quantized pipeline, and the levels that catch it."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from enum import StrEnum
from typing import Any, TypeVar

import numpy as np
import torch
from torch import nn

from perf_tests.tables.pipelines.cogvideox import COGVIDEOX_MINI
from perf_tests.tables.pipelines.flux import FLUX_MINI
from perf_tests.tables.pipelines.spec import PipelineSpec, Workload
from perf_tests.tables.schemes.rows import FP6_E3M2, FP8WO, INT4DQ, INT8DQ, INT8WO
from perf_tests.tables.schemes.spec import Scheme
from perf_tests.worker.faults import scale_by

LAYER = "single_transformer_blocks.1.proj_mlp"
"""Of the FLUX miniature's transformer: quantized by every scheme."""
NORM = "transformer_blocks.0.norm1.linear"
"""Sees one row per image, so that int8dq leaves it alone."""

T = TypeVar("T")
Filter = Callable[[nn.Module, str], bool]
Quantize = Callable[..., None]
"""torchao's `quantize_`."""
Quantizing = Callable[[Quantize, nn.Module, Any, Filter], None]
"""What happens instead of calling it with the transformer, the config and the filter."""


class Level(StrEnum):
    """What is examined, from the weights to the picture."""

    E = "E"
    """What each module has become."""
    F1 = "F1"
    """Each quantized layer against its bf16 twin."""
    F2 = "F2"
    """The transformer's answers to given inputs of five steps."""
    F3 = "F3"
    """The latents after four steps."""
    F4 = "F4"
    """The pictures."""
    F5 = "F5"
    """All frames of the videos, and how they move."""
    F6 = "F6"
    """Whether they are pictures at all."""


BUILD_CHECK = "build check"
"""A contradiction in what was built; not a metric."""
CATASTROPHE = "catastrophe"
"""An output that is not a picture; not a metric."""
METRICS_OF = {
    Level.E: (BUILD_CHECK,),
    Level.F1: ("layer_sqnr_db", "layer_gain", "layer_worst_row_sqnr_db", "layer_scale_error"),
    Level.F2: ("step_sqnr_db",),
    Level.F3: ("latents_sqnr_db",),
    Level.F4: ("psnr_db", "ssim"),
    Level.F5: ("psnr_mean_db", "psnr_p05_db", "frame_difference_error"),
    Level.F6: (CATASTROPHE,),
}
METRICS = tuple(metric for metrics in METRICS_OF.values() for metric in metrics)


def _as_asked(quantize_: Quantize, transformer: nn.Module, config: Any, wanted: Filter) -> None:
    quantize_(transformer, config, wanted)


def _nothing(_pipeline: Any) -> None: ...


def _same(what: T) -> T:
    return what


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Mutation:
    """One thing that is wrong, in one of four places; everything else is right."""

    name: str
    caught: dict[Level, str]
    """The levels that must catch it -> the metric that does, `BUILD_CHECK` or `CATASTROPHE`."""
    pipeline: PipelineSpec = FLUX_MINI
    scheme: Scheme = INT8WO
    images: int = 1
    """Batch size."""
    quantizing: Quantizing = _as_asked
    assembled: Callable[[Any], object] = _nothing
    """Done to the pipeline once it is quantized."""
    asked: Callable[[Workload], Workload] = _same
    """Workload -> what is generated instead."""
    pictures: Callable[[np.ndarray], np.ndarray] = _same
    """Output (batch, ..., channels) -> what is used instead."""


# While it is quantized


def _scales_off_by_one_percent(
    quantize_: Quantize, transformer: nn.Module, config: Any, wanted: Filter
) -> None:
    quantize_(transformer, config, wanted)
    assert scale_by(transformer.get_submodule(LAYER).weight, 1.01)


def _two_scales_swapped(quantize_: Quantize, transformer: nn.Module, config: Any, wanted: Filter) -> None:
    quantize_(transformer, config, wanted)
    swap_scales(transformer.get_submodule(LAYER).weight)


def swap_scales(weight: Any) -> None:
    """Give each of two rows of a quantized weight the scales of the other, 5 % apart (on average, of groups).

    The second is the next that is at least 5 % above the first.
    """
    rows = weight.scale.float().flatten(1).mean(1)
    ordered = rows.argsort().tolist()
    one = ordered[len(ordered) // 4]
    other = next(row for row in ordered if rows[row] >= 1.05 * rows[one])
    assert float(rows[other] / rows[one]) < 1.06
    weight.scale[[one, other]] = weight.scale[[other, one]]


def _per_tensor(quantize_: Quantize, transformer: nn.Module, _config: Any, wanted: Filter) -> None:
    from torchao.quantization import Int8WeightOnlyConfig, PerTensor  # here: takes seconds to import

    config = Int8WeightOnlyConfig(granularity=PerTensor(), set_inductor_config=False)
    quantize_(transformer, config, wanted)


def _left_unquantized(quantize_: Quantize, transformer: nn.Module, config: Any, wanted: Filter) -> None:
    quantize_(transformer, config, lambda module, name: name != LAYER and wanted(module, name))


def _quantized_as_well(quantize_: Quantize, transformer: nn.Module, config: Any, wanted: Filter) -> None:
    quantize_(transformer, config, lambda module, name: name == NORM or wanted(module, name))


# In the pipeline, and in what it is asked for


def _attention_scale_off_by_ten_percent(pipeline: Any) -> None:
    for name, module in pipeline.transformer.named_modules():
        if name.endswith(".norm_q"):
            module.register_forward_hook(lambda _module, _arguments, query: query * 1.1)


def _a_step_that_changes_nothing(pipeline: Any) -> None:
    scheduler = pipeline.scheduler
    right = scheduler.step

    # `wraps`, because pipelines inspect the signature.
    @functools.wraps(right)
    def step(answer: torch.Tensor, timestep: Any, sample: torch.Tensor, *rest: Any, **keywords: Any) -> Any:
        result = right(answer, timestep, sample, *rest, **keywords)
        return (sample, *result[1:]) if timestep == scheduler.timesteps[2] else result

    scheduler.step = step


def _guidance_of_5_for_6(workload: Workload) -> Workload:
    return dataclasses.replace(workload, arguments={**workload.arguments, "guidance_scale": 5.0})


def _text_tokens_permuted(pipeline: Any) -> None:
    # Before T5, which is sensitive to positions: FLUX's transformer gives its text tokens none.
    for name, part in pipeline.components.items():
        if name.startswith("text_encoder"):
            part.register_forward_pre_hook(_reversed, with_kwargs=True)


def _reversed(
    _module: nn.Module, arguments: tuple[Any, ...], keywords: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    ids, *rest = arguments or (keywords.pop("input_ids"),)
    return (ids.flip(-1), *rest), keywords


def _scaling_factor_off_by_ten_percent(pipeline: Any) -> None:
    pipeline.vae.register_to_config(scaling_factor=pipeline.vae.config.scaling_factor * 1.1)


# In what comes out


def _frame_duplicated(videos: np.ndarray) -> np.ndarray:
    mutated = videos.copy()
    mutated[:, 5] = mutated[:, 4]
    return mutated


def _frames_swapped(videos: np.ndarray) -> np.ndarray:
    mutated = videos.copy()
    mutated[:, [4, 5]] = mutated[:, [5, 4]]
    return mutated


def _last_image_black(images: np.ndarray) -> np.ndarray:
    mutated = images.copy()
    mutated[-1] = 0.0
    return mutated


MUTATIONS = (
    Mutation(
        name="scales-off-by-1-percent",
        caught={Level.F1: "layer_gain"},
        quantizing=_scales_off_by_one_percent,
    ),
    *(
        Mutation(
            name=f"scales-of-two-rows-swapped-{scheme.id}",
            caught={Level.F1: "layer_scale_error"},
            scheme=scheme,
            quantizing=_two_scales_swapped,
        )
        for scheme in (INT8WO, INT8DQ, FP8WO, FP6_E3M2, INT4DQ)
    ),
    Mutation(
        name="per-tensor-for-per-row-scales",
        caught={Level.E: BUILD_CHECK, Level.F1: "layer_sqnr_db"},
        quantizing=_per_tensor,
    ),
    Mutation(
        name="layer-left-unquantized",
        caught={Level.E: BUILD_CHECK, Level.F1: "layer_sqnr_db"},
        quantizing=_left_unquantized,
    ),
    Mutation(
        name="layer-quantized-that-must-not-be",
        caught={Level.E: BUILD_CHECK, Level.F1: "layer_sqnr_db"},
        scheme=INT8DQ,
        quantizing=_quantized_as_well,
    ),
    # Outside every Linear module.
    Mutation(
        name="attention-scale-wrong",
        caught={Level.F2: "step_sqnr_db"},
        assembled=_attention_scale_off_by_ten_percent,
    ),
    Mutation(
        name="step-skipped",
        caught={Level.F3: "latents_sqnr_db"},
        assembled=_a_step_that_changes_nothing,
    ),
    Mutation(
        name="wrong-guidance",
        caught={Level.F3: "latents_sqnr_db"},
        pipeline=COGVIDEOX_MINI,
        asked=_guidance_of_5_for_6,
    ),
    Mutation(
        name="text-tokens-permuted",
        caught={Level.F3: "latents_sqnr_db"},
        assembled=_text_tokens_permuted,
    ),
    Mutation(
        name="vae-scaling-factor-wrong",
        caught={Level.F4: "psnr_db"},
        assembled=_scaling_factor_off_by_ten_percent,
    ),
    Mutation(
        name="frame-duplicated",
        caught={Level.F5: "frame_difference_error"},
        pipeline=COGVIDEOX_MINI,
        pictures=_frame_duplicated,
    ),
    Mutation(
        name="frame-pair-swapped",
        caught={Level.F5: "frame_difference_error"},
        pipeline=COGVIDEOX_MINI,
        pictures=_frames_swapped,
    ),
    Mutation(
        name="black-image-in-a-batch",
        caught={Level.F6: CATASTROPHE},
        images=2,
        pictures=_last_image_black,
    ),
)


def unchanged(mutation: Mutation) -> Mutation:
    """`mutation` with nothing wrong."""
    return Mutation(
        name=f"{mutation.pipeline.id}-b{mutation.images}-{mutation.scheme.id}",
        caught={},
        pipeline=mutation.pipeline,
        scheme=mutation.scheme,
        images=mutation.images,
    )


UNCHANGED = tuple({twin.name: twin for twin in map(unchanged, MUTATIONS)}.values())
"""Each pipeline, scheme and batch size of the table once."""
