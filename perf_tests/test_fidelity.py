"""The picture is still the bf16 twin's, as closely as the scheme allows, each time the same."""

from __future__ import annotations

import pytest

from perf_tests.harness.plugin.fixtures import Judged
from perf_tests.tables.metrics import Group


@pytest.mark.judges(Group.FIDELITY)
def test_fidelity(judged: Judged) -> None:
    judged.check()
