from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from perf_tests.harness.execution.crew import Crew
from perf_tests.harness.execution.launcher import AbortedError
from perf_tests.harness.lanes.afterwork import Afterwork
from perf_tests.harness.lanes.cards import LaneCard
from perf_tests.harness.lanes.job_queue import Job
from perf_tests.protocol.errors import PerfError

UNITS = ("GPU-0", "GPU-1")


GENEROUS_S = 30.0


def ends(question: Callable[[], object]) -> None:
    """Ask in a thread that nobody waits for longer than need be; raises what the question raises."""
    raised: list[BaseException] = []

    def ask() -> None:
        try:
            question()
        except BaseException as error:  # noqa: BLE001 - raised where the test waits
            raised.append(error)

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(GENEROUS_S)
    assert not thread.is_alive(), "it waits for ever"
    for error in raised:
        raise error


class FakeLane:
    """A lane that measures a case by noting its id, and fails at the case `broken`."""

    def __init__(self, unit: str, measured: dict[str, str], broken: str) -> None:
        self.card = LaneCard(unit=unit, cores=frozenset(os.sched_getaffinity(0)))
        self.afterwork = Afterwork(beside=True)
        self.is_broken = False
        self._measured, self._broken = measured, broken

    def measure_job(self, job: Job) -> None:
        for case_id in job.cases:
            if case_id == self._broken:
                raise PerfError("the disk is full")
            self._measured[case_id] = self.card.unit

    def abort(self) -> None:
        pass

    def close(self) -> None:
        pass


class CrewOfTwo:
    """Makes crews of two fake lanes; `measured` is case id -> card."""

    def __init__(self) -> None:
        self.measured: dict[str, str] = {}
        self.crews: list[Crew] = []

    def __call__(self, *jobs: Job, broken: str = "") -> Crew:
        lanes: list[Any] = [FakeLane(unit, self.measured, broken) for unit in UNITS]
        crew = Crew(lanes, jobs, self.measured.__contains__)
        self.crews.append(crew)
        return crew


@pytest.fixture
def two() -> Iterator[CrewOfTwo]:
    made = CrewOfTwo()
    yield made
    for crew in made.crews:
        crew.stop()


def test_a_job_is_measured_on_the_card_that_is_its_home(two: CrewOfTwo) -> None:
    crew = two(*(Job(cases=(unit.lower(),), family=unit, home=unit) for unit in UNITS))
    for case_id in ("gpu-1", "gpu-0"):
        crew.wait_for(case_id)
    assert two.measured == {"gpu-0": "GPU-0", "gpu-1": "GPU-1"}


def test_a_case_that_is_in_no_job_is_an_error_instead_of_a_hang(two: CrewOfTwo) -> None:
    crew = two(Job(cases=("planned",), family="f"))
    with pytest.raises(PerfError, match="no card was told to measure forgotten"):
        crew.wait_for("forgotten")
    assert set(two.measured) == {"planned"}


def test_an_error_of_a_lane_is_raised_where_a_case_is_waited_for(two: CrewOfTwo) -> None:
    crew = two(Job(cases=("broken",), family="f"), broken="broken")
    with pytest.raises(PerfError, match="the disk is full"):
        crew.wait_for("broken")


def test_a_lane_whose_cores_are_gone_is_an_error_instead_of_a_hang(
    two: CrewOfTwo, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_pid: int, _cores: object) -> None:
        raise OSError("no such cores")

    monkeypatch.setattr(os, "sched_setaffinity", refuse)
    crew = two(Job(cases=("planned",), family="f"))
    with pytest.raises(OSError, match="no such cores"):
        ends(lambda: crew.wait_for("planned"))


def test_a_lane_that_cannot_close_is_an_error_instead_of_a_hang(
    two: CrewOfTwo, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_lane: FakeLane) -> None:
        raise OSError("a worker that does not die")

    monkeypatch.setattr(FakeLane, "close", fail)
    crew = two(Job(cases=("broken",), family="f"), broken="broken")
    with pytest.raises(PerfError, match="the disk is full"):
        ends(lambda: crew.wait_for("broken"))


def test_a_question_to_lanes_that_were_stopped_is_refused_instead_of_waiting_for_an_answer(
    two: CrewOfTwo,
) -> None:
    crew = two(Job(cases=("planned",), family="f"))
    crew.wait_for("planned")
    crew.stop()
    with pytest.raises(AbortedError):
        ends(lambda: crew.ask("GPU-0", lambda lane: lane.card))


@pytest.mark.parametrize(("asked", "answers"), [("GPU-1", "GPU-1"), ("of-another-session", "GPU-0")])
def test_a_question_is_answered_by_the_lane_of_its_card_or_by_the_first(
    two: CrewOfTwo, asked: str, answers: str
) -> None:
    card = two().ask(asked, lambda lane: lane.card)
    assert card is not None
    assert card.unit == answers


def test_the_error_of_a_question_is_raised_where_it_was_asked_and_ends_no_lane(two: CrewOfTwo) -> None:
    crew = two(Job(cases=("planned",), family="f"))

    def question(_lane: object) -> None:
        raise PerfError("no such case")

    with pytest.raises(PerfError, match="no such case"):
        crew.ask("GPU-0", question)
    crew.wait_for("planned")
    assert set(two.measured) == {"planned"}


class LosingLane(FakeLane):
    """Its card is lost in the job of a reference, which it claims for another job."""

    claim: Any
    gives_up: Any
    failed_starts = 1

    def measure_job(self, job: Job) -> None:
        if job.cases != ("needs a reference",):
            super().measure_job(job)
            return
        assert self.claim("reference").cases == ("reference", "beside it")
        self._measured["reference"] = self.card.unit
        self.is_broken = True
        assert self.gives_up()


def test_what_is_left_of_a_reference_of_a_lost_card_is_measured_by_another() -> None:
    measured: dict[str, str] = {}
    lanes: list[Any] = [FakeLane("GPU-0", measured, ""), LosingLane("GPU-1", measured, "")]
    jobs = (
        Job(cases=("needs a reference",), family="f", home="GPU-1"),
        Job(cases=("reference", "beside it"), family="f", home="GPU-1", urgency=1),
    )
    crew = Crew(lanes, jobs, measured.__contains__)
    try:
        for case_id in ("beside it", "needs a reference"):
            crew.wait_for(case_id)
    finally:
        crew.stop()
    assert measured == {"reference": "GPU-1", "beside it": "GPU-0", "needs a reference": "GPU-0"}


def test_what_is_left_of_a_job_that_a_question_took_is_measured_by_another() -> None:
    """As where an A/B needs a reference, and the card is lost in it."""
    measured: dict[str, str] = {}
    losing = LosingLane("GPU-1", measured, "")
    lanes: list[Any] = [FakeLane("GPU-0", measured, ""), losing]
    crew = Crew(lanes, (), measured.__contains__)

    def question(lane: Any) -> None:
        crew._queue.put(Job(cases=("reference", "beside it"), family="f", home="GPU-1"))
        lane.measure_job(Job(cases=("needs a reference",), family="f"))

    try:
        crew.ask("GPU-1", question)
        crew.wait_for("beside it")
    finally:
        crew.stop()
    assert measured == {"reference": "GPU-1", "beside it": "GPU-0"}


class PonderingLane(FakeLane):
    """A driver that answers late whether the card is lost."""

    gives_up: Any
    asked = threading.Event()
    answer = threading.Event()

    def measure_job(self, job: Job) -> None:
        self.gives_up()
        super().measure_job(job)

    @property
    def is_broken(self) -> bool:
        self.asked.set()
        assert self.answer.wait(2 * GENEROUS_S)
        return False

    @is_broken.setter
    def is_broken(self, _: bool) -> None:
        pass


def test_a_driver_that_answers_late_holds_up_its_own_card_alone() -> None:
    measured: dict[str, str] = {}
    pondering = PonderingLane("GPU-1", measured, "")
    lanes: list[Any] = [FakeLane("GPU-0", measured, ""), pondering]
    jobs = (Job(cases=("lost",), family="f", home="GPU-1"), Job(cases=("other",), family="f", home="GPU-0"))
    crew = Crew(lanes, jobs, measured.__contains__)
    try:
        ends(lambda: crew.wait_for("other"))
        assert pondering.asked.wait(GENEROUS_S)
        ends(lambda: crew.ask("GPU-0", lambda _: None))
    finally:
        pondering.answer.set()
        crew.stop()
