"""Inductor's process-wide settings: set as a recipe says, and read back."""

from __future__ import annotations

from collections.abc import Iterable

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


def read(names: Iterable[str]) -> dict[str, str]:
    """Name -> value as text, of those that this torch has."""
    from torch._inductor import config

    return {name: str(getattr(config, name)) for name in names if hasattr(config, name)}
