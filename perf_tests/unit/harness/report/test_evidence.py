"""What was recorded of a red case, as lines of its failure text."""

from __future__ import annotations

from perf_tests.harness.records.evidence import Evidence, KernelChange, StepChange
from perf_tests.harness.report.evidence import lines
from perf_tests.protocol.profiles import Allocation


def change(
    stable: tuple[str, ...], candidate: tuple[str, ...], more_us: float, **further: int
) -> KernelChange:
    return KernelChange(
        stable=stable,
        candidate=candidate,
        shape="4096x3072",
        stable_us=1000.0 if stable else 0.0,
        candidate_us=(1000.0 if stable else 0.0) + more_us,
        stable_launches=further.get("before", 57 if stable else 0),
        candidate_launches=further.get("now", 57),
    )


def test_kernels_are_told_with_what_they_took_the_place_of() -> None:
    step = StepChange(
        stable_us=46000.0,
        candidate_us=47500.0,
        slower=(
            change(("sm90_gemm",), ("nvjet", "splitk"), 800.0, now=114),
            change(("triton_poi_fused_add_3",), ("triton_poi_fused_add_9",), 400.0),
            change((), ("amax",), 300.0),
        ),
        new=1,
        gone=2,
        gone_us=12.0,
    )
    evidence = Evidence(
        id="a", step=step, traces={"stable": "profiles/a.stable.json.gz"}, script="repro/a.py"
    )
    assert lines.lines((evidence,), "a", "/run") == [
        "  kernels    one profiled step: 46.000 -> 47.500 ms in kernels; 1 new, 2 gone (which took 0.012 ms)",
        "             +0.800 ms to 1.800 ms, 57 -> 114 x nvjet + splitk instead of sm90_gemm 4096x3072",
        "             +0.400 ms to 1.400 ms, 57 x triton_poi_fused_add_9 4096x3072",
        "             +0.300 ms new, 57 x amax 4096x3072",
        "  evidence   /run/repro/a.py /run/profiles/a.stable.json.gz",
    ]


def test_the_largest_allocations_of_a_red_peak_are_told() -> None:
    evidence = Evidence(
        id="a",
        script_problem="it trains",
        snapshot="profiles/a.memory.pickle.gz",
        largest=(
            Allocation(mib=96.0, where="models/attention.py:120 forward"),
            Allocation(mib=1.5, where=""),
        ),
        before_mib=24.0,
        peak_mib=110.5,
    )
    assert lines.lines((evidence,), "a", "/run") == [
        "  memory     at its peak a generation held 110.5 MiB beside 24.0 MiB from before, of that:",
        "             96.0 MiB models/attention.py:120 forward",
        "             1.5 MiB at a place that was not recorded",
        "  unknown    a script that reproduces it: it trains",
        "  evidence   /run/profiles/a.memory.pickle.gz",
    ]


def test_what_was_not_recorded_says_why_and_other_cases_say_nothing() -> None:
    evidence = Evidence(id="a", profile_problem="it takes about 300 s, and 20 s are left")
    assert lines.lines((evidence,), "a", "/run") == [
        "  unknown    which kernels: it takes about 300 s, and 20 s are left",
        "  evidence   none",
    ]
    assert lines.lines((evidence,), "b", "/run") == []
