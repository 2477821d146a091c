"""TABLE: defects of the stack that our recipes work around, each watched until it is fixed."""

from __future__ import annotations

import datetime
from dataclasses import dataclass

from perf_tests.tables.platforms import H100, H200, Platform


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
    owner="maintainers of this suite",
    expires=datetime.date(2027, 5, 31),
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
    owner="maintainers of this suite",
    expires=datetime.date(2027, 5, 31),
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
    owner="maintainers of this suite",
    expires=datetime.date(2027, 5, 31),
    then="remove this row, and record the int8dq-sparse24 rows: host_growth_mib_per_image was red until now",
)

KNOWN_ISSUES = (INT8WO_COMPILED, FP8_ZERO_ROWS, SPARSE_MM_HOST_MEMORY)
