"""Waits for other threads so that no signal is missed.

A signal that strikes after a thread has last looked, and before it sleeps, does not wake it. The main thread,
which alone handles signals, would go on waiting for what the signal was to end.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection
from concurrent.futures import FIRST_EXCEPTION, CancelledError, Future, wait
from contextlib import suppress
from typing import Any, TypeVar

T = TypeVar("T")

LOOK_S = 0.5
"""How late a signal is seen that way."""


def result_of(future: Future[T]) -> T:
    """The result, once it is there. Raises what the future raises."""
    until_done(future)
    return future.result()


def until_done(future: Future[Any]) -> None:
    """Wait until it has a result, has failed or is cancelled."""
    while not future.done():
        with suppress(TimeoutError, CancelledError):
            future.exception(LOOK_S)


def all_or_failed(futures: Collection[Future[Any]]) -> set[Future[Any]]:
    """Those that are done, once all of them are, or one has failed. None of them may be cancelled."""
    while True:
        done, left = wait(futures, LOOK_S, FIRST_EXCEPTION)
        if not left or any(each.exception() for each in done):
            return done


def until(changed: threading.Condition, holds: Callable[[], object]) -> None:
    """Wait until something holds; `changed`, whose lock is held, is notified of what may have made it so."""
    while not changed.wait_for(holds, LOOK_S):
        pass
