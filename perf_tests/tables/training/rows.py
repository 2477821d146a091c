"""TABLE: the recipes that train, for each size of FLUX."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Final

from perf_tests.tables.pipelines.flux import FLUX1_DEV, FLUX1_DEV_SLIM
from perf_tests.tables.pipelines.spec import PipelineSpec
from perf_tests.tables.recipes import CompileMode, Recipe
from perf_tests.tables.schemes.rows import BF16
from perf_tests.tables.training.spec import Float8Recipe, Training

PRECISIONS: Final = (None, *Float8Recipe)
"""All that frozen layers may multiply in; None is bf16."""
ON_CPU = Training(largest_loss_difference_pct=1.5)
CHECKPOINTED_ON_CPU = dataclasses.replace(ON_CPU, checkpointing=True)


def _lora(
    training: Training, mode: CompileMode, precisions: Iterable[Float8Recipe | None]
) -> tuple[Recipe, ...]:
    return tuple(
        Recipe(scheme=BF16, compile=mode, training=dataclasses.replace(training, float8=each))
        for each in precisions
    )


MINI = _lora(ON_CPU, CompileMode.EAGER, (Float8Recipe.TENSORWISE,))
# None is compiled: for the gradients, too, that takes a processor several minutes.
MINI_EXHAUSTIVE = (
    *_lora(ON_CPU, CompileMode.EAGER, (None, Float8Recipe.ROWWISE)),
    *_lora(CHECKPOINTED_ON_CPU, CompileMode.EAGER, (Float8Recipe.TENSORWISE,)),
)
# With cuDNN, the gradients of attention end in an illegal memory access on Hopper: its kernel
# `compute_dot_do_o` reads out of bounds (compute-sanitizer on an H200; torch 2.11, cuDNN 9.19). In FLUX the
# gradient that comes in has another layout in single blocks, beside that of the MLP, than in double ones, and
# the second layout is taken for the first (`CUDNN_ATTENTION_GRADIENTS`, a known issue).
ON_HOPPER = Training(cudnn_attention=False)
SLIM = _lora(ON_HOPPER, CompileMode.REGIONAL, PRECISIONS)
# 22 GiB of weights leave too little for what 57 blocks would keep for their gradients.
FULL_SIZE = _lora(dataclasses.replace(ON_HOPPER, checkpointing=True), CompileMode.REGIONAL, PRECISIONS)
ON_GPUS: tuple[tuple[PipelineSpec, int, tuple[Recipe, ...]], ...] = (
    (FLUX1_DEV_SLIM, 1, SLIM),
    (FLUX1_DEV, 1, FULL_SIZE),
)
"""Pipeline, batch size, recipes."""
