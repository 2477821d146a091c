"""What a bit width costs in signal and saves in bytes is what the tables imply."""

from __future__ import annotations

import pytest

from perf_tests.harness.plugin.fixtures import Judged
from perf_tests.tables.metrics import Group


@pytest.mark.judges(Group.NUMERICS)
def test_numerics(judged: Judged) -> None:
    judged.check()
