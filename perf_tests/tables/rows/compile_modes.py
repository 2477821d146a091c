"""TABLE: the recipes of other compile modes: packages, a whole transformer that is tuned, CUDA graphs."""

from __future__ import annotations

from perf_tests.tables.cases import Row
from perf_tests.tables.pipelines.flux import FLUX1_DEV, FLUX1_DEV_SLIM, FLUX1_SCHNELL, FLUX_MINI
from perf_tests.tables.pipelines.pixart import PIXART_MINI
from perf_tests.tables.pipelines.spec import PipelineSpec
from perf_tests.tables.platforms import CPU
from perf_tests.tables.recipes import COORDINATE_DESCENT, EAGER_CASTS, CompileMode, Recipe, Setting
from perf_tests.tables.schemes.rows import BF16, FP8DQROW, INT8WO
from perf_tests.tables.schemes.spec import Scheme


def packaged(*schemes: Scheme) -> tuple[Recipe, ...]:
    """Each scheme with the repeated blocks of packages."""
    return tuple(Recipe(scheme=scheme, compile=CompileMode.AOTI) for scheme in schemes)


def autotuned(
    scheme: Scheme, *, fuse_qkv: bool = False, compile_vae: bool = False, further: tuple[Setting, ...] = ()
) -> Recipe:
    """The scheme as the published benchmark compiles it, with `further` settings."""
    return Recipe(
        scheme=scheme,
        compile=CompileMode.MAX_AUTOTUNE,
        fuse_qkv=fuse_qkv,
        compile_vae=compile_vae,
        channels_last=True,
        settings=(COORDINATE_DESCENT, *further),
    )


CPU_ROWS = tuple(
    Row(pipeline=pipeline, recipe=recipe, platforms=(CPU,), exhaustive=True)
    for pipeline, recipe in (
        # The smallest miniature with a single class of blocks: packaging takes 16 to 31 s for each.
        (PIXART_MINI, Recipe(scheme=INT8WO, compile=CompileMode.AOTI)),
        (FLUX_MINI, autotuned(BF16)),
    )
)
"""Of the cross product."""
# What one launch a step saves is the host's time between kernels, the more the faster these are.
GRAPHED = Recipe(scheme=FP8DQROW, compile=CompileMode.REGIONAL, cuda_graph=True)
# Of which the picture is eager's: what that costs.
ROUNDED = autotuned(BF16, further=(EAGER_CASTS,))
ON_GPUS: tuple[tuple[PipelineSpec, int, tuple[Recipe, ...]], ...] = (
    (FLUX1_DEV_SLIM, 1, (*packaged(BF16, FP8DQROW), autotuned(BF16), autotuned(FP8DQROW), ROUNDED, GRAPHED)),
    (FLUX1_SCHNELL, 1, (GRAPHED,)),
    # Of CogVideoX no row: the published recipe of FLUX.1-dev already compiles for 20 minutes.
    (
        FLUX1_DEV,
        1,
        (
            *packaged(BF16, FP8DQROW),
            autotuned(BF16),
            autotuned(FP8DQROW, fuse_qkv=True, compile_vae=True),
            GRAPHED,
        ),
    ),
)
"""Pipeline, batch size, recipes of the rows on GPUs."""
