"""A search prepares ahead, spends its budget on measuring alone, and leaves nothing behind."""

from __future__ import annotations

import errno
import os
import signal
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from perf_tests.harness.bisecting import running, search
from perf_tests.harness.bisecting.commands import CandidateError, Commands
from perf_tests.harness.bisecting.running import Bisection, Candidates, Prepared
from perf_tests.harness.bisecting.search import BisectAnswer, BisectQuestion, brackets
from perf_tests.harness.bisecting.state import resume
from perf_tests.protocol.errors import PerfError
from perf_tests.unit.gone import is_gone_within_5_s


class Fakes:
    """Versions 0 to 8 with a step at 5; of each, what was asked and when."""

    def __init__(self) -> None:
        self.prepared: list[str] = []
        self.held: set[str] = set()
        self.held_at_most = 0
        self.bad_end_is_there = threading.Event()
        self.measured_with: dict[str, set[str]] = {}

    def prepare(self, item: str) -> Prepared:
        self.prepared.append(item)
        self.held.add(item)
        self.held_at_most = max(self.held_at_most, len(self.held))
        if item == "8":
            self.bad_end_is_there.set()
        return Prepared()

    def measure(self, item: str) -> tuple[float, float]:
        self.bad_end_is_there.wait(10)
        self.measured_with[item] = set(self.held)
        return float(int(item) >= 5), 0.0

    def discard(self, item: str) -> None:
        self.held.discard(item)

    def stop(self) -> None:
        pass


def bisection(candidates: Candidates, path: Path, budget_s: float = 60.0) -> Bisection:
    return Bisection(candidates=candidates, path=path, budget_s=budget_s, say=lambda _: None)


NINE = BisectQuestion(items=tuple(map(str, range(9))), probe="")


def test_the_bad_end_is_prepared_while_the_good_one_is_measured(tmp_path: Path) -> None:
    fakes = Fakes()
    found = bisection(fakes, tmp_path / "b.json").run(resume(tmp_path / "b.json", NINE))
    (step,) = brackets(NINE, found.points)
    assert (step.before, step.after) == ("4", "5")
    assert {"0", "8"} <= fakes.measured_with["0"]
    assert resume(tmp_path / "b.json", NINE) == found


def test_what_was_measured_is_removed_at_once_and_nothing_is_left(tmp_path: Path) -> None:
    fakes = Fakes()
    bisection(fakes, tmp_path / "b.json").run(resume(tmp_path / "b.json", NINE))
    assert fakes.held == set()
    assert fakes.held_at_most <= 4  # the one that is measured, two ahead, and a guess that came in between
    assert fakes.prepared[:3] == ["0", "8", "4"]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """One that versions move on, each of which is prepared only when it is needed."""
    clock = Clock()
    monkeypatch.setattr(running, "time", clock)
    monkeypatch.setattr(running, "PREPARED_AHEAD", 0)
    return clock


class Clock:
    """Seconds since a test began."""

    now = 0.0

    def monotonic(self) -> float:
        return self.now


class Timed(Fakes):
    """Versions of which each takes 100 s to prepare and 10 s to measure; the fourth is measured in vain."""

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self.bad_end_is_there.set()
        self.clock = clock

    def prepare(self, item: str) -> Prepared:
        self.clock.now += 100
        return super().prepare(item)

    def measure(self, item: str) -> tuple[float, float]:
        self.clock.now += 10
        if item == "4":
            raise CandidateError("no")
        return super().measure(item)


def test_the_budget_is_of_measuring_in_vain_or_not_and_not_of_preparing(tmp_path: Path, clock: Clock) -> None:
    path = tmp_path / "b.json"
    found = bisection(Timed(clock), path, budget_s=30.0).run(resume(path, NINE))
    assert {item: point.seconds for item, point in found.points.items()} == {"0": 10.0, "8": 10.0, "4": 10.0}
    assert clock.now == 330.0


def test_what_is_prepared_in_vain_is_ended_with_the_search(tmp_path: Path) -> None:
    commands = Commands(timeout_s=60.0)

    class Builds(Fakes):
        def prepare(self, item: str) -> Prepared:
            if item not in ("0", "8"):
                commands.run(("sleep", "60"))
            return super().prepare(item)

        def measure(self, item: str) -> tuple[float, float]:
            return 1.0, 0.0

        def stop(self) -> None:
            commands.stop()

    began = time.monotonic()
    found = bisection(Builds(), tmp_path / "b.json").run(resume(tmp_path / "b.json", NINE))
    assert search.answer(NINE, found.points) is BisectAnswer.NOT_REPRODUCED
    assert time.monotonic() - began < 30


def test_a_command_that_takes_too_long_ends_with_what_it_started(tmp_path: Path) -> None:
    script = f"sleep 60 & echo $! > {tmp_path}/pid; wait"
    with pytest.raises(CandidateError, match=r"it took longer than 3 s"):
        Commands(timeout_s=3.0).run(("bash", "-c", script))
    assert is_gone_within_5_s(int((tmp_path / "pid").read_text()))


def test_without_room_for_what_a_command_prints_no_version_is_blamed(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(tempfile, "TemporaryFile", refuse)
    with pytest.raises(PerfError, match=r"cannot be kept: No space left on device; make room"):
        Commands(timeout_s=60.0).run(("true",))


def test_what_a_command_leaves_running_ends_with_it(tmp_path: Path) -> None:
    script = f"sleep 60 > /dev/null & echo $! > {tmp_path}/pid; echo 1"
    assert Commands(timeout_s=60.0).run(("bash", "-c", script)) == "1\n"
    assert is_gone_within_5_s(int((tmp_path / "pid").read_text()))


def test_what_has_left_the_group_of_a_command_holds_up_nothing(tmp_path: Path) -> None:
    commands = Commands(timeout_s=60.0)
    script = f"setsid sh -c 'echo $$ > {tmp_path}/pid; exec sleep 60' & sleep 60"
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(commands.run, ("bash", "-c", script))
        deadline = time.monotonic() + 20
        while not (tmp_path / "pid").exists() or not (tmp_path / "pid").read_text():
            assert time.monotonic() < deadline
        commands.stop()
        assert isinstance(running.exception(20), CandidateError)
    os.kill(int((tmp_path / "pid").read_text()), signal.SIGKILL)


def test_a_version_that_is_removed_as_the_search_is_stopped_is_removed(tmp_path: Path) -> None:
    class Stopped(Fakes):
        is_stopped = False

        def discard(self, item: str) -> None:
            if not self.is_stopped:
                self.is_stopped = True
                raise KeyboardInterrupt
            super().discard(item)

    fakes = Stopped()
    with pytest.raises(KeyboardInterrupt):
        bisection(fakes, tmp_path / "b.json").run(resume(tmp_path / "b.json", NINE))
    assert (list(fakes.measured_with), fakes.held) == (["0"], set())
