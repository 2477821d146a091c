"""Signs of life: phases in, lines out."""

from __future__ import annotations

import io
from collections.abc import Callable, Collection, Mapping
from pathlib import Path

import pytest

from perf_tests.harness.processes.watch import Step, in_stack
from perf_tests.harness.report.progress import (
    Lines,
    LiveLines,
    PhaseLines,
    TimeLeft,
    display_on,
    duration,
    roughly,
    uncaptured,
)
from perf_tests.protocol.errors import WorkerError
from perf_tests.protocol.messages import Failure, FailureKind, Phase

CASE = "flux1-dev-b4-int8dq-regional"


class Screen:
    """A display that keeps what it was told."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.shown: dict[str, str] = {}

    def line(self, text: str) -> None:
        """Keep the line."""
        self.lines.append(text)

    def status(self, lane: str, text: str) -> None:
        """Keep the newest."""
        self.shown[lane] = text or f"idle after {self.shown[lane]}"


class Time:
    """A clock that moves when it is told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def screen() -> Screen:
    """Empty."""
    return Screen()


@pytest.fixture
def time() -> Time:
    """At 1000 s."""
    return Time()


Begin = Callable[..., PhaseLines]


@pytest.fixture
def begin(screen: Screen, time: Time) -> Begin:
    """A session of 208 cases that began at 1000 s."""

    def start(
        done: Collection[str] = (),
        expected_s: Mapping[str, float] | None = None,
        lanes: Mapping[str, str] | None = None,
    ) -> PhaseLines:
        left = TimeLeft(expected_s=expected_s or {}, lanes=1, started=1000.0)
        return PhaseLines(
            display=screen, total=208, done=lambda: done, left=left, lanes=lanes or {}, clock=time
        )

    return start


def spend(progress: PhaseLines, time: Time, phase: Phase, seconds: float, **changes: object) -> None:
    """One phase of a worker that takes so long."""
    with progress(Step(case_id=CASE, phase=phase, **changes)):  # type: ignore[arg-type]  # fields by name
        time.now += seconds


def test_a_phase_is_a_line_with_how_far_the_session_is(begin: Begin, screen: Screen, time: Time) -> None:
    expected_s = {f"case-{number}": 60.0 for number in range(208)}
    progress = begin([f"case-{number}" for number in range(17)], expected_s, lanes={"GPU-a": "gpu 2"})
    time.now += 41 * 60 - 21

    spend(progress, time, Phase.COMPILE, 21.0, unit="GPU-a")

    assert screen.lines == [
        "[17/208, 41 min, about 6 h 30 min left]  gpu 2  flux1-dev-b4-int8dq-regional  compile 21 s"
    ]
    assert screen.shown["gpu 2"].startswith(
        "idle after [17/208, 41 min, about 6 h 30 min left]  gpu 2  flux1"
    )


def test_seconds_of_quantizing_that_hold_comparisons_are_said_to(
    begin: Begin, screen: Screen, time: Time
) -> None:
    spend(begin(), time, Phase.QUANTIZE, 25.0)

    assert screen.lines == ["[0/208, 25 s]  flux1-dev-b4-int8dq-regional  quantize, fidelity 25 s"]


def test_one_device_has_no_name_and_later_processes_are_numbered(
    begin: Begin, screen: Screen, time: Time
) -> None:
    spend(begin(), time, Phase.LOAD, 9.4, process=1, unit="GPU-a")

    assert screen.lines == ["[0/208, 9.4 s]  flux1-dev-b4-int8dq-regional  process 2  load 9.4 s"]


def test_workers_of_several_stacks_are_told_apart(begin: Begin, screen: Screen, time: Time) -> None:
    progress = begin()
    good, new = (in_stack(progress, name, 10) for name in ("good", "new"))
    for process in (3, 10):  # the last is beyond those that are counted
        for watch, count in ((good, 2), (new, 1)):
            for _ in range(count):
                with watch(Step(case_id=CASE, phase=Phase.GENERATE, process=process)):
                    time.now += 2.0
        for watch in (good, new):
            with watch(Step(case_id=CASE, phase=Phase.INSPECT, process=process)):
                time.now += 1.0

    assert [line.partition("]  ")[2].removeprefix(CASE) for line in screen.lines] == [
        "  process 4 in good  generate 2 times in 4.0 s",
        "  process 4 in good  inspect, fidelity 1.0 s",
        "  process 4 in new  generate 1 times in 2.0 s",
        "  process 4 in new  inspect, fidelity 1.0 s",
        "  in good  generate 2 times in 4.0 s",
        "  in good  inspect, fidelity 1.0 s",
        "  in new  generate 1 times in 2.0 s",
        "  in new  inspect, fidelity 1.0 s",
    ]


def test_all_generations_of_a_process_are_one_line(begin: Begin, screen: Screen, time: Time) -> None:
    progress = begin()
    for _ in range(5):
        spend(progress, time, Phase.GENERATE, 2.0)
    assert screen.lines == []

    spend(progress, time, Phase.INSPECT, 3.0)

    assert [line.rpartition("  ")[2] for line in screen.lines] == [
        "generate 5 times in 10 s",
        "inspect, fidelity 3.0 s",
    ]


def test_a_phase_that_fails_says_so_at_once(begin: Begin, screen: Screen, time: Time) -> None:
    failure = Failure(kind=FailureKind.OOM, phase=Phase.LOAD, message="out of\nmemory")
    progress = begin()

    def fail() -> None:
        with progress(Step(case_id=CASE, phase=Phase.LOAD)):
            time.now += 4.0
            raise WorkerError(failure)

    with pytest.raises(WorkerError):
        fail()
    assert screen.lines == [
        "[0/208, 4.0 s]  flux1-dev-b4-int8dq-regional  load failed after 4.0 s: out of memory"
    ]


def test_an_interrupted_phase_says_nothing(begin: Begin, screen: Screen, time: Time) -> None:
    progress = begin()

    def interrupt() -> None:
        with progress(Step(case_id=CASE, phase=Phase.LOAD)):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupt()
    assert screen.lines == []


def test_the_time_left_follows_the_forecast_and_then_what_was_measured() -> None:
    left = TimeLeft(expected_s={"a": 300.0, "b": 300.0, "c": 600.0}, lanes=1, started=0.0)

    assert left.seconds((), 3, 0.0) == 1200.0
    assert left.seconds((), 3, 200.0) == 1000.0  # the case that is measured now is no surprise
    # Twice as slow as expected, and the forecast counts as much as the 300 s that were measured.
    assert left.seconds(("a",), 3, 600.0) == pytest.approx(900.0 * 900 / 600)


def test_the_time_left_of_four_cards_is_a_fourth() -> None:
    left = TimeLeft(expected_s={"a": 300.0, "b": 300.0}, lanes=4, started=0.0)

    assert left.seconds((), 2, 0.0) == 150.0


def test_without_a_forecast_the_time_left_is_unknown_until_a_case_is_done() -> None:
    left = TimeLeft(expected_s={}, lanes=1, started=0.0, done_before=("old",))

    assert left.seconds(("old",), 4, 50.0) is None
    assert left.seconds(("old", "a"), 4, 100.0) == 200.0


def test_a_forecast_that_was_wrong_is_not_repeated(begin: Begin, screen: Screen, time: Time) -> None:
    progress = begin((), {f"case-{number}": 1.0 for number in range(208)})
    spend(progress, time, Phase.LOAD, 200.0)
    spend(progress, time, Phase.LOAD, 10.0)
    assert [line.partition("]")[0] for line in screen.lines] == [
        "[0/208, 3 min, about 10 s left",
        "[0/208, 4 min",
    ]


def test_nothing_is_forecast_of_what_comes_after_the_last_case(
    begin: Begin, screen: Screen, time: Time
) -> None:
    every = {f"case-{number}": 60.0 for number in range(208)}
    spend(begin(every, every), time, Phase.LOAD, 12.0)  # of a pair, or of the evidence on a red case
    assert screen.lines[0].startswith("[208/208, 12 s]  ")


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0.4, "0.4 s"), (41.2, "41 s"), (99.0, "99 s"), (2460, "41 min"), (11400, "3 h 10 min"), (7200, "2 h")],
)
def test_a_duration_is_said_in_the_unit_that_fits(seconds: float, said: str) -> None:
    assert duration(seconds) == said


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (3, "about 10 s"),
        (44, "about 40 s"),
        (2401, "about 41 min"),
        (10900, "about 3 h"),
        (12600, "about 3 h 30 min"),
    ],
)
def test_a_forecast_is_rounded(seconds: float, said: str) -> None:
    assert roughly(seconds) == said


def test_a_log_gets_each_line_at_once_and_a_terminal_keeps_one_status_line_a_card() -> None:
    log, terminal = io.StringIO(), io.StringIO()
    display, live = Lines(log), LiveLines(terminal)

    for each in (display, live):
        each.status("gpu 0", "a  compile ...")
        each.status("gpu 1", "b  load ...")
        each.status("gpu 0", "c  load ...")
        each.line("a  compile 21 s")
        each.close()

    assert log.getvalue() == "a  compile ...\na  compile 21 s\n"  # only the first phase is told twice
    shown = terminal.getvalue()
    assert "a  compile 21 s\n" in shown
    assert "c  load ... 0.0 s\x1b[0m\n" in shown  # above the line of the other card
    assert "b  load ... 0.0 s" in shown
    assert isinstance(display_on(log), Lines)


def test_a_reader_that_is_gone_ends_no_session() -> None:
    gone = io.StringIO()
    gone.close()

    Lines(gone).line("nobody reads this")


def test_a_stream_is_written_to_where_it_was_before_it_was_redirected(tmp_path: Path) -> None:
    with (tmp_path / "log").open("w") as stream, uncaptured(stream) as copy:
        stream.close()
        Lines(copy).line("measured")

    assert (tmp_path / "log").read_text() == "measured\n"
    in_memory = io.StringIO()
    assert uncaptured(in_memory) is in_memory
