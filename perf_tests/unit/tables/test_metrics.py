from __future__ import annotations

import pytest

from perf_tests.tables.metrics.rows import METRICS
from perf_tests.tables.metrics.spec import Metric
from perf_tests.tables.platforms import Device

each_metric = pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.name)


def test_metric_names_are_unique() -> None:
    names = [metric.name for metric in METRICS]
    assert sorted(set(names)) == sorted(names)


@pytest.mark.parametrize("metric", [m for m in METRICS if m.is_noisy], ids=lambda metric: metric.name)
def test_tolerance_of_a_noisy_metric_is_a_ratio(metric: Metric) -> None:
    for gate in metric.gates.values():
        assert (gate.tolerance.absolute, (gate.surprise or gate.tolerance).absolute) == (0.0, 0.0)


def test_drift_is_limited_only_for_positive_numbers_that_better_or_worsen() -> None:
    limited = {metric.name for metric in METRICS if metric.drift_limit_pct is not None}
    assert limited == {
        "denoise_step_ms",
        "decode_ms",
        "speedup_vs_bf16",
        "model_memory_mib",
        "peak_allocated_mib",
        "peak_reserved_mib",
    }


@pytest.mark.parametrize(
    "metric", [metric for metric in METRICS if Device.CUDA in metric.gates], ids=lambda metric: metric.name
)
def test_gate_of_a_gpu_lets_no_more_than_sixty_percent_pass(metric: Metric) -> None:
    assert metric.gates[Device.CUDA].tolerance.relative_pct <= 60.0


@each_metric
def test_surprise_is_never_smaller_than_the_tolerance(metric: Metric) -> None:
    for gate in metric.gates.values():
        if gate.surprise is not None:
            assert gate.surprise.relative_pct >= gate.tolerance.relative_pct
