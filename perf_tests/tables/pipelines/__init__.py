"""TABLE: pipelines, with the architectures, schedulers and workloads of their published checkpoints."""

from __future__ import annotations

from perf_tests.tables.pipelines.cogvideox import COGVIDEOX_5B, COGVIDEOX_MINI
from perf_tests.tables.pipelines.flux import FLUX1_DEV, FLUX_MINI
from perf_tests.tables.pipelines.spec import Module, PipelineSpec, Tokenizer, Workload

PIPELINES = (FLUX1_DEV, COGVIDEOX_5B, FLUX_MINI, COGVIDEOX_MINI)

__all__ = [
    "COGVIDEOX_5B",
    "COGVIDEOX_MINI",
    "FLUX1_DEV",
    "FLUX_MINI",
    "PIPELINES",
    "Module",
    "PipelineSpec",
    "Tokenizer",
    "Workload",
]
