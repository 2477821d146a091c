"""TABLE: the recipes of a model that is only quantized and moved, as they were published."""

from __future__ import annotations

from perf_tests.tables.pipelines.llama import LLAMA_7B
from perf_tests.tables.pipelines.spec import PipelineSpec
from perf_tests.tables.recipes import QuantizedOn, Recipe
from perf_tests.tables.schemes.rows import INT8WO

ON_DEVICE, ON_HOST, BY_MODULE = (Recipe(scheme=INT8WO, quantized_on=where) for where in QuantizedOn)
PUBLISHED = (ON_DEVICE, ON_HOST, BY_MODULE)
ON_GPUS: tuple[tuple[PipelineSpec, int, tuple[Recipe, ...]], ...] = ((LLAMA_7B, 1, PUBLISHED),)
"""Pipeline, batch size, recipes."""
REGULAR_ON_CPU = ON_HOST
"""Of the miniature, whose built twin is quantized on the device."""
