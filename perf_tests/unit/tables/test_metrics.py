from __future__ import annotations

import pytest

from perf_tests.harness.records.fidelity import Fidelity
from perf_tests.harness.stats.observations import READERS
from perf_tests.harness.verdicts.judge import RULES
from perf_tests.protocol.reports import LayerError
from perf_tests.tables.metrics.rows import METRIC_BY_NAME, METRICS
from perf_tests.tables.metrics.spec import Better, Metric, Reader, Rule
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
        "step_busy_ms",
        "decode_ms",
        "speedup_vs_bf16",
        "train_step_ms",
        "train_busy_ms",
        "train_speedup_vs_bf16",
        "model_memory_mib",
        "peak_allocated_mib",
        "peak_reserved_mib",
    }


@pytest.mark.parametrize(
    "metric", [metric for metric in METRICS if Device.CUDA in metric.gates], ids=lambda metric: metric.name
)
def test_gate_of_a_gpu_lets_no_more_than_sixty_percent_pass(metric: Metric) -> None:
    # The host alone decides how long encoding takes; twice its work is seen by its calls and kernels.
    most_pct = 230.0 if metric.name == "encode_ms" else 60.0
    assert metric.gates[Device.CUDA].tolerance.relative_pct <= most_pct


@each_metric
def test_surprise_is_never_smaller_than_the_tolerance(metric: Metric) -> None:
    for gate in metric.gates.values():
        if gate.surprise is not None:
            assert gate.surprise.relative_pct >= gate.tolerance.relative_pct


EXPECTED = (Rule.EXPECTED_RANGE, Rule.EXPECTED_OF_LAYERS, Rule.CONFIRMED, Rule.TAIL)
FIELDS_OF = {
    Reader.CAPTURE: Fidelity,
    Reader.PAIRS: Fidelity,
    Reader.NOISE: Fidelity,
    Reader.LAYERS: LayerError,
}


@each_metric
def test_range_is_given_exactly_where_the_rule_needs_one(metric: Metric) -> None:
    assert (metric.expected is not None) is (metric.rule in EXPECTED)


@each_metric
def test_field_is_one_of_the_record_that_the_reader_reads(metric: Metric) -> None:
    record = FIELDS_OF.get(metric.reader)
    assert metric.field in (record.__struct_fields__ if record else ("",))


@each_metric
def test_ratio_or_growth_names_the_metric_it_is_formed_from(metric: Metric) -> None:
    is_of_another = metric.reader in (Reader.TWIN_RATIO, Reader.REFERENCE_RATIO, Reader.GROWTH)
    assert (metric.of in METRIC_BY_NAME) is is_of_another


@each_metric
def test_worst_of_several_layers_is_defined_exactly_for_layers(metric: Metric) -> None:
    assert (metric.badness is not None) is (metric.reader is Reader.LAYERS)


@each_metric
def test_rule_that_needs_a_direction_has_one(metric: Metric) -> None:
    if metric.rule in (Rule.NOISY, Rule.PER_PAIR):
        assert metric.better is not Better.EXACT


@pytest.mark.parametrize("reader", Reader, ids=str)
def test_every_reader_is_in_the_table_of_readers(reader: Reader) -> None:
    assert reader in READERS


@pytest.mark.parametrize("rule", Rule, ids=str)
def test_every_rule_is_in_the_table_of_rules(rule: Rule) -> None:
    assert rule in RULES
