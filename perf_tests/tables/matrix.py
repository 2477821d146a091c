"""TABLE: which combinations are cases, and on which platforms."""

from __future__ import annotations

import dataclasses

from perf_tests.tables.cases import Row
from perf_tests.tables.pipelines import COGVIDEOX_5B, COGVIDEOX_MINI, FLUX1_DEV, FLUX_MINI
from perf_tests.tables.platforms import CPU, H100, H200
from perf_tests.tables.recipes import CompileMode, Recipe
from perf_tests.tables.schemes import BF16, FP8DQ, FP8DQROW, FP8WO, INT8DQ, INT8WO

EAGER, REGIONAL, FULL = CompileMode.EAGER, CompileMode.REGIONAL, CompileMode.FULL

CPU_ROWS = (
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
        )
    ),
    *(
        Row(pipeline=COGVIDEOX_MINI, recipe=recipe, platforms=(CPU,))
        for recipe in (
            Recipe(scheme=BF16),
            Recipe(scheme=INT8DQ),
            Recipe(scheme=FP8WO),
            Recipe(scheme=BF16, compile=REGIONAL),
            Recipe(scheme=INT8WO, compile=REGIONAL),
        )
    ),
)
HOPPER = (H100, H200)
GPU_ROWS = (
    *(
        Row(pipeline=FLUX1_DEV, recipe=recipe, platforms=HOPPER)
        for recipe in (
            Recipe(scheme=BF16),
            Recipe(scheme=BF16, compile=REGIONAL),
            Recipe(scheme=FP8DQROW),
            Recipe(scheme=FP8DQROW, compile=REGIONAL),
            Recipe(scheme=FP8DQROW, compile=REGIONAL, fuse_qkv=True),
            Recipe(scheme=FP8DQ, compile=REGIONAL),
            Recipe(scheme=INT8DQ, compile=REGIONAL),
        )
    ),
    Row(
        pipeline=COGVIDEOX_5B,
        recipe=Recipe(scheme=BF16),
        platforms=HOPPER,
        workload=dataclasses.replace(COGVIDEOX_5B.workload, steps=4),
    ),
)

MATRIX = (*CPU_ROWS, *GPU_ROWS)
