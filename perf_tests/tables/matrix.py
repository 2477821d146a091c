"""TABLE: which combinations are cases, and on which platforms."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator
from dataclasses import dataclass

from perf_tests.tables.cases import Row, Weights
from perf_tests.tables.pipelines.auraflow import AURAFLOW
from perf_tests.tables.pipelines.cogvideox import COGVIDEOX_2B, COGVIDEOX_5B, COGVIDEOX_MINI
from perf_tests.tables.pipelines.flux import FLUX1_DEV, FLUX1_DEV_SLIM, FLUX1_SCHNELL, FLUX_MINI
from perf_tests.tables.pipelines.llama import LLAMA_MINI
from perf_tests.tables.pipelines.pixart import PIXART_MINI, PIXART_SIGMA
from perf_tests.tables.pipelines.rows import MINIATURES
from perf_tests.tables.pipelines.sd3 import SD3_MEDIUM
from perf_tests.tables.pipelines.spec import PipelineSpec, Workload
from perf_tests.tables.platforms import A100, B200, CPU, H100, H200, Platform
from perf_tests.tables.recipes import INT8_GEMM, NO_ONEDNN, CompileMode, Loader, Recipe, Setting
from perf_tests.tables.rows import compile_modes, memory_ladder, quantized_alone, reshaped, twinned
from perf_tests.tables.schemes.rows import (
    AUTOQUANT,
    BF16,
    FP4_E2M1,
    FP5_E2M2,
    FP6_E3M2,
    FP8DQ,
    FP8DQROW,
    FP8WO,
    FP16,
    INT4DQ,
    INT4WO,
    INT8DQ,
    INT8DQ_SPARSE24,
    INT8WO,
    MXFP8,
    NVFP4,
    SCHEMES,
)
from perf_tests.tables.schemes.spec import Scheme
from perf_tests.tables.training import rows as trained

EAGER, REGIONAL = CompileMode.EAGER, CompileMode.REGIONAL

CPU_REGULAR_ROWS = (
    *(
        Row(pipeline=FLUX_MINI, recipe=recipe, platforms=(CPU,))
        for recipe in (
            Recipe(scheme=BF16),
            Recipe(scheme=INT8WO),
            Recipe(scheme=INT8DQ),
            Recipe(scheme=FP8WO),
            Recipe(scheme=BF16, compile=REGIONAL),
            Recipe(scheme=INT8DQ, compile=REGIONAL),
            Recipe(scheme=INT8WO, fuse_qkv=True),
            Recipe(scheme=INT4DQ),
            Recipe(
                scheme=INT8WO,
                quantized_components=("transformer", "text_encoder_2", "vae"),
                channels_last=True,
            ),
        )
    ),
    Row(
        pipeline=FLUX_MINI,
        recipe=Recipe(scheme=INT8WO),
        platforms=(CPU,),
        workload=dataclasses.replace(FLUX_MINI.workload, batch_size=4),
    ),
    # Last of their pipeline: they are verified alone, and need no fp32 twin.
    *(
        Row(pipeline=FLUX_MINI, recipe=recipe, platforms=(CPU,))
        for recipe in (
            Recipe(scheme=INT8WO, loader=Loader.TORCH_SAVE),
            memory_ladder.REGULAR_ON_CPU,
            *trained.MINI,
        )
    ),
    # Of schemes that only store weights, one on a video is enough: fp8wo is in the cross product.
    *(
        Row(pipeline=COGVIDEOX_MINI, recipe=recipe, platforms=(CPU,))
        for recipe in (
            Recipe(scheme=BF16),
            Recipe(scheme=INT8DQ),
            Recipe(scheme=BF16, compile=REGIONAL),
            Recipe(scheme=INT8WO, compile=REGIONAL),
        )
    ),
    reshaped.REGULAR_ON_CPU,
    Row(pipeline=LLAMA_MINI, recipe=quantized_alone.REGULAR_ON_CPU, platforms=(CPU,)),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Uncompilable:
    """Schemes that inductor cannot compile for a CPU in one pipeline: verified eager only."""

    pipeline: PipelineSpec
    schemes: tuple[Scheme, ...]
    reason: str


UNCOMPILABLE = (
    Uncompilable(
        pipeline=PIXART_MINI,
        schemes=(INT8DQ, INT4DQ, AUTOQUANT),
        reason="g++ rejects what torch 2.10, 2.11, 2.13, 2.14.1 and 2.15 alike generate, with torchao 0.18 "
        "(conflicting declaration 'at_BFloat16_tmp_acc0_vec'): "
        "the minimum of activations that three projections quantize is stored three times under one name; "
        "autoquant may choose int8dq",
    ),
)


def _cross_product(regular: tuple[Row, ...]) -> Iterator[Row]:
    """Every scheme on every miniature, eager, and compiled where that works; without the `regular` rows."""
    known = {row.case(Weights.SYNTHETIC).id for row in regular}
    uncompiled = {(each.pipeline.id, scheme.id) for each in UNCOMPILABLE for scheme in each.schemes}
    for pipeline, scheme, mode in itertools.product(MINIATURES, SCHEMES, (EAGER, REGIONAL)):
        compiles = scheme.id in CPU.required_schemes and (pipeline.id, scheme.id) not in uncompiled
        row = Row(
            pipeline=pipeline,
            recipe=Recipe(scheme=scheme, compile=mode),
            platforms=(CPU,),
            exhaustive=True,
        )
        if (compiles or mode is EAGER) and row.case(Weights.SYNTHETIC).id not in known:
            yield row


def _further(regular: tuple[Row, ...]) -> Iterator[Row]:
    known = [(row.pipeline, row.recipe) for row in regular]
    further = (
        *((FLUX_MINI, recipe) for recipe in (*twinned.TWINNED, *trained.MINI_EXHAUSTIVE)),
        *((LLAMA_MINI, recipe) for recipe in quantized_alone.PUBLISHED),
    )
    for pipeline, recipe in further:
        if (pipeline, recipe) not in known:
            yield Row(pipeline=pipeline, recipe=recipe, platforms=(CPU,), exhaustive=True)


CPU_ROWS = (
    *CPU_REGULAR_ROWS,
    *_cross_product(CPU_REGULAR_ROWS),
    *_further(CPU_REGULAR_ROWS),
    *memory_ladder.CPU_ROWS,
    *compile_modes.CPU_ROWS,
    *reshaped.CPU_ROWS,
)
WITH_FLOAT8_UNITS = (H100, H200, B200)
"""The GPUs that every row runs on; where the kernels of a scheme are missing, it is `UNSUPPORTED`."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SlowScheme:
    """A scheme whose denoise step takes seconds to minutes today, so that few of them are generated."""

    scheme: Scheme
    compile: CompileMode
    measured_steps: int
    reason: str


SLOW_SCHEMES = (
    SlowScheme(
        scheme=INT8DQ,
        compile=EAGER,
        measured_steps=3,
        reason="published as 130 s per image of FLUX.1-dev",
    ),
    SlowScheme(
        scheme=INT4WO,
        compile=EAGER,
        measured_steps=3,
        reason="its kernel is made for few tokens: a pair of FLUX.1-dev's feed-forward layers takes 23 ms",
    ),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class RequiredSettings:
    """Settings without which a scheme, compiled in this mode, is not what its users expect on a GPU."""

    scheme: Scheme
    compile: CompileMode
    settings: tuple[Setting, ...]


GPU_SETTINGS = (
    RequiredSettings(scheme=INT8WO, compile=REGIONAL, settings=(NO_ONEDNN,)),
    RequiredSettings(scheme=INT8DQ, compile=REGIONAL, settings=(INT8_GEMM,)),
    # int8wo is one of its candidates.
    RequiredSettings(scheme=AUTOQUANT, compile=REGIONAL, settings=(NO_ONEDNN,)),
)


def gpu_recipe(recipe: Recipe) -> Recipe:
    """`recipe` with the settings that it needs on a GPU, too."""
    needed = [each for each in GPU_SETTINGS if (each.scheme, each.compile) == (recipe.scheme, recipe.compile)]
    settings = tuple(setting for each in needed for setting in each.settings)
    return dataclasses.replace(recipe, settings=(*recipe.settings, *settings))


def gpu_platforms(scheme: Scheme) -> tuple[Platform, ...]:
    """The GPUs that cases of `scheme` are measured on: an A100 only where it has the kernels, because a
    quarter of all rows need float8."""
    return (*WITH_FLOAT8_UNITS, A100) if scheme.id in A100.required_schemes else WITH_FLOAT8_UNITS


def gpu_workload(pipeline: PipelineSpec, recipe: Recipe, batch_size: int) -> Workload:
    """The pipeline's default workload at `batch_size`, with as many generated steps as are affordable."""
    default = pipeline.workload_of_batch(batch_size)
    few = (
        slow.measured_steps
        for slow in SLOW_SCHEMES
        if (slow.scheme, slow.compile) == (recipe.scheme, recipe.compile)
    )
    generated_steps = min((default.generated_steps, *few))
    measured_steps = generated_steps if generated_steps < default.steps else None
    return dataclasses.replace(default, measured_steps=measured_steps)


def _both_modes(
    *schemes: Scheme,
    fused: tuple[bool, ...] = (False,),
    quantized_components: tuple[str, ...] = ("transformer",),
) -> tuple[Recipe, ...]:
    """Each scheme eager and compiled, with each of `fused`."""
    return tuple(
        Recipe(scheme=scheme, compile=mode, fuse_qkv=fuse, quantized_components=quantized_components)
        for scheme in schemes
        for mode in (EAGER, REGIONAL)
        for fuse in fused
    )


def _regional(*schemes: Scheme) -> tuple[Recipe, ...]:
    return tuple(Recipe(scheme=scheme, compile=REGIONAL) for scheme in schemes)


EITHER = (False, True)
WITH_TEXT_ENCODER = ("transformer", "text_encoder")

# What has been published (tables/published.py), on any GPU.
FLUX_PUBLISHED = (*_both_modes(BF16), *_both_modes(FP8DQ, FP8WO, INT8DQ, INT8WO, fused=EITHER))
FLUX_PUBLISHED_FP8DQROW = tuple(
    Recipe(scheme=FP8DQROW, compile=REGIONAL, fuse_qkv=fuse, compile_vae=vae)
    for fuse in EITHER
    for vae in EITHER
)
FLUX_PUBLISHED_BATCH_16 = (
    Recipe(scheme=BF16),
    *_regional(FP8DQ, FP8DQROW),
    Recipe(scheme=FP8DQ, compile=REGIONAL, compile_vae=True),
    Recipe(scheme=FP8DQROW, compile=REGIONAL, compile_vae=True),
    Recipe(scheme=FP8DQ, compile=REGIONAL, fuse_qkv=True),
    Recipe(scheme=FP6_E3M2, compile=REGIONAL),
    *(
        Recipe(scheme=scheme, compile=REGIONAL, fuse_qkv=fuse, compile_vae=not fuse)
        for scheme in (FP6_E3M2, FP4_E2M1)
        for fuse in EITHER
    ),
    *(
        Recipe(scheme=INT8DQ_SPARSE24, compile=REGIONAL, fuse_qkv=fuse, compile_vae=vae)
        for fuse in EITHER
        for vae in EITHER
    ),
)
COGVIDEOX_PUBLISHED = (
    *_both_modes(FP16, BF16, fused=EITHER),
    *_both_modes(
        *(INT8WO, INT8DQ, INT4WO, INT4DQ, FP6_E3M2, AUTOQUANT),
        fused=EITHER,
        quantized_components=WITH_TEXT_ENCODER,
    ),
    *(
        Recipe(scheme=INT8DQ_SPARSE24, fuse_qkv=fuse, quantized_components=WITH_TEXT_ENCODER)
        for fuse in EITHER
    ),
)
COGVIDEOX_5B_PUBLISHED = (
    *COGVIDEOX_PUBLISHED,
    *_both_modes(FP8DQ, fused=(True,), quantized_components=WITH_TEXT_ENCODER),
    *_both_modes(FP8DQROW, FP5_E2M2, FP4_E2M1, fused=EITHER, quantized_components=WITH_TEXT_ENCODER),
)

# What has not been published.
FLUX_FURTHER = (
    Recipe(scheme=INT4WO),
    Recipe(scheme=INT4DQ),
    *_regional(INT8DQ_SPARSE24, AUTOQUANT, NVFP4, MXFP8),
    *(
        Recipe(scheme=scheme, compile=REGIONAL, quantized_components=("transformer", "vae"))
        for scheme in (FP6_E3M2, FP4_E2M1)
    ),
    Recipe(scheme=FP8DQROW, compile=REGIONAL, channels_last=True),
    Recipe(scheme=FP8DQROW, compile=REGIONAL, compile_vae=True, quantized_components=("transformer", "vae")),
    *(Recipe(scheme=INT8WO, quantized_on=where) for where in twinned.STARTING_ON_HOST),
)
EVERY_SIZE = (
    Recipe(scheme=BF16),
    Recipe(scheme=BF16, compile=REGIONAL),
    Recipe(scheme=INT8WO),
    *_regional(FP8WO, INT8DQ, FP8DQ, FP8DQROW),
)

# As published: saved by torch.save, loaded into a model without weights.
SCHNELL_LOADED = tuple(Recipe(scheme=scheme, loader=Loader.TORCH_SAVE) for scheme in (BF16, INT8WO))

COMBINATIONS: tuple[tuple[PipelineSpec, int, tuple[Recipe, ...]], ...] = (
    (FLUX1_DEV, 1, (*FLUX_PUBLISHED, *FLUX_PUBLISHED_FP8DQROW, *FLUX_FURTHER)),
    (FLUX1_DEV, 4, (*FLUX_PUBLISHED, *FLUX_PUBLISHED_FP8DQROW)),
    (FLUX1_DEV, 8, FLUX_PUBLISHED),
    (FLUX1_DEV, 16, FLUX_PUBLISHED_BATCH_16),
    (COGVIDEOX_5B, 1, COGVIDEOX_5B_PUBLISHED),
    (COGVIDEOX_2B, 1, (*COGVIDEOX_PUBLISHED, *EVERY_SIZE)),
    (FLUX1_SCHNELL, 1, (*EVERY_SIZE, *SCHNELL_LOADED)),
    (FLUX1_DEV_SLIM, 1, (Recipe(scheme=BF16), *_regional(BF16, FP8DQROW))),
    (SD3_MEDIUM, 1, EVERY_SIZE),
    (PIXART_SIGMA, 1, EVERY_SIZE),
    (AURAFLOW, 1, EVERY_SIZE),
    *memory_ladder.LADDER,
    *compile_modes.ON_GPUS,
    *trained.ON_GPUS,
    *reshaped.ON_GPUS,
    *quantized_alone.ON_GPUS,
)
"""Pipeline, batch size, recipes."""


def _gpu_row(pipeline: PipelineSpec, recipe: Recipe, batch_size: int = 1) -> Row:
    workload = gpu_workload(pipeline, recipe, batch_size)
    return Row(
        pipeline=pipeline,
        recipe=gpu_recipe(recipe),
        platforms=gpu_platforms(recipe.scheme) if recipe.training is None else WITH_FLOAT8_UNITS,
        workload=workload,
    )


def _once(*rows: Row) -> tuple[Row, ...]:
    """`rows`, each where it is first named."""
    kept: list[Row] = []
    for row in rows:
        if row not in kept:
            kept.append(row)
    return tuple(kept)


FOUR_STEPS = dataclasses.replace(COGVIDEOX_5B.workload, steps=4, measured_steps=None)
"""A whole video in few steps: enough to judge all of its frames."""

GPU_ROWS = _once(
    *(
        _gpu_row(FLUX1_DEV, recipe)
        for recipe in (
            Recipe(scheme=BF16),
            Recipe(scheme=BF16, compile=REGIONAL),
            Recipe(scheme=FP8DQROW),
            Recipe(scheme=FP8DQROW, compile=REGIONAL),
            Recipe(scheme=FP8DQROW, compile=REGIONAL, fuse_qkv=True),
            Recipe(scheme=FP8DQ, compile=REGIONAL),
        )
    ),
    # What inductor makes of int8dq without the settings of `GPU_SETTINGS`.
    Row(
        pipeline=FLUX1_DEV,
        recipe=Recipe(scheme=INT8DQ, compile=REGIONAL),
        platforms=gpu_platforms(INT8DQ),
    ),
    Row(
        pipeline=COGVIDEOX_5B,
        recipe=Recipe(scheme=BF16),
        platforms=gpu_platforms(BF16),
        workload=FOUR_STEPS,
    ),
    Row(
        pipeline=COGVIDEOX_5B,
        recipe=Recipe(scheme=FP8DQROW),
        platforms=gpu_platforms(FP8DQROW),
        workload=FOUR_STEPS,
    ),
    *(
        _gpu_row(pipeline, recipe, batch_size)
        for pipeline, batch_size, recipes in COMBINATIONS
        for recipe in recipes
    ),
)

MATRIX = (*CPU_ROWS, *GPU_ROWS)
