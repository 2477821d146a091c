"""TABLE: pipelines, with the architectures, schedulers and workloads of their published checkpoints."""

from __future__ import annotations

from perf_tests.tables.pipelines.auraflow import AURAFLOW, AURAFLOW_MINI
from perf_tests.tables.pipelines.cogvideox import (
    COGVIDEOX_2B,
    COGVIDEOX_2B_MINI,
    COGVIDEOX_5B,
    COGVIDEOX_MINI,
)
from perf_tests.tables.pipelines.flux import (
    FLUX1_DEV,
    FLUX1_DEV_SLIM,
    FLUX1_SCHNELL,
    FLUX_MINI,
    FLUX_SCHNELL_MINI,
)
from perf_tests.tables.pipelines.pixart import PIXART_MINI, PIXART_SIGMA
from perf_tests.tables.pipelines.sd3 import SD3_MEDIUM, SD3_MINI
from perf_tests.tables.pipelines.spec import PROMPTS, Module, PipelineSpec, Tokenizer, Workload

FULL_SIZE = (
    FLUX1_DEV,
    FLUX1_SCHNELL,
    COGVIDEOX_5B,
    COGVIDEOX_2B,
    SD3_MEDIUM,
    PIXART_SIGMA,
    AURAFLOW,
)
# Each of the row above it, in the same order.
MINIATURES = (
    FLUX_MINI,
    FLUX_SCHNELL_MINI,
    COGVIDEOX_MINI,
    COGVIDEOX_2B_MINI,
    SD3_MINI,
    PIXART_MINI,
    AURAFLOW_MINI,
)
PIPELINES = (*FULL_SIZE, FLUX1_DEV_SLIM, *MINIATURES)

__all__ = [
    "AURAFLOW",
    "AURAFLOW_MINI",
    "COGVIDEOX_2B",
    "COGVIDEOX_2B_MINI",
    "COGVIDEOX_5B",
    "COGVIDEOX_MINI",
    "FLUX1_DEV",
    "FLUX1_DEV_SLIM",
    "FLUX1_SCHNELL",
    "FLUX_MINI",
    "FLUX_SCHNELL_MINI",
    "FULL_SIZE",
    "MINIATURES",
    "PIPELINES",
    "PIXART_MINI",
    "PIXART_SIGMA",
    "PROMPTS",
    "SD3_MEDIUM",
    "SD3_MINI",
    "Module",
    "PipelineSpec",
    "Tokenizer",
    "Workload",
]
