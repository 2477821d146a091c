"""Several cards at a time: one thread for each, which takes the next job as soon as it is free."""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import CancelledError, Future
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar

from perf_tests.harness.execution.lane import Lane
from perf_tests.harness.execution.launcher import AbortedError
from perf_tests.harness.lanes.job_queue import Job, JobQueue
from perf_tests.harness.lanes.waiting import result_of, until
from perf_tests.protocol.errors import PerfError

T = TypeVar("T")


class Crew:
    """Runs the lanes, each in a thread that holds the processor cores of its card.

    Threads, because what they do is wait for workers; and they outlive their workers, as these must.
    """

    def __init__(self, lanes: Sequence[Lane], jobs: Sequence[Job], is_done: Callable[[str], bool]) -> None:
        """`is_done` tells of each selected case whether nothing more of it is measured."""
        self.lanes: Mapping[str, Lane] = {lane.card.unit: lane for lane in lanes if lane.card}
        self.retired: dict[str, str] = {}
        """UUID -> why the card measures no more."""
        self._queue = JobQueue(jobs, tuple(self.lanes))
        self._is_done = is_done
        self._changed = threading.Condition()
        self._asked: dict[str, deque[Asked]] = {unit: deque() for unit in self.lanes}
        self._threads: dict[str, threading.Thread] = {}
        self._taken: dict[str, list[Job]] = {unit: [] for unit in self.lanes}
        """By a lane for its current task: its own job, and those of the references that this one needs."""
        self._resting: set[str] = set()
        self._error: BaseException | None = None
        self._is_stopping = False
        for unit, lane in self.lanes.items():
            lane.claim = partial(self._claim, unit)
            lane.gives_up = partial(self._gives_up, unit, lane)
            lane.afterwork.on_done = self._notify

    def wait_for(self, case_id: str) -> None:
        """Start the lanes if need be, and wait until the case is measured.

        Raises what a lane raised, which ends all of them, and PerfError for a case that is in no job.
        """
        self._start()
        with self._changed:
            until(self._changed, lambda: self._error or self._is_done(case_id) or self._is_at_rest())
        if self._error is not None:
            raise self._error
        if not self._is_done(case_id):
            raise PerfError(f"no card was told to measure {case_id}, and all have done what they were told")

    def ask(self, unit: str | None, question: Callable[[Lane], T]) -> T:
        """The answer of `question`, asked on the lane of the card `unit` before that lane's next job.

        The threads of a lane answer it themselves; the first lane does where `unit` is none of the session's.

        Raises what the question raises, and what a lane raised that has ended all of them.
        """
        for own, thread in self._threads.items():
            if thread is threading.current_thread() or self.lanes[own].afterwork.is_mine:
                return question(self.lanes[own])
        self._start()
        card = unit if unit is not None and unit in self.lanes else next(iter(self.lanes))
        lane = self.lanes[card]
        asked = Asked(partial(question, lane))
        with self._changed:
            if self._error is not None or self._is_stopping:
                raise self._error or AbortedError
            self._asked[card].append(asked)
            self._changed.notify_all()
        try:
            answer: T = result_of(asked.answer)
            return answer
        except CancelledError:
            raise self._error or AbortedError from None

    def stop(self) -> None:
        """End the lanes and all of their workers; complete processes are kept. Idempotent."""
        with self._changed:
            self._is_stopping = True
            self._changed.notify_all()
        for lane in self.lanes.values():
            lane.abort()
        for thread in self._threads.values():
            thread.join()

    def _start(self) -> None:
        for unit, lane in self.lanes.items():
            if unit not in self._threads:
                thread = threading.Thread(target=self._run, args=(unit, lane), name=unit, daemon=True)
                self._threads[unit] = thread
                thread.start()

    def _run(self, unit: str, lane: Lane) -> None:
        assert lane.card is not None, "a lane of a crew has a card"
        try:
            os.sched_setaffinity(0, lane.card.cores)  # of this thread, and of the workers that it starts
            while task := self._next(unit, lane):
                task()
                self._give_back(unit, lane)
                self._notify()
        except AbortedError:
            pass
        except BaseException as raised:  # noqa: BLE001 - raised again where `wait_for` waits
            self._failed(raised)
        try:
            lane.close()
        except BaseException as raised:  # noqa: BLE001 - a thread that ended here would be waited for
            self._failed(raised)
        with self._changed:
            for asked in self._asked[unit]:
                asked.answer.cancel()
            self._changed.notify_all()

    def _failed(self, error: BaseException) -> None:
        """Have all lanes end; the first error is the one that is raised."""
        with self._changed:
            self._error = self._error or error
            self._changed.notify_all()

    def _next(self, unit: str, lane: Lane) -> Callable[[], None] | None:
        """The next task of a lane, waited for; None where the session ends."""
        with self._changed:
            while not (self._is_stopping or self._error):
                if task := self._waiting_task(unit, lane):
                    self._resting.discard(unit)
                    return task
                if unit not in self._resting:
                    self._resting.add(unit)
                    self._changed.notify_all()
                self._changed.wait()
        return None

    def _waiting_task(self, unit: str, lane: Lane) -> Callable[[], None] | None:
        if self._asked[unit]:  # which may be to time something
            return lane.afterwork.wait if lane.afterwork.is_left else self._asked[unit].popleft().reply
        if job := self._queue.take(unit):
            self._taken[unit].append(job)
            return partial(lane.measure_job, job)
        return lane.afterwork.wait if lane.afterwork.is_left else None

    def _notify(self) -> None:
        with self._changed:
            self._changed.notify_all()

    def _is_at_rest(self) -> bool:
        """Whether every lane waits, and there is nothing left to wait for."""
        return self._resting == self.lanes.keys() and self._queue.is_empty

    def _claim(self, unit: str, case_id: str) -> Job | None:
        job = self._queue.claim(case_id, unit)
        if job is not None:
            self._taken[unit].append(job)
        return job

    def _give_back(self, unit: str, lane: Lane) -> None:
        """Let other cards have what a card that was given up has left of what it took."""
        taken, self._taken[unit] = self._taken[unit], []
        if unit not in self.retired or not taken:
            return
        lane.afterwork.wait()
        for job in taken:
            left = tuple(case_id for case_id in job.cases if not self._is_done(case_id))
            if left:
                self._queue.put(replace(job, cases=left))

    def _gives_up(self, unit: str, lane: Lane) -> bool:
        """Whether the card is broken, and the others measure what is left. The last one never gives up."""
        # Without the lock: it asks the driver, which may take its time.
        is_broken = unit not in self.retired and lane.is_broken
        with self._changed:
            is_last = len(self.retired.keys() - {unit}) == len(self.lanes) - 1
            if is_broken and not is_last:
                self.retired[unit] = f"{lane.failed_starts} of its cases in a row failed before they computed"
                self._queue.retire(unit)
                self._changed.notify_all()
            return unit in self.retired


class Asked:
    """A question to a lane, and its answer."""

    def __init__(self, question: Callable[[], Any]) -> None:
        self.answer: Future[Any] = Future()
        self._question = question

    def reply(self) -> None:
        """Answer the question; what it raises is the answer, and raised here as well where it ends all."""
        try:
            self.answer.set_result(self._question())
        except BaseException as error:
            self.answer.set_exception(error)
            if not isinstance(error, Exception):
                raise
