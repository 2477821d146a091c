"""Costs: seconds per process in, sums per case and phase out."""

from __future__ import annotations

import msgspec

from perf_tests.harness.processes.usage import Usage
from perf_tests.harness.records.builds import BuildReport
from perf_tests.harness.report.costs import seconds, table, tuning, usage
from perf_tests.harness.runs.record import Process, Run, Status
from perf_tests.protocol.reports import CompileCache, Environment, TunedChoices

ENVIRONMENT = Environment(
    python="3.11.7", packages={}, gpu=None, cpu_model="Xeon", cpu_count=2, settings={}, variables={}
)


def run(case_id: str, *spent: dict[str, float], platform: str = "h100") -> Run:
    return Run(
        id=case_id,
        digest="d",
        platform=platform,
        pipeline="flux-mini",
        status=Status.PASS,
        processes=tuple(
            Process(
                environment=ENVIRONMENT,
                build=BuildReport(
                    seconds=each, memory={}, weights={}, quantization=None, cache=None, values={}
                ),
            )
            for each in spent
        ),
    )


def test_seconds_are_summed_over_processes() -> None:
    assert seconds(run("a", {"load": 6.0, "compile": 26.0}, {"load": 7.5})) == {"load": 13.5, "compile": 26.0}


def test_the_table_shows_phases_in_order_references_and_the_total() -> None:
    cases = [run("a", {"generate": 1200.25, "import": 8.0, "load": 6.0}, {"import": 9.0})]
    references = [run("b", {"import": 1.0, "compile": 2.0})]

    assert table(cases, references) == [
        "GPU seconds (host clock while the worker held the GPU) by case and phase, all processes",
        "case           import  load  compile  generate    total",
        "a                17.0   6.0        -   1,200.2  1,223.2",
        "b (reference)     1.0     -      2.0         -      3.0",
        "total            18.0   6.0      2.0   1,200.2  1,226.2",
    ]


def test_the_cpu_platform_counts_cpu_seconds() -> None:
    assert table([run("a", {"load": 1.0}, platform="cpu")])[0].startswith("CPU seconds")


def test_a_phase_of_another_name_is_shown_last_and_counted() -> None:
    assert table([run("a", {"twin": 2.0, "load": 1.0})])[1:3] == [
        "case   load  twin  total",
        "a       1.0   2.0    3.0",
    ]


def test_the_table_is_empty_where_nothing_was_measured() -> None:
    assert table([run("a")]) == []


def tuned(case_id: str, *found: TunedChoices | None) -> Run:
    """A run whose processes found, or did not find, what others had tuned."""
    of_case = run(case_id, *({} for _ in found))
    caches = (CompileCache(hits=0, misses=2, bypasses=0, tuned=each) for each in found)
    processes = tuple(
        msgspec.structs.replace(process, build=msgspec.structs.replace(process.build, cache=cache))
        for process, cache in zip(of_case.processes, caches, strict=True)
    )
    return msgspec.structs.replace(of_case, processes=processes)


def test_what_was_tuned_and_what_was_found_is_said_in_one_line() -> None:
    runs = (tuned("a", TunedChoices(hits=0, misses=9), None), tuned("b", TunedChoices(hits=7, misses=2)))
    assert tuning(runs) == [
        "kernels chosen by timing: for 11 products now, for 7 before (--perf-compile-cache)"
    ]


def test_nothing_is_said_where_nothing_is_tuned() -> None:
    assert tuning((run("a", {"load": 6.0}), tuned("b", None))) == []


def test_each_card_has_a_line_that_says_how_much_of_its_time_it_was_held() -> None:
    lanes: dict[str | None, Usage] = {
        "GPU-1": Usage(wall_s=1234.4, held_s=1200.0, importing_s=20.0),
        "GPU-2": Usage(wall_s=100.0, held_s=100.0, importing_s=0.0),
    }
    assert usage(lanes, {"GPU-1": "gpu 0", "GPU-2": "gpu 1"}) == [
        "gpu 0: 1,234 s from its first worker to its last: 1,200 s held, 20 s for imports, 14 s idle "
        "(2.8 % not held)",
        "gpu 1: 100 s from its first worker to its last: 100 s held, 0 s for imports, 0 s idle "
        "(0.0 % not held)",
    ]


def test_the_only_device_needs_no_name() -> None:
    (line,) = usage({None: Usage(wall_s=10.0, held_s=5.0, importing_s=5.0)}, {})
    assert line.startswith("the device: 10 s")
