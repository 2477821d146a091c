"""TABLE: the recipes that only differ from others in how their weights come about."""

from __future__ import annotations

from perf_tests.tables.platforms import CPU
from perf_tests.tables.recipes import Loader, QuantizedOn, Recipe
from perf_tests.tables.schemes.rows import BF16, FP8WO, FP16, INT4DQ, INT8DQ, INT8WO, SCHEMES

IN_TORCHAOS_LIST = (INT8WO, INT8DQ, INT4DQ, FP8WO)
"""The schemes of CPUs whose tensors torchao can flatten (`ALLOWED_TENSORS_SUBCLASSES`)."""
LOADED = (
    *(
        (Loader.TORCH_SAVE, scheme)
        for scheme in SCHEMES
        if scheme.id in CPU.required_schemes and scheme.search is None
    ),
    *((Loader.SAFETENSORS, scheme) for scheme in (BF16, FP16, *IN_TORCHAOS_LIST)),
    *((Loader.TORCHAO_CONFIG, scheme) for scheme in IN_TORCHAOS_LIST),
    *((Loader.PIPELINE_CONFIG, scheme) for scheme in IN_TORCHAOS_LIST),
)
"""Ways to load, each with the schemes that it can save."""


STARTING_ON_HOST = (QuantizedOn.HOST, QuantizedOn.MODULE)
TWINNED = (
    *(Recipe(scheme=scheme, loader=loader) for loader, scheme in LOADED),
    # Here host and device are one: the end state shows that the argument is taken, and nothing else.
    *(Recipe(scheme=scheme, quantized_on=where) for scheme in (INT8WO, INT8DQ) for where in STARTING_ON_HOST),
)
"""Recipes of a CPU that must equal their built twin, and offload nothing."""
