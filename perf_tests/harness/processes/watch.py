"""Who is told of the phases of workers while they run, so that a long session shows signs of life."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

from perf_tests.protocol.messages import Phase


@dataclass(frozen=True, kw_only=True, slots=True)
class Step:
    """One phase of one worker."""

    case_id: str
    phase: Phase
    process: int = 0
    """Index of the process in the run of its case, from 0."""
    unit: str | None = None
    """UUID of the card, or the processor model; None before the worker has told."""


Watch = Callable[[Step], AbstractContextManager[None]]
"""Entered when a worker is asked for something, left with its answer or with the exception that came instead.
With several cards it is entered from several threads. It must not raise: nothing is lost because of what is
said."""


def unwatched(_step: Step, /) -> AbstractContextManager[None]:
    """Tell nobody."""
    return nullcontext()
