"""Values for tests of the published tables: the tables, their cases, a row, and a run to match it."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from perf_tests.harness.compare.published import read
from perf_tests.harness.runs.record import Run
from perf_tests.tables.cases import Case, Weights
from perf_tests.tables.matrix import MATRIX
from perf_tests.tables.platforms import H100, Platform
from perf_tests.tables.published import PublishedRow
from perf_tests.unit.builders import FLUX_FP8, make_run

ROWS = read(Path(__file__).resolve().parents[2] / "baselines" / "published")
CASES = {case.id: case for case in (row.case(Weights.SYNTHETIC) for row in MATRIX)}
FLUX_INT8DQ = CASES["flux1-dev-b1-int8dq-regional"]


def make_row(**changes: Any) -> PublishedRow:
    """FLUX.1-dev, fp8dqrow, compiled, on the H100; 20 and 30 GiB and 4 seconds."""
    default = PublishedRow(
        gpu="H100",
        pipeline="flux1-dev",
        batch_size=1,
        fuse_qkv=False,
        compile=True,
        compile_vae=False,
        scheme="fp8dqrow",
        model_memory_gib=20.0,
        peak_memory_gib=30.0,
        latency_s=4.0,
        case="flux1-dev-b1-fp8dqrow-regional",
        reason=None,
    )
    return dataclasses.replace(default, **changes)


def measured(
    latency_s: float,
    model_gib: float = 20.0,
    peak_gib: float = 24.0,
    *,
    case: Case = FLUX_FP8,
    platform: Platform = H100,
    **changes: Any,
) -> Run:
    """A run with these medians; the default one is as large as `make_row` and just as fast with 4 s."""
    medians = {
        "latency_s": latency_s,
        "model_memory_mib": model_gib * 1024,
        "peak_allocated_mib": peak_gib * 1024,
    }
    return make_run(case, platform, **{"measured": medians, **changes})
