"""TABLE: every pipeline, from the modules of the families."""

from __future__ import annotations

from perf_tests.tables.pipelines import auraflow, cogvideox, flux, llama, pixart, sd3
from perf_tests.tables.pipelines.spec import PipelineSpec

FAMILIES = (flux, cogvideox, sd3, pixart, auraflow, llama)
"""The modules with rows, in the order of the tests."""

_ALL = tuple(row for family in FAMILIES for row in vars(family).values() if isinstance(row, PipelineSpec))
_ROWS = tuple(row for row in _ALL if row.generates)

MINIATURES = tuple(row for row in _ROWS if row.miniature_of is not None)
"""Small enough for a CPU."""
_IN_MINIATURE = {row.miniature_of for row in MINIATURES}
FULL_SIZE = tuple(row for row in _ROWS if row.id in _IN_MINIATURE)
"""Those of published checkpoints, in the order of their miniatures."""
_FURTHER = tuple(row for row in _ROWS if row not in (*FULL_SIZE, *MINIATURES))
PIPELINES = (*FULL_SIZE, *_FURTHER, *MINIATURES)
"""All that generate."""
MODELS = (*PIPELINES, *(row for row in _ALL if not row.generates))
"""Those, and models that are only quantized and moved."""
