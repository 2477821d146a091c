from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import msgspec
import pytest

from perf_tests.harness.runs.record import (
    STATUS_OF_FAILURE,
    BuildReport,
    Fidelity,
    Process,
    Run,
    Status,
    Verdict,
)
from perf_tests.harness.runs.validity import SLOWDOWNS, invalidity
from perf_tests.harness.verdicts.case_status import SEVERITY, overall
from perf_tests.harness.verdicts.gates import gated_metrics, shown_metrics
from perf_tests.harness.verdicts.judge import judge_metric
from perf_tests.protocol.messages import FailureKind
from perf_tests.protocol.reports import LayerError
from perf_tests.tables.cases import Case
from perf_tests.tables.metrics.rows import METRICS
from perf_tests.tables.metrics.spec import Group, Metric, Trait
from perf_tests.tables.pipelines.flux import FLUX1_DEV_SLIM
from perf_tests.tables.pipelines.rows import MINIATURES, PIPELINES
from perf_tests.tables.platforms import CPU, H100, Platform
from perf_tests.tables.recipes import CompileMode
from perf_tests.tables.schemes.rows import AUTOQUANT, FP16, INT8DQ_SPARSE24, INT8WO
from perf_tests.tables.schemes.spec import FidelityFloor, Range
from perf_tests.unit.builders import (
    FLUX_FP8,
    GPU,
    H100_UUID,
    MINI_BF16,
    MINI_INT8WO,
    make_accepted,
    make_build,
    make_case,
    make_entry,
    make_environment,
    make_failure,
    make_layers,
    make_process,
    make_reference,
    make_run,
    make_sample,
    make_significance,
    make_telemetry,
    make_verdict,
    metric_named,
)

MINI_BF16_COMPILED = make_case(compile=CompileMode.REGIONAL)
OTHER_CARD = "GPU-00000000-0000-0000-0000-000000000002"


def _run(metric: str, values: Sequence[float], platform: Platform = H100) -> Run:
    """A run of FLUX_FP8 with one process per value, reported wherever the metric is read from."""
    return make_run(
        FLUX_FP8,
        platform,
        processes=tuple(
            make_process(
                samples=(make_sample({metric: [value]}),),
                build=make_build({metric: value}),
                fidelity=Fidelity(psnr_db=value, ssim=value, identical=False),
            )
            for value in values
        ),
    )


def _judge(
    metric: str,
    measured: Sequence[float],
    baseline: Sequence[float] | None,
    *,
    unit: str = H100_UUID,
    entry: dict[str, Any] | None = None,
    provenance: dict[str, Any] | None = None,
    **changes: Any,
) -> Verdict:
    accepted = baseline and make_entry({metric: baseline}, case=FLUX_FP8, **(entry or {}))
    arguments: dict[str, Any] = {
        "case": FLUX_FP8,
        "platform": H100,
        "run": _run(metric, measured),
        "reference": make_reference(FLUX_FP8, H100),
        "accepted": accepted and make_accepted(accepted, unit=H100_UUID, **(provenance or {})),
        "unit": unit,
        "significance": make_significance(),
    }
    return judge_metric(metric_named(metric), **{**arguments, **changes})


# Which metrics


def test_every_metric_is_either_gated_or_shown_for_a_quantized_compiled_case() -> None:
    gated, shown = gated_metrics(FLUX_FP8, H100), shown_metrics(FLUX_FP8, H100)
    of_others = {
        "modules_off_plan",
        "anchor_sqnr_db",
        *(metric.name for metric in METRICS if {Trait.VIDEO, Trait.REFERENCE} & {*metric.only_for}),
    }
    named = sorted(metric.name for metric in METRICS if metric.name not in of_others)
    assert sorted(metric.name for metric in (*gated, *shown)) == named


def test_what_follows_from_a_plan_is_shown_and_judged_against_the_plan() -> None:
    case = make_case(scheme=AUTOQUANT)
    gated = {metric.name for metric in gated_metrics(case, CPU)}
    shown = {metric.name for metric in shown_metrics(case, CPU)}
    assert {"quantized_modules", "weight_bytes"} <= shown
    assert "kernels_per_step" in {metric.name for metric in shown_metrics(case, H100)}
    assert {"modules_off_plan", "weight_bytes_vs_implied", "graph_breaks"} <= gated
    assert not gated & shown


def test_a_platform_gates_the_metrics_that_name_its_device() -> None:
    names = {metric.name for metric in gated_metrics(MINI_INT8WO, CPU)}
    assert "time_ratio_vs_fp32" in names
    assert "denoise_step_ms" not in names
    assert "kernels_per_step" not in names
    assert "denoise_step_ms" in {metric.name for metric in shown_metrics(MINI_INT8WO, CPU)}


def test_eager_cases_have_no_compile_times_but_have_compile_counters() -> None:
    case = make_case(FLUX_FP8.build.pipeline, scheme=INT8WO)
    names = {metric.name for metric in gated_metrics(case, H100, Group.COMPILE)}
    assert names == {"compiled_graphs", "graph_breaks", "recompiles", "kernels_per_step"}
    assert "compile_warm_s" not in {metric.name for metric in shown_metrics(case, H100)}


def test_a_case_that_is_its_own_reference_is_not_compared_with_itself() -> None:
    names = {metric.name for metric in gated_metrics(MINI_BF16, CPU, Group.FIDELITY)}
    assert names == {"distinct_outputs"}


def test_a_fused_bf16_case_is_compared_with_the_unfused_reference() -> None:
    names = {metric.name for metric in gated_metrics(make_case(fuse_qkv=True), CPU, Group.FIDELITY)}
    assert names == {"psnr_db", "ssim", "step_sqnr_db", "latents_sqnr_db", "distinct_outputs"}


@pytest.mark.parametrize("platform", [CPU, H100], ids=lambda platform: platform.id)
def test_a_compiled_reference_is_held_against_what_it_was_before(platform: Platform) -> None:
    names = {metric.name for metric in gated_metrics(MINI_BF16_COMPILED, platform, Group.FIDELITY)}
    noise = {"noise_step_sqnr_db", "noise_latents_sqnr_db", "noise_psnr_db", "noise_ssim"}
    assert names == {*noise, "distinct_outputs"}


@pytest.mark.parametrize(
    ("measured_db", "status"), [(32.9, Status.PASS), (32.7, Status.REGRESSED), (39.0, Status.IMPROVED)]
)
def test_compiled_bf16_that_is_farther_from_eager_than_rounding_is_red(
    measured_db: float, status: Status
) -> None:
    noise = Fidelity(psnr_db=47.9, ssim=0.999, identical=False, step_sqnrs_db=(40.0, measured_db))
    run = make_run(MINI_BF16_COMPILED, H100, processes=(make_process(noise=noise),))
    verdict = judge_metric(
        metric_named("noise_step_sqnr_db"),
        case=MINI_BF16_COMPILED,
        platform=H100,
        run=run,
        reference=None,
        accepted=make_accepted(
            make_entry({"noise_step_sqnr_db": [35.8]}, case=MINI_BF16_COMPILED), unit=H100_UUID
        ),
        unit=H100_UUID,
        significance=make_significance(),
    )
    assert (verdict.status, verdict.measured) == (status, measured_db)


def test_a_group_holds_the_metrics_of_one_test_file() -> None:
    metrics = gated_metrics(MINI_INT8WO, CPU, Group.QUANTIZATION)
    assert [metric.name for metric in metrics] == ["quantized_modules", "weight_bytes"]


# Within limits


@pytest.mark.parametrize(
    ("measured", "status"),
    [
        pytest.param(99.4, Status.SURPRISE, id="beyond-surprise"),
        pytest.param(99.5, Status.PASS, id="better-by-the-tolerance"),
        pytest.param(100.0, Status.PASS, id="same"),
        pytest.param(100.5, Status.PASS, id="at-limit"),
        pytest.param(100.6, Status.REGRESSED, id="beyond-limit"),
    ],
)
def test_what_has_no_noise_is_held_against_its_tolerance(measured: float, status: Status) -> None:
    verdict = _judge("model_memory_mib", [measured] * 3, [100.0] * 3)
    assert (verdict.status, verdict.limit) == (status, 100.5)


@pytest.mark.parametrize(
    ("measured", "status"),
    [
        pytest.param(94.9, Status.SURPRISE, id="beyond-surprise"),
        pytest.param(95.0, Status.IMPROVED, id="at-surprise"),
        pytest.param(98.9, Status.IMPROVED, id="better-than-tolerance"),
    ],
)
def test_an_improvement_within_the_surprise_bound_is_one(measured: float, status: Status) -> None:
    verdict = _judge("peak_allocated_mib", [measured * 100] * 3, [10000.0] * 3)
    assert verdict.status is status


def test_the_larger_of_relative_and_absolute_tolerance_applies() -> None:
    # peak_allocated_mib: 1 % or 64 MiB.
    assert _judge("peak_allocated_mib", [1000.0], [1000.0]).limit == 1064.0
    assert _judge("peak_allocated_mib", [10000.0], [10000.0]).limit == 10100.0


def test_medians_over_processes_are_compared() -> None:
    verdict = _judge("model_memory_mib", [100.0, 250.0, 100.1], [100.0, 99.0, 180.0])
    assert (verdict.measured, verdict.baseline, verdict.status) == (100.1, 100.0, Status.PASS)


def test_a_metric_without_noise_has_no_interval() -> None:
    assert _judge("model_memory_mib", [100.1] * 3, [100.0] * 3).ci_pct is None


def test_the_reason_of_a_regression_names_change_limit_and_rule() -> None:
    reason = _judge("peak_allocated_mib", [1200.0], [1000.0]).reason
    assert reason == "+20.00 % against the baseline, beyond the limit 1064 MiB (baseline + 1 % or 64 MiB)"


def test_the_reason_of_a_surprise_asks_for_it_to_be_accepted_with_a_reason() -> None:
    reason = _judge("model_memory_mib", [50.0] * 3, [100.0] * 3).reason
    assert reason.startswith("unexplained improvement of -50.00 %")
    assert reason.endswith("accept it with a reason")


def test_no_improvement_of_a_metric_without_surprise_bound_fails() -> None:
    assert _judge("compile_cold_s", [10.0] * 3, [100.0] * 3).status is Status.IMPROVED


def test_what_the_absolute_tolerance_covers_is_no_surprise() -> None:
    # peak_allocated_mib: 1 % or 64 MiB, and a surprise beyond 5 %, which is 5 MiB here.
    assert _judge("peak_allocated_mib", [40.0] * 3, [100.0] * 3).status is Status.PASS


# By a test: noise 0.36 % with 60 degrees of freedom, 60 metrics, up to 5 processes


@pytest.mark.parametrize(
    ("measured", "status", "wants_more"),
    [
        pytest.param([100.0], Status.PASS, False, id="same"),
        pytest.param([103.0], Status.INCONCLUSIVE, True, id="one-process-decides-nothing"),
        pytest.param([103.0, 102.9], Status.REGRESSED, False, id="two-agree"),
        pytest.param([97.0, 97.1], Status.IMPROVED, False, id="faster"),
        pytest.param([80.0, 80.1], Status.SURPRISE, False, id="far-faster"),
        pytest.param([103.0, 100.0], Status.INCONCLUSIVE, False, id="they-disagree"),
        pytest.param([101.5] * 5, Status.REGRESSED, False, id="five"),
    ],
)
def test_a_noisy_metric_is_judged_by_as_many_processes_as_it_takes(
    measured: list[float], status: Status, wants_more: bool
) -> None:
    verdict = _judge("denoise_step_ms", measured, [100.0] * 5)
    assert (verdict.status, verdict.wants_more) == (status, wants_more)


def test_one_process_decides_where_no_other_may_be_asked_for() -> None:
    alone = make_significance(max_processes=1)
    verdict = _judge("denoise_step_ms", [103.0], [100.0] * 5, significance=alone)
    assert (verdict.status, verdict.wants_more) == (Status.REGRESSED, False)


def test_a_run_that_holds_more_processes_than_may_be_asked_for_is_judged_by_all() -> None:
    alone = make_significance(max_processes=1)
    verdict = _judge("denoise_step_ms", [101.5] * 7, [100.0] * 5, significance=alone)
    assert verdict.status is Status.REGRESSED


@pytest.mark.parametrize(
    ("step_ms", "status"),
    [
        pytest.param(55.0, Status.REGRESSED, id="less-speed-up"),
        pytest.param(50.0, Status.PASS, id="same"),
        pytest.param(47.0, Status.IMPROVED, id="more-speed-up"),
        pytest.param(40.0, Status.SURPRISE, id="far-more-speed-up"),
    ],
)
def test_higher_is_better_for_a_speed_up(step_ms: float, status: Status) -> None:
    verdict = _judge_speed_up(step_ms, reference_processes=5)
    assert verdict.status is status
    assert verdict.limit is not None
    assert verdict.limit < 2.0


def _judge_speed_up(step_ms: float, *, now: int = 1, **entry: Any) -> Verdict:
    return _judge(
        "speedup_vs_bf16",
        [],
        [2.0] * 5,
        entry=entry,
        run=_run("denoise_step_ms", [step_ms] * 3),
        reference=make_reference(FLUX_FP8, H100, processes=_run("denoise_step_ms", [100.0] * now).processes),
    )


def test_the_error_of_both_references_widens_the_limit_of_a_speed_up() -> None:
    limits = [
        _judge_speed_up(50.0, now=now, reference_processes=then).limit
        for now, then in ((5, 5), (1, 5), (1, 1))
    ]
    # 2 x exp(-c x 0.36 % x sqrt(1/3 + 1/5 + 1/now + 1/then)), and at least the tolerance: 2 / 1.015
    assert limits == pytest.approx([1.97044, 1.96654, 1.95993], abs=1e-5)


def test_a_reference_whose_processes_nobody_counted_is_taken_for_one() -> None:
    assert _judge_speed_up(50.0).limit == _judge_speed_up(50.0, reference_processes=1).limit


def test_the_numbers_of_a_test_are_means_with_both_intervals() -> None:
    verdict = _judge("denoise_step_ms", [102.0, 102.0], [100.0, 100.0, 100.0])
    assert (verdict.measured, verdict.baseline) == (102.0, 100.0)
    assert verdict.change_pct == pytest.approx(2.0)
    assert verdict.ci_pct is not None
    assert verdict.family_ci_pct is not None
    # 1.02 x exp(-+2.000 x 0.36 % x sqrt(1/2 + 1/3)), where 2.000 is Student's t of 60 degrees
    assert verdict.ci_pct == pytest.approx((1.332, 2.673), abs=0.002)
    assert 0 < verdict.family_ci_pct[0] < verdict.ci_pct[0] < verdict.ci_pct[1] < verdict.family_ci_pct[1]


def test_the_reason_names_the_limit_what_sets_it_and_what_is_seen() -> None:
    reason = _judge("denoise_step_ms", [103.0, 103.0], [100.0] * 5).reason
    assert reason == (
        "+3.00 % against the baseline, beyond the limit 101.109 ms (+1.11 %: the noise of 2 processes "
        "against 5); changes of 1.3 % are seen"
    )


def test_where_the_tolerance_is_wider_than_the_noise_it_is_the_limit() -> None:
    verdict = _judge("decode_ms", [101.0] * 5, [100.0] * 5)
    assert verdict.limit == pytest.approx(102.0)
    assert "within the limit 102 ms (+2.00 %: the tolerance)" in verdict.reason


def test_a_run_that_ended_before_it_was_decided_says_how_far_it_came() -> None:
    assert _judge("denoise_step_ms", [103.0], [100.0] * 5).reason == (
        "+3.00 % against the baseline is undecided after 1 process, up to 5 may be asked for, and the "
        "run ended before that: measure it again"
    )


def test_processes_that_lie_too_far_apart_are_named_with_the_noise_of_the_platform() -> None:
    reason = _judge("denoise_step_ms", [103.0, 100.0], [100.0] * 5).reason
    assert reason.startswith("its 2 processes scatter 5.8 times more than this platform's noise of 0.36 %")
    assert "measure it again on a quiet machine" in reason


# Drift


FLUX_SPARSE = FLUX_FP8.with_recipe(dataclasses.replace(FLUX_FP8.build.recipe, scheme=INT8DQ_SPARSE24))


@pytest.mark.parametrize(
    ("measured", "status"),
    [(390.0, Status.PASS), (1599.0, Status.PASS), (1601.0, Status.REGRESSED)],
)
def test_the_step_of_an_unsteady_scheme_is_held_against_twice_its_time(
    measured: float, status: Status
) -> None:
    run = make_run(FLUX_SPARSE, H100, processes=_steps(measured))
    entry = {"digest": FLUX_SPARSE.digest}
    verdict = _judge("denoise_step_ms", [], [800.0], entry=entry, case=FLUX_SPARSE, run=run)
    assert verdict.status is status
    assert (verdict.limit, verdict.ci_pct, verdict.wants_more) == (1600.0, None, False)
    assert "host-bound, each product sets up cuSPARSELt anew" in verdict.reason


def test_the_speed_up_of_an_unsteady_scheme_is_held_against_half_of_it() -> None:
    (gate,) = _gate_of("speedup_vs_bf16", FLUX_SPARSE).gates.values()
    assert gate.tolerance.relative_pct == 50.0


def test_only_the_step_of_an_unsteady_scheme_is_without_a_test() -> None:
    noisy = [metric.name for metric in gated_metrics(FLUX_SPARSE, H100) if metric.is_noisy]
    assert noisy == ["decode_ms"]
    assert [metric.name for metric in gated_metrics(FLUX_FP8, H100) if metric.is_noisy] == [
        "denoise_step_ms",
        "decode_ms",
        "speedup_vs_bf16",
    ]


def _steps(value_ms: float) -> tuple[Process, ...]:
    return (make_process(samples=(make_sample({"denoise_step_ms": [value_ms]}),)),)


def _gate_of(name: str, case: Case) -> Metric:
    (found,) = (metric for metric in gated_metrics(case, H100) if metric.name == name)
    return found


def _judge_after_steps(first: float, accepted: float, better_by: float = 1.0) -> Verdict:
    drifted = {"first": {"denoise_step_ms": (first,) * 5}}
    return _judge("denoise_step_ms", [accepted * better_by], [accepted] * 5, entry=drifted)


def test_accepted_steps_that_add_up_are_said() -> None:
    verdict = _judge_after_steps(100.0, 103.0)
    assert verdict.status is Status.PASS
    assert verdict.reason.endswith(
        "; accepted changes have moved the baseline by +3.00 % from the first, and +5.00 % is the most"
    )


@pytest.mark.parametrize("accepted", [102.0, 100.0, 90.0])
def test_little_drift_and_improvement_are_not_mentioned(accepted: float) -> None:
    assert "accepted changes" not in _judge_after_steps(100.0, accepted).reason


# Another unit, few processes


def test_another_card_is_judged_at_the_tolerance_between_units() -> None:
    verdict = _judge("denoise_step_ms", [107.0] * 5, [100.0] * 5, unit=OTHER_CARD)
    assert verdict.status is Status.PASS
    assert verdict.limit == pytest.approx(108.0)
    assert verdict.reason.startswith("on another unit than the baseline's: +7.00 %")


def test_another_card_widens_the_surprise_bound_too() -> None:
    wide = dataclasses.replace(H100, unit_tolerance_pct=40.0)
    assert _judge("denoise_step_ms", [75.0] * 3, [100.0] * 3).status is Status.SURPRISE
    elsewhere = _judge("denoise_step_ms", [75.0] * 3, [100.0] * 3, unit=OTHER_CARD, platform=wide)
    assert elsewhere.status is Status.PASS


def test_another_card_is_no_excuse_for_memory() -> None:
    verdict = _judge("model_memory_mib", [101.0] * 3, [100.0] * 3, unit=OTHER_CARD)
    assert (verdict.status, verdict.limit) == (Status.REGRESSED, 100.5)
    assert "another unit" not in verdict.reason


def test_against_a_provisional_baseline_only_larger_changes_are_seen() -> None:
    provisional = _judge("denoise_step_ms", [101.2] * 5, [100.0])
    assert provisional.status is Status.PASS
    assert provisional.reason.startswith("provisional baseline of 1 process: +1.20 %")
    assert provisional.reason.endswith("changes of 2.2 % are seen")
    assert _judge("denoise_step_ms", [101.2] * 5, [100.0] * 5).status is Status.REGRESSED


def test_a_baseline_of_three_processes_is_not_provisional() -> None:
    assert "provisional" not in _judge("denoise_step_ms", [100.0], [100.0] * 3).reason


def test_few_processes_do_not_widen_what_has_no_noise() -> None:
    verdict = _judge("model_memory_mib", [101.0], [100.0])
    assert (verdict.status, verdict.limit) == (Status.REGRESSED, 100.5)
    assert "provisional" not in verdict.reason


# Exactly


@pytest.mark.parametrize("measured", [3.0, 5.0])
def test_any_difference_of_an_exact_metric_is_a_regression(measured: float) -> None:
    verdict = _judge("compiled_graphs", [measured], [4.0])
    assert (verdict.status, verdict.measured, verdict.limit) == (Status.REGRESSED, measured, 4.0)
    assert verdict.reason == f"{measured:g} instead of 4, and no difference is allowed"


def test_an_exact_metric_that_is_the_same_passes() -> None:
    verdict = _judge("graph_breaks", [0.0] * 3, [0.0] * 3)
    assert (verdict.status, verdict.change_pct) == (Status.PASS, None)


def test_one_process_that_differs_is_enough_to_regress_an_exact_metric() -> None:
    verdict = _judge("graph_breaks", [0.0, 1.0, 0.0], [0.0] * 3)
    assert (verdict.status, verdict.measured) == (Status.REGRESSED, 1.0)
    assert "1 of 3 processes differ" in verdict.reason


# Expected ranges

INT8WO_RANGE = Range(low=33.0, high=41.0, source="one GEMM gives 41.4 dB")
EXPECTING = make_case(scheme=dataclasses.replace(INT8WO, output_sqnr_db=INT8WO_RANGE))


def _judge_sqnr(*values_db: float) -> Verdict:
    run = make_run(EXPECTING, processes=tuple(make_process(build=_reporting(each)) for each in values_db))
    return _judge("output_sqnr_db", [], None, case=EXPECTING, platform=CPU, run=run, accepted=None)


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
def test_a_metric_with_an_expected_range_is_judged_without_a_baseline(
    measured_db: float, status: Status, limit_db: float
) -> None:
    verdict = _judge_sqnr(measured_db)
    assert (verdict.status, verdict.measured, verdict.limit) == (status, measured_db, limit_db)
    assert (verdict.baseline, verdict.change_pct) == (None, None)


def test_the_reason_of_an_expected_range_names_value_bounds_and_source() -> None:
    assert _judge_sqnr(28.5).reason == "28.5 dB is outside 33 to 41 dB: one GEMM gives 41.4 dB"
    assert _judge_sqnr(38.0, 37.0, 39.0).reason == "38 dB is within 33 to 41 dB: one GEMM gives 41.4 dB"


def test_one_process_outside_its_range_is_enough() -> None:
    verdict = _judge_sqnr(38.0, 12.0, 38.0)
    assert (verdict.status, verdict.measured) == (Status.REGRESSED, 12.0)


def test_an_expected_metric_that_was_not_reported_is_inconclusive() -> None:
    process = make_process(build=msgspec.structs.replace(make_build(), values={"weight_bytes": 1.0}))
    run = make_run(EXPECTING, processes=(process,))
    verdict = _judge("output_sqnr_db", [], None, case=EXPECTING, platform=CPU, run=run)
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
    verdict = _judge("weight_bytes_vs_implied", [ratio], None)
    assert verdict.status is status
    assert verdict.reason.endswith("0.98 to 1.02 x: 8 bits an element and 4 bytes a scale imply 1")


def test_only_cases_whose_scheme_implies_a_range_have_the_metric() -> None:
    def names(case: Case, platform: Platform) -> set[str]:
        return {metric.name for metric in gated_metrics(case, platform, Group.NUMERICS)}

    assert names(MINI_INT8WO, CPU) == {"output_sqnr_db", "weight_bytes_vs_implied"}
    assert names(FLUX_FP8, H100) == {"weight_bytes_vs_implied"}
    assert names(MINI_BF16, CPU) == {"anchor_sqnr_db"}
    assert names(make_case(scheme=FP16), CPU) == set()


@pytest.mark.parametrize(
    ("measured_db", "status"),
    [
        pytest.param(38.5, Status.PASS, id="rounding-of-bf16"),
        pytest.param(26.8, Status.REGRESSED, id="attention-scale-off"),
        pytest.param(1.5, Status.REGRESSED, id="text-tokens-permuted"),
    ],
)
def test_a_bf16_pipeline_far_from_its_anchor_is_red_without_any_baseline(
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


def test_anchor_is_committed_for_every_miniature_and_for_the_slim_pipeline_of_full_width() -> None:
    anchored = [spec.id for spec in PIPELINES if spec.anchor]
    assert sorted(anchored) == sorted((*(spec.id for spec in MINIATURES), FLUX1_DEV_SLIM.id))


# Scales


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


def test_a_layer_whose_scales_are_off_is_red_without_any_baseline_and_named() -> None:
    verdict = _judge_scales(make_layers(scale_error=0.048))
    assert (verdict.status, verdict.measured, verdict.limit) == (Status.REGRESSED, 0.048, 0.02)
    assert verdict.reason.startswith("transformer.transformer_blocks.0.attn.to_q 0.048; ")
    assert "0.048 is outside 0 to 0.02: two rows whose scales are 5 % apart" in verdict.reason


def test_the_limit_of_scales_that_are_alike_is_the_upper_one() -> None:
    verdict = _judge_scales(make_layers())
    assert (verdict.status, verdict.measured, verdict.limit) == (Status.PASS, 0.001, 0.02)


def test_scales_that_are_no_numbers_or_were_not_looked_at_are_no_pass() -> None:
    assert _judge_scales(make_layers(scale_error=math.nan)).status is Status.INCONCLUSIVE
    unseen = {name: msgspec.structs.replace(error, scale_error=None) for name, error in make_layers().items()}
    assert _judge_scales(unseen).status is Status.INCONCLUSIVE


# Floors


@pytest.mark.parametrize(
    ("baseline_db", "measured_db", "status", "limit_db"),
    [
        pytest.param(30.0, 27.1, Status.PASS, 27.0, id="within-tolerance"),
        pytest.param(30.0, 26.9, Status.REGRESSED, 27.0, id="beyond-tolerance"),
        pytest.param(27.0, 26.5, Status.PASS, 26.4, id="above-floor"),
        pytest.param(27.0, 26.3, Status.REGRESSED, 26.4, id="below-floor-within-tolerance"),
    ],
)
def test_fidelity_gates_at_the_higher_of_tolerance_and_floor(
    baseline_db: float, measured_db: float, status: Status, limit_db: float
) -> None:
    verdict = _judge("psnr_db", [measured_db], [baseline_db])
    assert (verdict.status, verdict.limit) == (status, limit_db)


def test_the_reason_says_whether_tolerance_or_floor_was_the_limit() -> None:
    lost, below = _judge("psnr_db", [26.9], [30.0]), _judge("psnr_db", [26.3], [27.0])
    assert lost.reason == "1 pair moved by -3.1 dB on average, beyond the limit -3 dB (26.9 against 30)"
    assert below.reason == "pair 0 is at 26.3 dB, below the floor 26.4 dB (26.3 against 27)"


def test_each_fidelity_metric_has_its_own_floor() -> None:
    scheme = dataclasses.replace(INT8WO, floor=FidelityFloor(psnr_db=1.0, ssim=0.95, source="a test"))
    case = make_case(FLUX_FP8.build.pipeline, scheme=scheme, compile=CompileMode.REGIONAL)
    assert _judge("ssim", [0.955], [0.96], case=case).limit == 0.95


def test_a_case_without_a_floor_has_the_tolerance_alone() -> None:
    case = make_case(FLUX_FP8.build.pipeline, fuse_qkv=True)
    assert _judge("psnr_db", [15.0], [16.0], case=case).limit == 13.0


# Only against the same torch and triton


STACK = {"torch": "2.11.0+cu130 (70d99e998b)", "triton": "3.6.0", "diffusers": "0.42.1"}


def _judge_kernels(
    measured: Sequence[float], baseline: Sequence[float], *, then: dict[str, str], now: dict[str, str]
) -> Verdict:
    environment = make_environment(gpu=GPU, packages=now)
    processes = tuple(
        msgspec.structs.replace(process, environment=environment)
        for process in _run("kernels_per_step", measured).processes
    )
    run = msgspec.structs.replace(_run("kernels_per_step", measured), processes=processes)
    return _judge("kernels_per_step", measured, baseline, run=run, provenance={"packages": then})


@pytest.mark.parametrize(
    ("measured", "status"),
    [
        pytest.param(1530.0, Status.PASS, id="as-many"),
        pytest.param(1531.0, Status.REGRESSED, id="one-more"),
        pytest.param(1529.0, Status.REGRESSED, id="one-less"),
    ],
)
def test_kernels_are_exact_against_the_same_torch_and_triton(measured: float, status: Status) -> None:
    others = {"diffusers": "0.43.0", "mslk": "1.0"}
    verdict = _judge_kernels([measured], [1530.0], then=STACK, now={**STACK, **others})
    assert (verdict.status, verdict.measured, verdict.baseline) == (status, measured, 1530.0)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        pytest.param(
            {"torch": "2.12.0 (aaaaaaaaaa)"},
            "torch 2.11.0+cu130 (70d99e998b) -> 2.12.0 (aaaaaaaaaa)",
            id="torch",
        ),
        pytest.param(
            {"torch": "2.11.0+cu130 (bbbbbbbbbb)"},
            "torch 2.11.0+cu130 (70d99e998b) -> 2.11.0+cu130 (bbbbbbbbbb)",
            id="another-revision",
        ),
        pytest.param({"triton": "3.6.1"}, "triton 3.6.0 -> 3.6.1", id="triton"),
        pytest.param(
            {"torch": "2.12.0", "triton": "3.7.0"},
            "torch 2.11.0+cu130 (70d99e998b) -> 2.12.0; triton 3.6.0 -> 3.7.0",
            id="both",
        ),
    ],
)
def test_kernels_are_only_shown_against_another_torch_or_triton(change: dict[str, str], said: str) -> None:
    verdict = _judge_kernels([1700.0], [1530.0], then=STACK, now={**STACK, **change})
    assert (verdict.status, verdict.measured, verdict.baseline) == (Status.PASS, 1700.0, None)
    assert verdict.reason == (
        "not compared with the 1530 of the baseline, which is exact only for the same torch and triton: "
        + said
    )


def test_a_package_that_one_side_lacks_is_another_version() -> None:
    verdict = _judge_kernels([1700.0], [1530.0], then={"torch": STACK["torch"]}, now=STACK)
    assert verdict.status is Status.PASS
    assert verdict.reason.endswith(": triton absent -> 3.6.0")


def test_other_counters_are_compared_whatever_torch_is() -> None:
    verdict = _judge("graph_breaks", [1.0], [0.0], provenance={"packages": STACK})
    assert verdict.status is Status.REGRESSED


def test_kernels_without_a_baseline_or_a_count_are_not_green_under_another_torch() -> None:
    absent = make_entry({"graph_breaks": [0.0]}, case=FLUX_FP8)
    verdict = judge_metric(
        metric_named("kernels_per_step"),
        case=FLUX_FP8,
        platform=H100,
        run=_run("kernels_per_step", [1530.0]),
        reference=None,
        accepted=make_accepted(absent, unit=H100_UUID, packages=STACK),
        unit=H100_UUID,
        significance=make_significance(),
    )
    assert (verdict.status, verdict.reason) == (Status.NO_BASELINE, "the baseline has no kernels_per_step")
    uncounted = make_run(
        FLUX_FP8,
        H100,
        processes=(make_process(build=msgspec.structs.replace(make_build(), values={"recompiles": 0.0})),),
    )
    verdict = _judge("kernels_per_step", [], [1530.0], run=uncounted, provenance={"packages": STACK})
    assert verdict.status is Status.INCONCLUSIVE
    assert verdict.reason.endswith("the worker reported no kernels_per_step, only recompiles")


# Cannot tell, nothing to compare with


def test_a_missing_metric_is_inconclusive_and_named() -> None:
    verdict = _judge("psnr_db", [], [30.0])
    assert (verdict.status, verdict.measured) == (Status.INCONCLUSIVE, None)
    assert "psnr_db of flux1-dev-b1-fp8dqrow-regional is missing" in verdict.reason


def test_a_speed_up_without_a_reference_is_inconclusive() -> None:
    verdict = _judge("speedup_vs_bf16", [1.0], [2.0], reference=None)
    assert verdict.status is Status.INCONCLUSIVE
    assert "the bf16 reference was not measured" in verdict.reason


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("metric", ["denoise_step_ms", "compiled_graphs"])
def test_a_number_that_is_not_finite_is_inconclusive(metric: str, value: float) -> None:
    assert _judge(metric, [value], [100.0]).status is Status.INCONCLUSIVE


def test_no_entry_is_no_baseline() -> None:
    verdict = _judge("denoise_step_ms", [100.0], None)
    assert (verdict.status, verdict.measured, verdict.baseline) == (Status.NO_BASELINE, 100.0, None)
    assert verdict.reason == "no baseline is recorded"


def test_another_digest_is_no_baseline_and_both_digests_are_named() -> None:
    verdict = _judge("denoise_step_ms", [100.0], [100.0], entry={"digest": "0123456789abcdef"})
    assert verdict.status is Status.NO_BASELINE
    assert "the case has changed since its baseline" in verdict.reason
    assert "0123456789ab then" in verdict.reason
    assert f"{FLUX_FP8.digest[:12]} now" in verdict.reason


def test_a_metric_that_the_entry_lacks_is_no_baseline() -> None:
    entry = make_entry({"decode_ms": [1.0]}, case=FLUX_FP8)
    verdict = judge_metric(
        metric_named("denoise_step_ms"),
        case=FLUX_FP8,
        platform=H100,
        run=_run("denoise_step_ms", [1.0]),
        reference=None,
        accepted=make_accepted(entry),
        unit=H100_UUID,
        significance=make_significance(),
    )
    assert verdict.status is Status.NO_BASELINE
    assert verdict.reason == "the baseline has no denoise_step_ms"


# Validity


@pytest.mark.parametrize("reason", sorted(SLOWDOWNS))
def test_a_throttled_sample_makes_the_run_invalid(reason: str) -> None:
    telemetry = make_telemetry(throttle_reasons=("SwPowerCap", reason))
    run = make_run(processes=(make_process(), make_process(samples=(make_sample(telemetry=telemetry),))))
    assert invalidity(run) == f"the GPU was throttled during process 2: {reason}"


def test_the_power_cap_alone_is_normal() -> None:
    run = make_run(processes=(make_process(samples=(make_sample(telemetry=make_telemetry()),)),))
    assert invalidity(run) is None


def test_another_process_on_the_gpu_makes_the_run_invalid() -> None:
    telemetry = make_telemetry(compute_processes=2)
    why = invalidity(make_run(processes=(make_process(samples=(make_sample(telemetry=telemetry),)),)))
    assert why is not None
    assert why.startswith("2 processes computed on the GPU during process 1")


def test_throttling_during_warm_up_does_not_count() -> None:
    telemetry = make_telemetry(throttle_reasons=("HwSlowdown",))
    assert (
        invalidity(make_run(processes=(make_process(warmups=(make_sample(telemetry=telemetry),)),))) is None
    )


HOT = make_sample(telemetry=make_telemetry(throttled_ms={"hw_thermal": 20.0}))


def _hot(run: Run) -> Run:
    """`run` with a throttled sample in its last process."""
    *others, last = run.processes
    hot = msgspec.structs.replace(last, samples=(*last.samples, HOT))
    return msgspec.structs.replace(run, processes=(*others, hot))


@pytest.mark.parametrize("metric", ["denoise_step_ms", "decode_ms", "speedup_vs_bf16", "peak_allocated_mib"])
def test_a_time_or_memory_of_an_invalid_run_is_neither_good_nor_bad(metric: str) -> None:
    verdict = _judge(metric, [1.0], [1.0], run=_hot(_run(metric, [1.0])))
    assert (verdict.status, verdict.measured, verdict.change_pct) == (Status.INVALID, None, None)
    assert verdict.reason == "the GPU was throttled during process 1: hw_thermal for 20 ms"


def test_counters_of_an_invalid_run_are_judged() -> None:
    assert _judge("graph_breaks", [1.0], [0.0], run=_hot(_run("graph_breaks", [1.0]))).status == "REGRESSED"


def test_a_speed_up_over_an_invalid_reference_is_invalid_and_the_time_is_not() -> None:
    reference = _hot(make_reference(FLUX_FP8, H100))
    verdict = _judge("speedup_vs_bf16", [1.0], [1.0], reference=reference)
    assert verdict.status is Status.INVALID
    assert verdict.reason.startswith("of the reference flux1-dev-b1-bf16-regional, the GPU was throttled")
    assert _judge("denoise_step_ms", [1.0], [1.0], reference=reference).status is Status.PASS


# Cycles


def _timed(step_ms: float, clock_mhz: float) -> Run:
    sample = make_sample({"denoise_step_ms": [step_ms], "mean_sm_clock_mhz": [clock_mhz]})
    return make_run(FLUX_FP8, H100, processes=(make_process(samples=(sample,)),) * 5)


def _judge_at_clock(step_ms: float, clock_mhz: float) -> Verdict:
    metrics = {"denoise_step_ms": [100.0] * 5, "mean_sm_clock_mhz": [1700.0] * 5}
    entry = make_entry(metrics, case=FLUX_FP8)
    return judge_metric(
        metric_named("denoise_step_ms"),
        case=FLUX_FP8,
        platform=H100,
        run=_timed(step_ms, clock_mhz),
        reference=None,
        accepted=make_accepted(entry, unit=H100_UUID),
        unit=H100_UUID,
        significance=make_significance(),
    )


def test_a_regression_that_vanishes_in_cycles_stays_one_and_says_so() -> None:
    verdict = _judge_at_clock(106.0, 1600.0)
    assert verdict.status is Status.REGRESSED
    assert verdict.reason.endswith(
        "; vanishes in cycles (-0.24 % at 1600 MHz, 1700 MHz in the baseline): "
        "the code burns more power, or the card ran slower"
    )


@pytest.mark.parametrize(("step_ms", "clock_mhz"), [(106.0, 1700.0), (100.0, 1600.0)])
def test_cycles_are_mentioned_with_no_other_verdict(step_ms: float, clock_mhz: float) -> None:
    assert "cycles" not in _judge_at_clock(step_ms, clock_mhz).reason


# Overall


def test_severity_orders_every_status() -> None:
    assert sorted(SEVERITY) == sorted(Status)


def test_every_status_that_is_not_green_is_worse_than_every_one_that_is() -> None:
    greens = [status.is_green for status in SEVERITY]
    assert greens == sorted(greens)


@pytest.mark.parametrize("kind", [*FailureKind])
def test_a_failure_decides_whatever_was_judged(kind: FailureKind) -> None:
    run = make_run(
        failure=make_failure(kind=kind, message="it broke"),
        verdicts=(make_verdict("ssim", Status.REGRESSED),),
    )
    assert overall(run) == (STATUS_OF_FAILURE[kind], "it broke")


@pytest.mark.parametrize("status", [Status.UNPROVEN, Status.UNSUPPORTED, Status.NOT_RUN, Status.INVALID])
def test_a_declared_status_is_not_improved_by_verdicts(status: Status) -> None:
    run = make_run(status=status, reason="because", verdicts=(make_verdict("ssim", Status.PASS),))
    assert overall(run) == (status, "because")


def test_an_invalid_run_does_not_hide_what_regressed_all_the_same() -> None:
    run = make_run(status=Status.INVALID, verdicts=(make_verdict("weight_bytes", Status.REGRESSED),))
    assert overall(run) == (Status.REGRESSED, "weight_bytes: because of weight_bytes")


def test_the_worst_verdict_decides_and_is_named() -> None:
    run = make_run(
        verdicts=(
            make_verdict("ssim", Status.PASS),
            make_verdict("graph_breaks", Status.REGRESSED),
            make_verdict("psnr_db", Status.NO_BASELINE),
        )
    )
    assert overall(run) == (Status.REGRESSED, "graph_breaks: because of graph_breaks")


def test_a_case_whose_verdicts_all_pass_passes_without_a_reason() -> None:
    assert overall(make_run(verdicts=(make_verdict("ssim", Status.PASS),))) == (Status.PASS, "")


def test_a_run_that_was_not_judged_is_inconclusive() -> None:
    run = msgspec.structs.replace(make_run(), status=Status.PASS)
    assert overall(run) == (Status.INCONCLUSIVE, "measured, not judged")
