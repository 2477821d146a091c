"""TABLE: defects of the stack that our recipes work around or avoid, each watched until it is fixed."""

from __future__ import annotations

import datetime
from dataclasses import dataclass

from perf_tests.tables.platforms import CPU, H100, H200, Platform

OWNER = "maintainers of this suite"
EXPIRES = datetime.date(2027, 5, 31)
CPU_DEADLINE_S = 180.0
"""Many times what a script takes on its own: cores may be shared."""


@dataclass(frozen=True, kw_only=True, slots=True)
class KnownIssue:
    """A defect that a script reproduces, and that we want to hear about once it is fixed."""

    id: str
    script: str
    """Path from the root of the repository. With the option `--FIGURE` it prints one line of JSON, whose
    `FIGURE` says how bad the defect is."""
    figure: str = "slowdown"
    """By default the time with the defect divided by the time without it."""
    wording: str = "times as slow as it should be"
    """What is said after the figure."""
    reproduces_from: float
    """The figure below which it counts as fixed."""
    platforms: tuple[Platform, ...]
    deadline_s: float
    """For the whole script, imports included."""
    exhaustive: bool = False
    """Watched where it is asked for alone: the main job can spare 4 s for a script at most."""
    link: str
    owner: str
    """Who looks again when the row expires, or the defect is fixed."""
    expires: datetime.date
    then: str
    """What to do once it is fixed: an imperative."""


INT8WO_COMPILED = KnownIssue(
    id="int8wo-compiled-layer",
    script="tools/repro/int8wo_compile.py",
    # 665 in November 2026 (torch 2.11), and the published images took 1.1 times as long as bf16.
    reproduces_from=5.0,
    platforms=(H100, H200),
    deadline_s=90.0,
    link="https://github.com/pytorch/pytorch/pull/161680",
    owner=OWNER,
    expires=EXPIRES,
    then="remove GPU_SETTINGS of int8wo from tables/matrix.py and this row, and record the int8wo rows again",
)

FP8_ZERO_ROWS = KnownIssue(
    id="fp8-rows-of-zeros",
    script="tools/repro/fp8_zero_rows.py",
    figure="nan_rows",
    wording="of 2 rows are NaN, and one of them is zeros",
    # With it, AuraFlow in fp8dqrow is 31.3 dB from bf16 instead of NaN (H100, torchao 0.18).
    reproduces_from=1.0,
    platforms=(H100, H200),
    deadline_s=90.0,
    link="https://github.com/pytorch/ao/issues/4713",
    owner=OWNER,
    expires=EXPIRES,
    then="remove scheme_arguments of AURAFLOW and this row, and record its fp8dqrow row again",
)

SPARSE_MM_HOST_MEMORY = KnownIssue(
    id="sparse-mm-host-memory",
    script="tools/repro/sparse_mm_host_memory.py",
    figure="bytes_per_product",
    wording="bytes of the host's memory are left behind by each product with a sparse weight",
    # 1499 on an H100 (torch 2.11): 504 layers x 28 steps of FLUX.1-dev keep 20 MiB an image; 16 are red.
    reproduces_from=100.0,
    platforms=(H100, H200),
    deadline_s=90.0,
    link="https://github.com/pytorch/pytorch/blob/v2.11.0/aten/src/ATen/native/sparse/cuda/cuSPARSELtOps.cpp",
    owner=OWNER,
    expires=EXPIRES,
    then="remove this row, and record the int8dq-sparse24 rows: host_growth_mib_per_image was red until now",
)

INT8_AUTOTUNER_FILE = KnownIssue(
    id="int8-autotuner-file",
    script="tools/repro/int8_autotuner.py",
    figure="ignored",
    wording="of 1 int8 products ignores the kernel that torchao's autotuner stored, its path being set",
    reproduces_from=1.0,
    platforms=(H100, H200),
    deadline_s=180.0,
    # Gone from torchao's main branch since August 2026, which each night installs, and would be red for.
    exhaustive=True,
    link="https://github.com/pytorch/ao/pull/4717",
    owner=OWNER,
    expires=EXPIRES,
    then="remove this row: the autotuner is gone with torchao 0.19, or its file can be reused as published",
)

CUDNN_ATTENTION_GRADIENTS = KnownIssue(
    id="cudnn-attention-gradients",
    script="tools/repro/cudnn_attention_gradients.py",
    figure="error",
    wording="times their own norm is how far the gradients of a second layout are from the right ones",
    # 1.41 on an H200 (torch 2.11, cuDNN 9.19), where the layout that comes first is off by 0.003.
    reproduces_from=0.05,
    platforms=(H100, H200),
    deadline_s=90.0,
    link="https://github.com/pytorch/pytorch/blob/v2.11.0/aten/src/ATen/native/cudnn/MHA.cpp",
    owner=OWNER,
    expires=EXPIRES,
    then="remove cudnn_attention from ON_HOPPER in tables/training/rows.py and this row, and record its rows",
)

# Seen on CPUs in November 2026, with torch 2.13, torchao 0.18 and diffusers 0.42.1, which take 5 s and more
# to import: so all are exhaustive.

FULL_COMPILE_ROUNDING = KnownIssue(
    id="full-compile-rounding",
    script="tools/repro/full_compile_rounding.py",
    figure="apart",
    wording="between the guidance that eager FLUX embeds, 3504, and the one that it embeds compiled",
    # 4. The miniature compiled as a whole is 9.7 dB from eager, and 33.6 dB where all products are exact.
    reproduces_from=1.0,
    platforms=(CPU,),
    deadline_s=CPU_DEADLINE_S,
    exhaustive=True,
    link="https://github.com/pytorch/pytorch/issues/196957",
    owner=OWNER,
    expires=EXPIRES,
    then="compare pipelines compiled as a whole with eager ones as well, and remove this row",
)

ATTENTION_BACKEND_RESET = KnownIssue(
    id="attention-backend-reset",
    script="tools/repro/attention_backend_reset.py",
    figure="active",
    wording="attention backend of one model stays active in the process after it was reset",
    reproduces_from=1.0,
    platforms=(CPU,),
    deadline_s=CPU_DEADLINE_S,
    exhaustive=True,
    link="https://github.com/huggingface/diffusers/issues/14249",
    owner=OWNER,
    expires=EXPIRES,
    then="remove this row: one process may measure several attention backends",
)

BLOCK_OFFLOAD_COMPILED = KnownIssue(
    id="block-offload-compiled",
    script="tools/repro/block_offload_compile.py",
    figure="refused",
    wording="of 1 quantized models cannot be called, offloaded by blocks and compiled",
    # Closed with torch's pull request 190951 of July 2026, which torch 2.13 does not hold.
    reproduces_from=1.0,
    platforms=(CPU,),
    deadline_s=CPU_DEADLINE_S,
    exhaustive=True,
    link="https://github.com/pytorch/pytorch/issues/186796",
    owner=OWNER,
    expires=EXPIRES,
    then="remove this row: offloading by blocks may be measured compiled and quantized",
)

SAVE_QUANTIZED = KnownIssue(
    id="save-quantized",
    script="tools/repro/save_quantized.py",
    figure="refused",
    wording="of 1 models quantized by quantize_ cannot be saved with the defaults of save_pretrained",
    reproduces_from=1.0,
    platforms=(CPU,),
    deadline_s=CPU_DEADLINE_S,
    exhaustive=True,
    link="https://github.com/huggingface/diffusers/issues/13713",
    owner=OWNER,
    expires=EXPIRES,
    then="remove this row: what quantize_ made may be saved as safetensors",
)

DEVICE_MAP_CPU = KnownIssue(
    id="device-map-cpu",
    script="tools/repro/device_map_cpu.py",
    figure="plain",
    wording="of the linear layers (1: all) are loaded unquantized with device_map={'': 'cpu'}",
    reproduces_from=0.01,
    platforms=(CPU,),
    deadline_s=CPU_DEADLINE_S,
    exhaustive=True,
    link="https://github.com/huggingface/diffusers/blob/v0.42.1/src/diffusers/quantizers/torchao/torchao_quantizer.py",
    owner=OWNER,
    expires=EXPIRES,
    then="remove this row: any device_map with the CPU may be loaded with",
)

LAYERWISE_CASTING = KnownIssue(
    id="layerwise-casting-quantized",
    script="tools/repro/layerwise_casting.py",
    figure="unchanged",
    wording="of 1 quantized weights are as large after layerwise casting as before",
    reproduces_from=1.0,
    platforms=(CPU,),
    deadline_s=CPU_DEADLINE_S,
    exhaustive=True,
    link="https://github.com/huggingface/diffusers/blob/v0.42.1/src/diffusers/hooks/layerwise_casting.py",
    owner=OWNER,
    expires=EXPIRES,
    then="remove this row: layerwise casting may be measured on quantized pipelines",
)

LORA_INT8DQ = KnownIssue(
    id="lora-int8dq",
    script="tools/repro/lora_int8dq.py",
    figure="without_gradient",
    wording="of 36 matrices of adapters over int8dq layers get no gradient",
    # 12, and none over int8wo. Tests of diffusers in the linked pull request fail for the same cause.
    reproduces_from=1.0,
    platforms=(CPU,),
    deadline_s=CPU_DEADLINE_S,
    exhaustive=True,
    link="https://github.com/huggingface/diffusers/pull/13719",
    owner=OWNER,
    expires=EXPIRES,
    then="remove this row: int8dq may be a frozen base of adapters, as int8wo is",
)

TAYLORSEER_COGVIDEOX = KnownIssue(
    id="taylorseer-cogvideox",
    script="tools/repro/taylorseer_cogvideox.py",
    figure="uncached",
    wording="of 2 attention layers of CogVideoX are not cached by TaylorSeer",
    reproduces_from=1.0,
    platforms=(CPU,),
    deadline_s=CPU_DEADLINE_S,
    exhaustive=True,
    link="https://github.com/huggingface/diffusers/blob/v0.42.1/src/diffusers/hooks/taylorseer_cache.py",
    owner=OWNER,
    expires=EXPIRES,
    then="remove this row: TaylorSeer's own patterns may be measured on CogVideoX",
)

INT8DQ_SHARED_INPUT = KnownIssue(
    id="int8dq-shared-input",
    script="tools/repro/int8dq_shared_input.py",
    figure="uncompilable",
    wording="module whose three int8dq projections share a channels-first activation cannot be compiled",
    # Alike with torch 2.13.0 and 2.14.1.
    reproduces_from=1.0,
    platforms=(CPU,),
    deadline_s=CPU_DEADLINE_S,
    exhaustive=True,
    link="https://github.com/pytorch/pytorch/blob/v2.13.0/torch/_inductor/codegen/cpp.py",
    owner=OWNER,
    expires=EXPIRES,
    then="remove UNCOMPILABLE from tables/matrix.py and this row, and record the compiled rows of PixArt",
)

PACKAGE_CPU_PROBES = KnownIssue(
    id="package-cpu-probes",
    script="tools/repro/package_cpu_probes.py",
    figure="probes",
    wording="programs are compiled to load a package that is already compiled",
    # 6 on a CPU with AVX-512, in 6.5 s. In torch 2.11 each imports torch as well: 32 s on an H200.
    reproduces_from=1.0,
    platforms=(CPU,),
    deadline_s=CPU_DEADLINE_S,
    exhaustive=True,
    link="https://github.com/pytorch/pytorch/issues/191715",
    owner=OWNER,
    expires=EXPIRES,
    then="remove this row, and record the aoti rows again: they may start faster than JIT",
)

KNOWN_ISSUES = (
    INT8WO_COMPILED,
    FP8_ZERO_ROWS,
    SPARSE_MM_HOST_MEMORY,
    INT8_AUTOTUNER_FILE,
    CUDNN_ATTENTION_GRADIENTS,
    FULL_COMPILE_ROUNDING,
    ATTENTION_BACKEND_RESET,
    BLOCK_OFFLOAD_COMPILED,
    SAVE_QUANTIZED,
    DEVICE_MAP_CPU,
    LAYERWISE_CASTING,
    LORA_INT8DQ,
    TAYLORSEER_COGVIDEOX,
    INT8DQ_SHARED_INPUT,
    PACKAGE_CPU_PROBES,
)
