"""Each picture is reproducible, and as close to that of the bf16 twin as the scheme allows."""

from __future__ import annotations

import pytest

from perf_tests.harness.plugin.fixtures import Judged
from perf_tests.tables.metrics.spec import Group


@pytest.mark.judges(Group.FIDELITY)
def test_fidelity(judged: Judged) -> None:
    judged.check()
