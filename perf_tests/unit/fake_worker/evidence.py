"""Answers to what is asked of a red case: what a step consists of, and what memory holds."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

from perf_tests.protocol.profiles import (
    Allocation,
    KernelTime,
    Profile,
    Profiled,
    Snapshot,
    Snapshotted,
)
from perf_tests.unit.fake_worker.subject import Subject

REFUSED = "this build of torch cannot record CUDA activity"
GEMM = "sm90_xmma_gemm_bf16"


def profile(subject: Subject, request: Profile) -> Profiled:
    """Three kernels."""
    if subject.has("unprofiled"):
        return Profiled(problem=REFUSED)
    gemm = "nvjet_tst_128x256" if subject.has("other-kernel") else GEMM
    us = 900.0 + subject.number("slower-kernel")
    trace = f"{request.trace}.other" if subject.has("trace-elsewhere") else request.trace
    _write(Path(trace), json.dumps({"traceEvents": [{"name": gemm, "cat": "kernel", "dur": us}]}).encode())
    return Profiled(
        kernels=(
            KernelTime(name=gemm, kind="GEMM", shape="4096x3072, 3072x3072", launches=57, us=us),
            KernelTime(
                name="triton_poi_fused_add_3", kind="pointwise and norms", shape="", launches=9, us=90.0
            ),
            KernelTime(
                name="flash_fwd_kernel", kind="attention", shape="1x24x4608x128", launches=57, us=500.0
            ),
        ),
        trace=trace,
    )


def snapshot(subject: Subject, request: Snapshot) -> Snapshotted:
    """Two allocations."""
    _write(Path(request.file), b"a pickle")
    return Snapshotted(
        largest=(
            Allocation(mib=96.0, where="models/attention.py:120 forward"),
            Allocation(mib=12.5, where=""),
        ),
        before_mib=24.0,
        peak_mib=110.5,
        file=f"{request.file}.other" if subject.has("snapshot-elsewhere") else request.file,
    )


def _write(file: Path, content: bytes) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(gzip.compress(content, mtime=0))
