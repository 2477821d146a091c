"""A bit width costs as much signal and saves as many bytes as the tables imply."""

from __future__ import annotations

import pytest

from perf_tests.harness.plugin.fixtures import Judged
from perf_tests.tables.metrics.spec import Group


@pytest.mark.judges(Group.NUMERICS)
def test_numerics(judged: Judged) -> None:
    judged.check()
