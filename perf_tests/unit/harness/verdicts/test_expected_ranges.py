from __future__ import annotations

import dataclasses
import math

import msgspec
import pytest

from perf_tests.harness.records.builds import BuildReport
from perf_tests.harness.runs.record import (
    Status,
    Verdict,
)
from perf_tests.harness.verdicts.judge import judge_metric
from perf_tests.protocol.reports import LayerError
from perf_tests.tables.platforms import CPU
from perf_tests.tables.schemes.rows import INT8WO
from perf_tests.tables.schemes.spec import Range
from perf_tests.unit.builders import (
    MINI_BF16,
    MINI_INT8WO,
    make_build,
    make_case,
    make_layers,
    make_process,
    make_run,
    make_significance,
    metric_named,
)
from perf_tests.unit.harness.verdicts.judging import judged

INT8WO_RANGE = Range(low=33.0, high=41.0, source="one GEMM gives 41.4 dB")
EXPECTING = make_case(scheme=dataclasses.replace(INT8WO, output_sqnr_db=INT8WO_RANGE))


def _judge_sqnr(*values_db: float) -> Verdict:
    run = make_run(EXPECTING, processes=tuple(make_process(build=_reporting(each)) for each in values_db))
    return judged("output_sqnr_db", [], None, case=EXPECTING, platform=CPU, run=run, accepted=None)


def _reporting(sqnr_db: float) -> BuildReport:
    return make_build({"output_sqnr_db": sqnr_db})


@pytest.mark.parametrize(
    ("measured_db", "status", "limit_db"),
    [
        pytest.param(32.9, Status.REGRESSED, 33.0, id="too-low"),
        pytest.param(33.0, Status.PASS, 33.0, id="at-the-lower-bound"),
        pytest.param(39.0, Status.PASS, 41.0, id="within"),
        pytest.param(41.0, Status.PASS, 41.0, id="at-the-upper-bound"),
        pytest.param(144.5, Status.REGRESSED, 41.0, id="not-quantized-at-all"),
    ],
)
def test_metric_with_an_expected_range_is_judged_without_a_baseline(
    measured_db: float, status: Status, limit_db: float
) -> None:
    verdict = _judge_sqnr(measured_db)
    assert (verdict.status, verdict.measured, verdict.limit) == (status, measured_db, limit_db)
    assert (verdict.baseline, verdict.change_pct) == (None, None)


def test_reason_of_an_expected_range_names_value_bounds_and_source() -> None:
    assert _judge_sqnr(28.5).reason == "28.5 dB is outside 33 to 41 dB: one GEMM gives 41.4 dB"
    assert _judge_sqnr(38.0, 37.0, 39.0).reason == "38 dB is within 33 to 41 dB: one GEMM gives 41.4 dB"


def test_process_outside_its_range_is_enough() -> None:
    verdict = _judge_sqnr(38.0, 12.0, 38.0)
    assert (verdict.status, verdict.measured) == (Status.REGRESSED, 12.0)


def test_expected_metric_that_was_not_reported_is_inconclusive() -> None:
    process = make_process(build=msgspec.structs.replace(make_build(), values={"weight_bytes": 1.0}))
    run = make_run(EXPECTING, processes=(process,))
    verdict = judged("output_sqnr_db", [], None, case=EXPECTING, platform=CPU, run=run)
    assert verdict.status is Status.INCONCLUSIVE


@pytest.mark.parametrize(
    ("ratio", "status"),
    [
        pytest.param(0.97, Status.REGRESSED, id="too-few-bytes"),
        pytest.param(1.0, Status.PASS, id="as-implied"),
        pytest.param(1.03, Status.REGRESSED, id="too-many-bytes"),
    ],
)
def test_weight_bytes_are_within_two_percent_of_what_the_bit_width_implies(
    ratio: float, status: Status
) -> None:
    verdict = judged("weight_bytes_vs_implied", [ratio], None)
    assert verdict.status is status
    assert verdict.reason.endswith("0.98 to 1.02 x: 8 bits an element and 4 bytes a scale imply 1")


@pytest.mark.parametrize(
    ("measured_db", "status"),
    [
        pytest.param(38.5, Status.PASS, id="rounding-of-bf16"),
        pytest.param(26.8, Status.REGRESSED, id="attention-scale-off"),
        pytest.param(1.5, Status.REGRESSED, id="text-tokens-permuted"),
    ],
)
def test_bf16_pipeline_far_from_its_anchor_is_red_without_any_baseline(
    measured_db: float, status: Status
) -> None:
    run = make_run(MINI_BF16, processes=(make_process(build=make_build({"anchor_sqnr_db": measured_db})),))
    verdict = judge_metric(
        metric_named("anchor_sqnr_db"),
        case=MINI_BF16,
        platform=CPU,
        run=run,
        reference=None,
        accepted=None,
        unit="Example CPU",
        significance=make_significance(),
    )
    assert (verdict.status, verdict.limit) == (status, 37.0)


def _judge_scales(layers: dict[str, LayerError]) -> Verdict:
    return judge_metric(
        metric_named("layer_scale_error"),
        case=MINI_INT8WO,
        platform=CPU,
        run=make_run(MINI_INT8WO, processes=(make_process(build=make_build(layers=layers)),)),
        reference=None,
        accepted=None,
        unit="Example CPU",
        significance=make_significance(),
    )


def test_layer_whose_scales_are_off_is_red_without_any_baseline_and_named() -> None:
    verdict = _judge_scales(make_layers(scale_error=0.048))
    assert (verdict.status, verdict.measured, verdict.limit) == (Status.REGRESSED, 0.048, 0.02)
    assert verdict.reason.startswith("transformer.transformer_blocks.0.attn.to_q 0.048; ")
    assert "0.048 is outside 0 to 0.02: two rows whose scales are 5 % apart" in verdict.reason


def test_limit_of_scales_that_are_alike_is_the_upper_one() -> None:
    verdict = _judge_scales(make_layers())
    assert (verdict.status, verdict.measured, verdict.limit) == (Status.PASS, 0.001, 0.02)


def test_scales_that_are_not_numbers_or_were_not_checked_do_not_pass() -> None:
    assert _judge_scales(make_layers(scale_error=math.nan)).status is Status.INCONCLUSIVE
    unseen = {name: msgspec.structs.replace(error, scale_error=None) for name, error in make_layers().items()}
    assert _judge_scales(unseen).status is Status.INCONCLUSIVE
