"""Each case generates as fast as before, and with the same speedup over its twin."""

from __future__ import annotations

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from perf_tests.harness.plugin.fixtures import Judged
from perf_tests.harness.report.pytest_benchmark import CLOCK
from perf_tests.tables.metrics.spec import Group


@pytest.mark.judges(Group.LATENCY)
@pytest.mark.benchmark(timer=CLOCK)
def test_latency(judged: Judged, benchmark: BenchmarkFixture) -> None:
    judged.replay(benchmark)
    judged.check()
