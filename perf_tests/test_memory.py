"""The memory of the model and the peak of generating are what they were before."""

from __future__ import annotations

import pytest

from perf_tests.harness.plugin.fixtures import Judged
from perf_tests.tables.metrics.spec import Group


@pytest.mark.judges(Group.MEMORY)
def test_memory(judged: Judged) -> None:
    judged.check()
