"""Exactly the same modules are quantized as before, and they take as many bytes."""

from __future__ import annotations

import pytest

from perf_tests.harness.plugin.fixtures import Judged
from perf_tests.tables.metrics.spec import Group


@pytest.mark.judges(Group.QUANTIZATION)
def test_quantization(judged: Judged) -> None:
    judged.check()
