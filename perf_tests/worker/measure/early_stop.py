"""Ends a pipeline's call early, without an error, once what was wanted of it has been seen."""

from __future__ import annotations

import contextlib
import functools
import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

import torch
from torch import nn


class _Stopped(Exception):
    """Unwinds the pipeline's call; never leaves this module."""


def stop(*_: object) -> NoReturn:
    """End the block of the innermost `stoppable`; can serve as a hook, whose arguments it ignores."""
    raise _Stopped


@contextmanager
def stoppable() -> Iterator[None]:
    """A block that `stop` ends; what follows the block runs as usual."""
    with contextlib.suppress(_Stopped):
        yield


@contextmanager
def after_one_call(module: nn.Module) -> Iterator[None]:
    """End the block after the first call of `module` in it; hooks registered earlier still see that call."""
    handle = module.register_forward_hook(stop)
    try:
        with stoppable():
            yield
    finally:
        handle.remove()


def _nothing(*_: object) -> None:
    pass


@contextmanager
def after_steps(
    pipeline: Any,
    steps: int,
    *,
    at_timesteps: Callable[[], object] = _nothing,
    after_step: Callable[[torch.Tensor], object] = _nothing,
) -> Iterator[None]:
    """End the block after `steps` steps of the scheduler of `pipeline`, which is left as it was.

    `at_timesteps` is called when the timesteps have been set, `after_step` with the latents that each step
    returns.
    """
    scheduler = pipeline.scheduler
    before = scheduler.set_timesteps, scheduler.step
    taken = itertools.count(1)

    # `wraps`, because pipelines inspect the signatures of their scheduler's methods.
    @functools.wraps(scheduler.set_timesteps)
    def set_timesteps(*args: Any, **kwargs: Any) -> Any:
        result = before[0](*args, **kwargs)
        at_timesteps()
        return result

    @functools.wraps(scheduler.step)
    def step(*args: Any, **kwargs: Any) -> Any:
        result = before[1](*args, **kwargs)
        after_step(result[0])
        if next(taken) == steps:
            stop()
        return result

    scheduler.set_timesteps, scheduler.step = set_timesteps, step
    try:
        with stoppable():
            yield
    finally:
        scheduler.set_timesteps, scheduler.step = before
