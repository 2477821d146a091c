"""Exactly the modules that were quantized still are, in as many bytes."""

from __future__ import annotations

import pytest

from perf_tests.harness.plugin.fixtures import Judged
from perf_tests.tables.metrics import Group


@pytest.mark.judges(Group.QUANTIZATION)
def test_quantization(judged: Judged) -> None:
    judged.check()
