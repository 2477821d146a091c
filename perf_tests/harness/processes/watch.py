"""Who is told of the phases of workers while they run, so that a long session shows signs of life."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace

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
    stack: str = ""
    """What its stack is called, where the case is measured in several."""


Watch = Callable[[Step], AbstractContextManager[None]]
"""Entered when a worker is asked for something, left with its answer or with the exception that came instead.
With several cards it is entered from several threads. It must not raise: nothing is lost because of what is
said."""


def in_stack(watch: Watch, stack: str, counted: int) -> Watch:
    """`watch`, told of steps in the stack of that name.

    The first `counted` processes keep their numbers; a later one, which is measured alone, is told without.
    """

    def tell(step: Step) -> AbstractContextManager[None]:
        process = step.process if step.process < counted else 0
        return watch(replace(step, stack=stack, process=process))

    return tell


def unwatched(_step: Step, /) -> AbstractContextManager[None]:
    """Tell nobody."""
    return nullcontext()
