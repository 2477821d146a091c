from __future__ import annotations

import pytest

from perf_tests.harness.protocol import Environment, Failure, FailureKind, Phase
from perf_tests.harness.records import BuildReport, Process, Run, Status
from perf_tests.harness.sampling import Answer, ProcessError, fixed_processes, measure

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


def numbered(index: int) -> Process:
    return process(str(index))


def logs(run: Run) -> list[str]:
    return [process.log for process in run.processes]


def test_as_many_processes_are_measured_as_the_rule_asks_for() -> None:
    run = measure(numbered, START, fixed_processes(3), max_processes=5)
    assert logs(run) == ["0", "1", "2"]


def test_each_look_is_recorded() -> None:
    run = measure(numbered, START, fixed_processes(2), max_processes=5)
    assert run.looks == ("1 process: more", "2 processes: enough")


def test_a_rule_that_is_never_satisfied_is_bounded() -> None:
    run = measure(numbered, START, lambda run: Answer.MORE, max_processes=2)
    assert logs(run) == ["0", "1"]


def test_a_retaken_process_is_replaced() -> None:
    answers = iter([Answer.RETAKE, Answer.ENOUGH])
    takes = iter(["spoilt", "good"])
    run = measure(lambda index: process(next(takes)), START, lambda run: next(answers), max_processes=5)
    assert logs(run) == ["good"]
    assert run.looks == ("1 process: retake", "1 process: enough")


def test_retaking_counts_against_the_bound() -> None:
    places = []

    def run_once(index: int) -> Process:
        places.append(index)
        return process(str(index))

    run = measure(run_once, START, lambda run: Answer.RETAKE, max_processes=3)
    assert places == [0, 0, 0]
    assert run.processes == ()


@pytest.mark.parametrize(
    ("partial", "kept"),
    [
        pytest.param(None, ["0"], id="nothing-to-keep"),
        pytest.param(process("half"), ["0", "half"], id="half"),
    ],
)
def test_a_failed_process_ends_the_run_and_keeps_what_there_is(
    partial: Process | None, kept: list[str]
) -> None:
    def run_once(index: int) -> Process:
        if index == 1:
            raise ProcessError(FAILURE, partial)
        return process(str(index))

    run = measure(run_once, START, fixed_processes(3), max_processes=5)
    assert (run.status, run.reason, run.failure) == (Status.OOM, "out of memory", FAILURE)
    assert logs(run) == kept


def test_a_case_that_cannot_be_had_here_is_unsupported_and_no_error() -> None:
    def run_once(index: int) -> Process:
        failure = Failure(kind=FailureKind.UNSUPPORTED, phase=Phase.QUANTIZE, message="no kernels before 8.9")
        raise ProcessError(failure, None)

    assert measure(run_once, START, fixed_processes(1), max_processes=5).status is Status.UNSUPPORTED


def test_every_finished_process_was_seen_before_the_rule_is_asked() -> None:
    seen: list[Run] = []

    def interrupted(run: Run) -> Answer:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        measure(numbered, START, interrupted, 5, seen.append)
    assert logs(seen[-1]) == ["0"]
