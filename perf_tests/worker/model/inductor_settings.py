"""Inductor's process-wide settings: set as a recipe says, and read back; and the assembler that it uses."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch

from perf_tests.protocol.errors import WorkerError
from perf_tests.protocol.messages import Failure, FailureKind, Phase
from perf_tests.tables.lazy import Value


def apply(**settings: Value) -> None:
    """Set each of `settings` in `torch._inductor.config`; a nested one is called `triton.cudagraphs`.

    Raises WorkerError(load) where this torch has no setting of that name.
    """
    from torch._inductor import config

    for name, value in settings.items():
        if not hasattr(config, name):
            message = (
                f"torch {torch.__version__} has no inductor setting {name}, which the recipe sets to "
                f"{value!r}: take it out of the row, or find what replaced it"
            )
            raise WorkerError(Failure(kind=FailureKind.LOAD, phase=Phase.COMPILE, message=message))
        setattr(config, name, value)


def use_ptxas_of_pool() -> None:
    """Assemble Triton's kernels in this process as inductor's pool of processes does.

    torch 2.11 for CUDA 13 brings a `ptxas` of its own, which only the pool takes; in this process
    Triton would take its own. Kernels of another `ptxas` are other kernels to Triton's cache: what
    is to be timed would be compiled once more, one by one. The pool of torch 2.13 takes Triton's as well
    (https://github.com/pytorch/pytorch/pull/174716). A user's TRITON_PTXAS_PATH stays as it is.
    """
    from torch._inductor.runtime import compile_tasks

    take: Callable[[], None] | None = getattr(compile_tasks, "_set_triton_ptxas_path", None)
    if take is not None:  # the pool of a torch without it takes Triton's
        take()


def read(names: Iterable[str]) -> dict[str, str]:
    """Name -> value as text, of those that this torch has."""
    from torch._inductor import config

    return {name: str(getattr(config, name)) for name in names if hasattr(config, name)}
