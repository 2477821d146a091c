"""Runs a search: prepares versions, measures one at a time, keeps every measurement, stops in time."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import msgspec

from perf_tests.harness.bisecting import search, state
from perf_tests.harness.bisecting.commands import CandidateError
from perf_tests.harness.bisecting.search import BisectPoint
from perf_tests.harness.bisecting.state import BisectState
from perf_tests.harness.lanes.waiting import result_of

PREPARED_AHEAD = 2
"""Versions that are prepared while one is measured: whichever comes next is then there."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Prepared:
    """What was installed or built."""

    commit: str = ""
    """What it was built from; empty where that is unknown."""
    packages: dict[str, str] = field(default_factory=dict)
    """What its environment holds beside it; empty where it has none of its own."""


class Candidates(Protocol):
    """How versions are made and measured."""

    def prepare(self, item: str) -> Prepared:
        """Install or build a version. Raises CandidateError. Called from another thread, once a version."""

    def measure(self, item: str) -> tuple[float, float]:
        """The value of a prepared version, and half its 95 % interval. Raises CandidateError.

        Called from another thread.
        """

    def discard(self, item: str) -> None:
        """Remove what was prepared of a version, which is not measured again. Raises nothing."""

    def stop(self) -> None:
        """End what is being prepared or measured, because nobody needs it any more."""


@dataclass(kw_only=True, slots=True)
class Bisection:
    """One run of a search."""

    candidates: Candidates
    path: Path
    budget_s: float
    """Of measuring; the search goes on where it stopped when it is run again."""
    say: Callable[[str], None]
    _prepared: dict[str, Future[Prepared]] = field(default_factory=dict)

    def run(self, begun: BisectState) -> BisectState:
        """The search once its answer is known, or the budget is spent.

        Raises PerfError where the file of the search cannot be written.
        """
        # Ctrl-C strikes this thread alone: none that starts a process is struck before it knows the process.
        ahead, measuring = ThreadPoolExecutor(1), ThreadPoolExecutor(1)
        try:
            return self._search(begun, ahead, measuring)
        finally:
            self.candidates.stop()
            for pool in (ahead, measuring):
                pool.shutdown(cancel_futures=True)
            for item in self._prepared:
                self.candidates.discard(item)

    def _search(
        self, begun: BisectState, pool: ThreadPoolExecutor, measuring: ThreadPoolExecutor
    ) -> BisectState:
        now, spent_s = begun, 0.0
        while (item := search.next_item(now.question, now.points)) is not None:
            if spent_s >= self.budget_s:
                self.say(f"the budget of {self.budget_s:.0f} s is spent: run it again to go on")
                break
            ahead = search.upcoming(now.question, now.points)[:PREPARED_AHEAD]
            self._prepare(pool, (item, *ahead))
            point = self._measured(item, measuring)
            spent_s += point.seconds
            now = self._kept(now, item, point)
            self.candidates.discard(item)
            del self._prepared[item]  # afterwards: one that is stopped meanwhile is discarded at the end
        return now

    def _prepare(self, pool: ThreadPoolExecutor, wanted: tuple[str, ...]) -> None:
        # In the order in which they are needed: what was guessed before and did not come true waits.
        for item in [each for each, future in self._prepared.items() if future.cancel()]:
            del self._prepared[item]
        for item in wanted:
            if item not in self._prepared:
                self._prepared[item] = pool.submit(self.candidates.prepare, item)

    def _measured(self, item: str, pool: ThreadPoolExecutor) -> BisectPoint:
        try:
            made = result_of(self._prepared[item])
        except CandidateError as error:
            return BisectPoint(reason=str(error))
        began = time.monotonic()
        try:
            value, half = result_of(pool.submit(self.candidates.measure, item))
            point = BisectPoint(value=value, half=half)
        except CandidateError as error:
            point = BisectPoint(reason=str(error))
        seconds = time.monotonic() - began
        return msgspec.structs.replace(point, seconds=seconds, commit=made.commit, packages=made.packages)

    def _kept(self, now: BisectState, item: str, point: BisectPoint) -> BisectState:
        said = f"{item}: skipped: {point.reason}" if point.value is None else f"{item}: {point.value:g}"
        self.say(said)
        kept = msgspec.structs.replace(now, points={**now.points, item: point}, log=(*now.log, said))
        state.write(self.path, kept)
        return kept
