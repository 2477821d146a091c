"""Processes that compare pictures, several pairs of a run at a time, while a card waits for the answer."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from typing import Any, TypeVar

from perf_tests.protocol.errors import PerfError

T = TypeVar("T")

PR_SET_PDEATHSIG = 1  # linux/prctl.h
PROCESSES = 4
"""As many as a run has pairs of prompt and seed. Threads took longer than one: what compares small arrays
hardly releases the interpreter lock."""


class PoolEndedError(PerfError):
    """A process that compares pictures has ended, so that it is not known what they are like."""


class PicturePool:
    """A pool for each thread that asks, on the processor cores of that thread."""

    def __init__(self, processes: int = PROCESSES) -> None:
        self._processes = processes
        self._lock = threading.Lock()
        self._executors: dict[int, ProcessPoolExecutor] = {}

    def map(self, function: Callable[..., T], *arguments: Iterable[Any]) -> list[T]:
        """`function` of each of `arguments`, in their order, as the built-in `map` has it.

        Raises what it raises, and PoolEndedError where a process has ended; the next call has new ones.
        """
        thread = threading.get_ident()
        executor = self._executor(thread)
        try:
            return list(_started(executor, function, *arguments))
        except BrokenProcessPool as error:
            with self._lock:
                self._executors.pop(thread).shutdown()
            raise PoolEndedError(
                "a process that compares pictures was ended, perhaps by the kernel's OOM killer: measure the "
                "case again with more memory free"
            ) from error

    def close(self) -> None:
        """End the processes. Idempotent."""
        with self._lock:
            for executor in self._executors.values():
                executor.shutdown(cancel_futures=True)
            self._executors.clear()

    def _executor(self, thread: int) -> ProcessPoolExecutor:
        with self._lock:
            if thread not in self._executors:
                self._executors[thread] = ProcessPoolExecutor(
                    self._processes,
                    # Not forked: this process has threads, whose locks a child would find taken.
                    mp_context=multiprocessing.get_context("spawn"),
                    initializer=_begin,
                    initargs=(os.getpid(),),
                )
            return self._executors[thread]


def _started(
    executor: ProcessPoolExecutor, function: Callable[..., T], *arguments: Iterable[Any]
) -> Iterator[T]:
    """The answers, once they are there; its processes are started if need be."""
    try:
        with _held(signal.SIGINT):  # by the processes that are started now, too, until they have begun
            return executor.map(function, *arguments)
    except BaseException:
        # One that the executor has not noted takes the order to end from another, which is then waited for.
        for process in tuple((executor._processes or {}).values()):
            process.kill()
        raise


@contextmanager
def _held(number: signal.Signals) -> Iterator[None]:
    """Have this signal wait."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {number})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _begin(parent: int) -> None:
    """What ends a whole group is meant for the session, which ends this process; the kernel does if the
    session is killed. A process that it ended would be told as a failure of the case that it compares."""
    os.setsid()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # which also forgets one that waits
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    # SIGTERM is left alone: with it the executor ends what is left of a broken pool, and waits for that.
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it was killed before that
        os._exit(1)
