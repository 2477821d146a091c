"""TABLE: what is measured, in which units, in which direction, and how much change is too much.

One module for each test: `test_latency.py` judges the metrics of `rows.latency`.
"""

from __future__ import annotations

from perf_tests.tables.metrics.rows import compile, fidelity, latency, memory, numerics, quantization
from perf_tests.tables.metrics.spec import Reader

METRICS = (
    *latency.METRICS,
    *memory.METRICS,
    *compile.METRICS,
    *quantization.METRICS,
    *fidelity.METRICS,
    *numerics.METRICS,
)

METRIC_BY_NAME = {metric.name: metric for metric in METRICS}
UNITS = {metric.name: metric.units for metric in METRICS}
"""Metric name -> what is printed after its values."""
NOISY = frozenset(metric.name for metric in METRICS if metric.is_noisy)
ASKING = frozenset(metric.name for metric in METRICS if metric.asks_for_processes)
"""Those whose verdicts may take more processes than were measured."""
PAIRED = frozenset(metric.name for metric in METRICS if metric.reader is Reader.PAIRS)
"""Those with a value for each pair of prompt and seed, not for each process."""
