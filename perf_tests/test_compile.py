"""Each case compiles to as many graphs, breaks and recompiles as before, in the time it took before."""

from __future__ import annotations

import pytest

from perf_tests.harness.plugin.fixtures import Judged
from perf_tests.tables.metrics.spec import Group


@pytest.mark.judges(Group.COMPILE)
def test_compile(judged: Judged) -> None:
    judged.check()
