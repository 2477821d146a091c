"""What a step consists of, and which allocations a generation holds at its peak, from what torch records."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from perf_tests.protocol.profiles import Allocation, KernelTime, Profile, Snapshot
from perf_tests.tables.cases import Case
from perf_tests.tables.platforms import Device
from perf_tests.worker.inspection import kernels
from perf_tests.worker.inspection.evidence import memory_history, step_profile
from perf_tests.worker.measure.clock import HostClock

MIB = 1 << 20


def event(category: str, name: str, **further: Any) -> dict[str, Any]:
    return {"ph": "X", "cat": category, "name": name, "ts": 0.0, "dur": 1.0, "tid": 1, **further}


def launched(name: str, us: float, link: int) -> dict[str, Any]:
    return event("kernel", name, dur=us, args={"External id": link})


def test_kernels_have_the_shapes_of_the_operators_that_launched_them() -> None:
    events = [
        event("cpu_op", "aten::mm", args={"External id": 7, "Input Dims": [[4096, 3072], [3072, 64], []]}),
        event("cpu_op", "aten::mm", args={"External id": 8, "Input Dims": [[77, 3072], [3072, 64], []]}),
        launched("nvjet_gemm", 10.0, 7),
        launched("nvjet_gemm", 3.0, 8),
        launched("nvjet_gemm", 11.0, 7),
        launched("triton_poi_fused_add_3", 2.0, 99),
        event("gpu_memcpy", "Memcpy DtoD", dur=1.0),
        event("cuda_runtime", "cudaLaunchKernel"),
    ]
    assert step_profile.of_gpu(events) == [
        KernelTime(name="nvjet_gemm", kind="GEMM", shape="4096x3072, 3072x64", launches=2, us=21.0),
        KernelTime(name="nvjet_gemm", kind="GEMM", shape="77x3072, 3072x64", launches=1, us=3.0),
        KernelTime(name="triton_poi_fused_add_3", kind="pointwise and norms", shape="", launches=1, us=2.0),
        KernelTime(name="Memcpy DtoD", kind="copies and fills", shape="", launches=1, us=1.0),
    ]


def test_an_operator_of_a_cpu_is_without_what_it_calls() -> None:
    events = [
        event("cpu_op", "aten::linear", ts=0.0, dur=100.0),
        event("cpu_op", "aten::t", ts=5.0, dur=10.0),
        event("cpu_op", "aten::addmm", ts=20.0, dur=70.0),
        event("cpu_op", "aten::copy_", ts=30.0, dur=20.0),
        event("cpu_op", "aten::add", ts=30.0, dur=9.0, tid=2),
        event("user_annotation", "step", ts=0.0, dur=500.0),
    ]
    own_us = {each.name: each.us for each in step_profile.of_cpu(events)}
    assert own_us == {
        "aten::linear": 20.0,
        "aten::t": 10.0,
        "aten::addmm": 50.0,
        "aten::copy_": 20.0,
        "aten::add": 9.0,
    }


def trace_of(file: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(gzip.decompress(file.read_bytes()))["traceEvents"]
    return found


def test_a_trace_that_is_too_large_is_kept_without_what_the_host_did(tmp_path: Path) -> None:
    file = tmp_path / "profiles" / "step.json.gz"
    host = [event("cpu_op", f"op {number * 7919 % 100003}") for number in range(3000)]
    events = [{"ph": "M", "name": "process_name"}, launched("gemm", 1.0, 1), *host]
    assert step_profile.write(events, file, limit_mb=1.0) == ""
    assert len(trace_of(file)) == 3002
    assert step_profile.write(events, file, limit_mb=0.001) == ""
    assert [each["name"] for each in trace_of(file)] == ["process_name", "gemm"]
    assert step_profile.write(events, file, limit_mb=0.00001) == (
        "the trace takes 0.0 MB, and 1e-05 MB are kept"
    )


def test_a_trace_for_which_there_is_no_room_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "profiles").write_text("a file")
    problem = step_profile.write([launched("gemm", 1.0, 1)], tmp_path / "profiles" / "a.gz", limit_mb=1.0)
    assert problem.startswith("the trace cannot be written: ")


def test_a_step_of_a_miniature_is_its_operators(
    make_case: Callable[..., Case], make_pipeline: Callable[..., Any], tmp_path: Path
) -> None:
    case, pipeline, clock = make_case(), make_pipeline(), HostClock()
    file = tmp_path / "step.json.gz"
    asked = Profile(trace=str(file), limit_mb=8.0)
    found = step_profile.profile(pipeline, case, clock, Device.CPU, asked)
    assert (found.problem, found.trace) == ("", str(file))
    counted = kernels.measure(pipeline, case, clock, kernels.UNITS[Device.CPU])
    assert sum(each.launches for each in found.kernels) == counted.values["operators_per_step"]
    (widest, *_) = [each for each in found.kernels if each.name == "aten::addmm"]
    assert "x" in widest.shape
    assert sum(each["cat"] == "cpu_op" for each in trace_of(file) if "cat" in each) == sum(
        each.launches for each in found.kernels
    )


def test_a_profiler_that_refuses_is_a_sentence(
    make_case: Callable[..., Case], make_pipeline: Callable[..., Any], tmp_path: Path
) -> None:
    class Refusing:
        def start(self) -> None:
            raise kernels.NotCounted("the driver refuses")

        def stop(self) -> list[kernels.Event]:
            raise AssertionError

    asked = Profile(trace=str(tmp_path / "step.json.gz"), limit_mb=8.0)
    found = step_profile.profile(make_pipeline(), make_case(), HostClock(), Device.CPU, asked, Refusing())
    assert (found.kernels, found.trace, found.problem) == ((), None, "the driver refuses")


# Memory


def entry(action: str, address: int, mib: float, where: str = "models/attention.py") -> dict[str, Any]:
    frames = [
        {"filename": "/site-packages/torch/nn/functional.py", "line": 1, "name": "linear"},
        {"filename": f"/site-packages/diffusers/{where}", "line": 120, "name": "forward"},
    ]
    return {"action": action, "addr": address, "size": int(mib * MIB), "frames": frames}


HISTORY = [
    entry("alloc", 1, 4.0, "a.py"),
    entry("alloc", 2, 10.0, "b.py"),
    entry("free_requested", 77, 50.0),  # from before
    entry("free_requested", 1, 4.0),
    entry("free_completed", 1, 4.0),
    entry("segment_alloc", 9, 100.0),
    entry("alloc", 1, 3.0, "c.py"),
    entry("free_requested", 2, 10.0),
    entry("alloc", 3, 5.0, "d.py"),
]


def test_the_peak_is_found_where_most_is_held() -> None:
    peak_mib, largest = memory_history.at_peak(HISTORY)
    assert peak_mib == 14.0
    assert largest == (
        Allocation(mib=10.0, where="site-packages/diffusers/b.py:120 forward"),
        Allocation(mib=4.0, where="site-packages/diffusers/a.py:120 forward"),
    )


def test_five_allocations_are_named_and_none_of_an_empty_history() -> None:
    _, largest = memory_history.at_peak([entry("alloc", number, float(number)) for number in range(1, 9)])
    assert [each.mib for each in largest] == [8.0, 7.0, 6.0, 5.0, 4.0]
    assert memory_history.at_peak([]) == (0.0, ())


class FakeAllocator:
    """The recording part of `torch.cuda.memory`."""

    def __init__(self) -> None:
        self.log: list[str | None] = []

    def _record_memory_history(self, enabled: str | None, **_arguments: Any) -> None:
        self.log.append(enabled)

    def _snapshot(self) -> dict[str, Any]:
        return {"device_traces": [HISTORY], "segments": []}

    def memory_allocated(self) -> int:
        return 24 * MIB


def test_a_snapshot_is_kept_where_it_is_not_too_large(tmp_path: Path) -> None:
    allocator, file = FakeAllocator(), tmp_path / "profiles" / "memory.pickle.gz"
    taken = memory_history.take(lambda: None, allocator, Snapshot(file=str(file), limit_mb=1.0))
    assert (taken.before_mib, taken.peak_mib, taken.file, taken.problem) == (24.0, 14.0, str(file), "")
    assert allocator.log == ["all", None]
    assert file.is_file()
    small = memory_history.take(lambda: None, allocator, Snapshot(file=str(file), limit_mb=1e-6))
    assert small.file is None
    assert small.problem.startswith("the snapshot takes ")
    assert len(small.largest) == 2


def test_recording_ends_where_the_generation_fails(tmp_path: Path) -> None:
    allocator = FakeAllocator()

    def fail() -> None:
        raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError, match="out of memory"):
        memory_history.take(fail, allocator, Snapshot(file=str(tmp_path / "a"), limit_mb=1.0))
    assert allocator.log == ["all", None]
