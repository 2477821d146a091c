from __future__ import annotations

import dataclasses

import msgspec
import pytest

from perf_tests.harness.execution.sampling import Answer, Decide, Series, fixed_samples
from perf_tests.harness.records.builds import BuildReport
from perf_tests.harness.records.process_ends import SamplingEnd
from perf_tests.harness.runs.record import Process, Run, Status
from perf_tests.protocol.messages import Failure, FailureKind, Phase
from perf_tests.protocol.reports import Environment
from perf_tests.tables.platforms import CPU
from perf_tests.unit.builders import MINI_BF16, make_sample
from perf_tests.unit.harness.execution.campaigns import fixed_processes

START = Run(id="case", digest="d", platform="cpu", pipeline="flux-mini", status=Status.INCONCLUSIVE)
FAILURE = Failure(kind=FailureKind.OOM, phase=Phase.GENERATE, message="out of memory")


def process(log: str) -> Process:
    return Process(
        environment=Environment(
            python="3.11.7",
            packages={},
            gpu=None,
            cpu_model="some processor",
            cpu_count=2,
            settings={},
            variables={},
        ),
        build=BuildReport(seconds={}, memory={}, weights={}, quantization=None, cache=None, values={}),
        log=log,
    )


def logs(run: Run) -> list[str]:
    return [process.log for process in run.processes]


def measured(decide: Decide, max_processes: int = 5, start: Run = START) -> Series:
    """A series whose processes log the place they were asked for."""
    series = Series(start, decide, max_processes)
    while not series.is_over:
        series.took(process(str(series.index)))
    return series


def test_processes_are_measured_until_the_rule_has_enough() -> None:
    assert logs(measured(fixed_processes(3)).run) == ["0", "1", "2"]


def test_looks_are_recorded() -> None:
    assert measured(fixed_processes(2)).run.looks == ("1 process: more", "2 processes: enough")


def test_a_rule_that_is_never_satisfied_is_bounded() -> None:
    assert logs(measured(lambda run: Answer.MORE, max_processes=2).run) == ["0", "1"]


@pytest.mark.parametrize(
    ("partial", "kept"),
    [
        pytest.param(None, ["0"], id="nothing-to-keep"),
        pytest.param(process("half"), ["0", "half"], id="half"),
    ],
)
def test_a_failed_process_ends_the_series_and_is_kept_if_it_measured_anything(
    partial: Process | None, kept: list[str]
) -> None:
    series = Series(START, fixed_processes(3), max_processes=5)
    series.took(process("0"))
    series.failed(FAILURE, partial)
    assert series.is_over
    run = series.run
    assert (run.status, run.reason, run.failure) == (Status.OOM, "out of memory", FAILURE)
    assert logs(run) == kept


def test_an_unsupported_case_is_not_an_error() -> None:
    failure = Failure(kind=FailureKind.UNSUPPORTED, phase=Phase.QUANTIZE, message="no kernels before 8.9")
    series = Series(START, fixed_processes(1), max_processes=5)
    series.failed(failure, None)
    assert series.run.status is Status.UNSUPPORTED


def test_a_case_that_is_not_started_says_why() -> None:
    series = Series(START, fixed_processes(1), max_processes=5)
    series.refused("the budget of 540 s is spent")
    assert series.is_over
    assert (series.run.status, series.run.reason) == (Status.NOT_RUN, "the budget of 540 s is spent")


def test_a_finished_process_is_kept_before_the_rule_is_asked() -> None:
    def interrupted(run: Run) -> Answer:
        raise KeyboardInterrupt

    series = Series(START, interrupted, max_processes=5)
    with pytest.raises(KeyboardInterrupt):
        series.took(process("0"))
    assert logs(series.run) == ["0"]


def test_a_resumed_series_measures_only_what_is_missing() -> None:
    begun = msgspec.structs.replace(START, processes=(process("earlier"), process("earlier")))
    assert logs(measured(fixed_processes(3), start=begun).run) == ["earlier", "earlier", "2"]


def test_a_resumed_series_that_has_enough_is_over() -> None:
    begun = msgspec.structs.replace(START, processes=(process("earlier"),))
    assert Series(begun, fixed_processes(1), max_processes=5).is_over


def test_the_rule_is_asked_about_earlier_processes_only_when_needed() -> None:
    asked: list[int] = []

    def decide(run: Run, /) -> Answer:
        asked.append(len(run.processes))
        return Answer.ENOUGH

    series = Series(msgspec.structs.replace(START, processes=(process("earlier"),)), decide, max_processes=5)
    assert asked == []
    assert series.is_over
    assert asked == [1]


def test_a_fixed_number_of_samples_is_set_by_the_platform() -> None:
    two = dataclasses.replace(CPU, samples=2)
    ends = [fixed_samples(MINI_BF16, two, (make_sample(),) * count) for count in (1, 2, 3)]
    assert ends == [None, SamplingEnd.FIXED, SamplingEnd.FIXED]


def test_resumed_processes_count_against_the_bound() -> None:
    begun = msgspec.structs.replace(START, processes=(process("earlier"), process("earlier")))
    assert logs(measured(lambda run: Answer.MORE, 3, begun).run) == ["earlier", "earlier", "2"]
