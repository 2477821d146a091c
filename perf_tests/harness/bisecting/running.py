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
from perf_tests.harness.bisecting.search import BisectPoint
from perf_tests.harness.bisecting.state import BisectState

PREPARED_AHEAD = 2
"""Versions that are prepared while one is measured: whichever comes next is then there."""


class CandidateError(Exception):
    """A version cannot be installed, built or measured: it is skipped."""


class Candidates(Protocol):
    """How versions are made and measured."""

    def prepare(self, item: str) -> None:
        """Install or build a version. Raises CandidateError. Called from another thread, once a version."""

    def measure(self, item: str) -> tuple[float, float]:
        """The value of a prepared version, and half its 95 % interval. Raises CandidateError."""

    def discard(self, item: str) -> None:
        """Remove what was prepared of a version, which is not measured again."""


@dataclass(kw_only=True, slots=True)
class Bisection:
    """One run of a search."""

    candidates: Candidates
    path: Path
    budget_s: float
    """Of measuring; the search goes on where it stopped when it is run again."""
    say: Callable[[str], None]
    _prepared: dict[str, Future[None]] = field(default_factory=dict)

    def run(self, begun: BisectState) -> BisectState:
        """The search once its answer is known, or the budget is spent.

        Raises PerfError where the file of the search cannot be written.
        """
        pool = ThreadPoolExecutor(1)
        try:
            return self._search(begun, pool)
        finally:
            pool.shutdown(cancel_futures=True)
            for item in self._prepared:
                self.candidates.discard(item)

    def _search(self, begun: BisectState, pool: ThreadPoolExecutor) -> BisectState:
        now, spent_s = begun, 0.0
        while (item := search.next_item(now.question, now.points)) is not None:
            if spent_s >= self.budget_s:
                self.say(f"the budget of {self.budget_s:.0f} s is spent: run it again to go on")
                break
            self._prepare(pool, item)
            for after in search.upcoming(now.question, now.points)[:PREPARED_AHEAD]:
                self._prepare(pool, after)
            began = time.monotonic()
            point = self._measured(item)
            spent_s += time.monotonic() - began
            now = self._kept(now, item, point)
        return now

    def _prepare(self, pool: ThreadPoolExecutor, item: str) -> None:
        if item not in self._prepared:
            self._prepared[item] = pool.submit(self.candidates.prepare, item)

    def _measured(self, item: str) -> BisectPoint:
        try:
            self._prepared[item].result()
            began = time.monotonic()
            value, half = self.candidates.measure(item)
        except CandidateError as error:
            return BisectPoint(reason=str(error))
        return BisectPoint(value=value, half=half, seconds=time.monotonic() - began)

    def _kept(self, now: BisectState, item: str, point: BisectPoint) -> BisectState:
        said = f"{item}: skipped: {point.reason}" if point.value is None else f"{item}: {point.value:g}"
        self.say(said)
        kept = msgspec.structs.replace(now, points={**now.points, item: point}, log=(*now.log, said))
        state.write(self.path, kept)
        return kept
