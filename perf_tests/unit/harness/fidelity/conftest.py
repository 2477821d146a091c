"""Pools of processes that do not import pytest."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from types import ModuleType

import pytest


@pytest.fixture
def light_main() -> Iterator[None]:
    """Let processes of a pool find nothing to import in `__main__`: pytest takes longer than all else."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "__main__", ModuleType("__main__"))
        yield
