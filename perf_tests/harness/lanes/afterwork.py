"""What is left to do with cases once they are measured, while their card measures the next."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable
from concurrent.futures import Future, ThreadPoolExecutor

from perf_tests.harness.lanes.waiting import until_done


class Afterwork:
    """Work on measured cases, in the order in which they were: by a thread of its own, or at once.

    One other thread hands in the work, and waits for it. The thread that works has the processor cores of the
    one that handed in the first.
    """

    def __init__(self, *, beside: bool) -> None:
        """`beside` is whether it is done by a thread of its own."""
        self.on_done: Callable[[], None] = _nothing
        """Called by that thread after each piece of work."""
        self._pool = ThreadPoolExecutor(1, initializer=self._begin) if beside else None
        self._worker: int | None = None
        self._waiting: dict[Hashable, Future[None]] = {}

    def do(self, key: Hashable, work: Callable[[], None]) -> None:
        """Do `work` on the case that `key` stands for. Raises what it raises, or what earlier work did."""
        if self._pool is None:
            work()
            return
        self._collect()
        self._waiting[key] = self._pool.submit(self._done, work)

    def holds(self, key: Hashable) -> bool:
        """Whether work on that case was handed in and not waited for."""
        return key in self._waiting

    @property
    def is_left(self) -> bool:
        """Whether there is any that was not waited for."""
        return bool(self._waiting)

    @property
    def is_mine(self) -> bool:
        """Whether it is the thread of this work that asks."""
        return self._worker == threading.get_ident()

    def wait(self) -> None:
        """Until all is done. Raises what the first that failed has raised."""
        for key, future in tuple(self._waiting.items()):
            until_done(future)
            del self._waiting[key]
            future.result()

    def close(self) -> None:
        """Finish, and say nothing of what fails. Idempotent."""
        if self._pool is not None:
            self._pool.shutdown()

    def _begin(self) -> None:
        self._worker = threading.get_ident()

    def _done(self, work: Callable[[], None]) -> None:
        try:
            work()
        finally:
            self.on_done()

    def _collect(self) -> None:
        for key in [key for key, future in self._waiting.items() if future.done()]:
            self._waiting.pop(key).result()


def _nothing() -> None:
    pass
