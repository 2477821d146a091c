"""TABLE: the recipes of builds that generate in several shapes."""

from __future__ import annotations

from perf_tests.tables.cases import Row
from perf_tests.tables.pipelines.flux import FLUX1_DEV, FLUX1_DEV_SLIM, FLUX_MINI
from perf_tests.tables.pipelines.pixart import PIXART_MINI
from perf_tests.tables.pipelines.spec import PipelineSpec
from perf_tests.tables.platforms import CPU
from perf_tests.tables.recipes import CompileMode, Recipe
from perf_tests.tables.reshaping import Reshaping
from perf_tests.tables.schemes.rows import BF16, FP8DQROW
from perf_tests.tables.schemes.spec import Scheme


def _reshaped(scheme: Scheme) -> tuple[Recipe, ...]:
    return tuple(
        Recipe(scheme=scheme, compile=CompileMode.REGIONAL, reshaping=Reshaping(dynamic=dynamic))
        for dynamic in (False, True)
    )


# The cheapest of them: its blocks are of one class, and compiled for any shape.
REGULAR_ON_CPU = Row(
    pipeline=PIXART_MINI,
    recipe=Recipe(scheme=BF16, compile=CompileMode.REGIONAL, reshaping=Reshaping(dynamic=True)),
    platforms=(CPU,),
)
# Compiled for each shape, they take a processor minutes.
CPU_ROWS = tuple(
    Row(pipeline=FLUX_MINI, recipe=recipe, platforms=(CPU,), exhaustive=True) for recipe in _reshaped(BF16)
)
ON_GPUS: tuple[tuple[PipelineSpec, int, tuple[Recipe, ...]], ...] = (
    (FLUX1_DEV_SLIM, 1, _reshaped(FP8DQROW)),
    (FLUX1_DEV, 1, _reshaped(FP8DQROW)),
)
"""Pipeline, batch size, recipes."""
