"""TABLE: the recipes that save memory, each step of the published ladder and a few beside it."""

from __future__ import annotations

from perf_tests.tables.cases import Row
from perf_tests.tables.pipelines.cogvideox import COGVIDEOX_5B, COGVIDEOX_MINI
from perf_tests.tables.pipelines.flux import FLUX1_DEV, FLUX_MINI
from perf_tests.tables.pipelines.spec import PipelineSpec
from perf_tests.tables.platforms import CPU
from perf_tests.tables.recipes import (
    LEAF_OFFLOAD,
    MODEL_OFFLOAD,
    OFFLOADS,
    SEQUENTIAL_OFFLOAD,
    Decoding,
    Recipe,
)
from perf_tests.tables.schemes.rows import BF16, FP8WO, INT8DQ, INT8WO

REGULAR_ON_CPU = Recipe(scheme=INT8WO, offload=SEQUENTIAL_OFFLOAD)
"""The one of which a CPU shows most: between two calls, nothing but hooks holds the weights."""
CPU_ROWS = tuple(
    Row(pipeline=pipeline, recipe=Recipe(scheme=scheme, offload=offload), platforms=(CPU,), exhaustive=True)
    for pipeline, schemes in ((FLUX_MINI, (BF16, INT8WO, INT8DQ, FP8WO)), (COGVIDEOX_MINI, (INT8WO,)))
    for scheme in schemes
    for offload in OFFLOADS
    if (pipeline, scheme, offload) != (FLUX_MINI, INT8WO, SEQUENTIAL_OFFLOAD)
)
"""On a CPU nothing moves: hooks, where parameters are, and the same picture."""

# Those that were published quantize the VAE as well, which has no Linear module.
TOGETHER = ("transformer", "text_encoder")
COGVIDEOX = (
    # Shows what tiles alone change, in the picture and in memory; the rungs below have their own twins.
    Recipe(scheme=BF16, decoding=Decoding.TILED),
    Recipe(scheme=INT8WO, quantized_components=TOGETHER, offload=MODEL_OFFLOAD),
    Recipe(scheme=INT8WO, quantized_components=TOGETHER, offload=MODEL_OFFLOAD, decoding=Decoding.TILED),
    Recipe(scheme=BF16, offload=SEQUENTIAL_OFFLOAD, decoding=Decoding.TILED),
    Recipe(scheme=INT8WO, quantized_components=TOGETHER, offload=SEQUENTIAL_OFFLOAD, decoding=Decoding.TILED),
)
FLUX = (
    Recipe(scheme=BF16, offload=MODEL_OFFLOAD),
    Recipe(scheme=BF16, offload=LEAF_OFFLOAD),
    # Streams once made wrong pictures of quantized layers (huggingface/diffusers issues 12673 and 13427).
    Recipe(scheme=INT8WO, offload=LEAF_OFFLOAD),
)
LADDER: tuple[tuple[PipelineSpec, int, tuple[Recipe, ...]], ...] = (
    (COGVIDEOX_5B, 1, COGVIDEOX),
    (FLUX1_DEV, 1, FLUX),
    (FLUX1_DEV, 4, (Recipe(scheme=BF16, decoding=Decoding.SLICED),)),
)
"""Pipeline, batch size, recipes of the rows on GPUs."""
