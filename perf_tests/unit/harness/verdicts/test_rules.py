from __future__ import annotations

import dataclasses

import pytest

from perf_tests.harness.records.fidelity import Fidelity
from perf_tests.harness.runs.record import Status
from perf_tests.harness.verdicts.judge import judge_metric
from perf_tests.tables.cases import Case
from perf_tests.tables.platforms import H100
from perf_tests.tables.recipes import CompileMode
from perf_tests.tables.schemes.rows import INT8WO
from perf_tests.tables.schemes.spec import FidelityFloor
from perf_tests.unit.builders import (
    FLUX_FP8,
    H100_UUID,
    make_accepted,
    make_case,
    make_entry,
    make_process,
    make_run,
    make_significance,
    metric_named,
)
from perf_tests.unit.harness.verdicts.judging import judged

MINI_BF16_COMPILED = make_case(compile=CompileMode.REGIONAL)


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
def test_metric_without_noise_is_judged_by_its_tolerance(measured: float, status: Status) -> None:
    verdict = judged("model_memory_mib", [measured] * 3, [100.0] * 3)
    assert (verdict.status, verdict.limit) == (status, 100.5)


@pytest.mark.parametrize(
    ("measured", "status"),
    [
        pytest.param(94.9, Status.SURPRISE, id="beyond-surprise"),
        pytest.param(95.0, Status.IMPROVED, id="at-surprise"),
        pytest.param(98.9, Status.IMPROVED, id="better-than-tolerance"),
    ],
)
def test_improvement_within_the_surprise_bound_is_improved(measured: float, status: Status) -> None:
    verdict = judged("peak_allocated_mib", [measured * 100] * 3, [10000.0] * 3)
    assert verdict.status is status


def test_tolerance_is_the_larger_of_relative_and_absolute() -> None:
    # peak_allocated_mib: 1 % or 64 MiB.
    assert judged("peak_allocated_mib", [1000.0], [1000.0]).limit == 1064.0
    assert judged("peak_allocated_mib", [10000.0], [10000.0]).limit == 10100.0


def test_medians_over_processes_are_compared() -> None:
    verdict = judged("model_memory_mib", [100.0, 250.0, 100.1], [100.0, 99.0, 180.0])
    assert (verdict.measured, verdict.baseline, verdict.status) == (100.1, 100.0, Status.PASS)


def test_metric_without_noise_has_no_interval() -> None:
    assert judged("model_memory_mib", [100.1] * 3, [100.0] * 3).ci_pct is None


def test_reason_of_a_regression_names_change_limit_and_tolerance() -> None:
    reason = judged("peak_allocated_mib", [1200.0], [1000.0]).reason
    assert reason == "+20.00 % against the baseline, beyond the limit 1064 MiB (baseline + 1 % or 64 MiB)"


def test_reason_of_a_surprise_asks_for_acceptance_with_a_reason() -> None:
    reason = judged("model_memory_mib", [50.0] * 3, [100.0] * 3).reason
    assert reason.startswith("unexplained improvement of -50.00 %")
    assert reason.endswith("accept it with a reason")


def test_improvement_of_a_metric_without_surprise_bound_never_fails() -> None:
    assert judged("compile_cold_s", [10.0] * 3, [100.0] * 3).status is Status.IMPROVED


def test_change_within_the_absolute_tolerance_is_no_surprise() -> None:
    # peak_allocated_mib: 1 % or 64 MiB, and a surprise beyond 5 %, which is 5 MiB here.
    assert judged("peak_allocated_mib", [40.0] * 3, [100.0] * 3).status is Status.PASS


@pytest.mark.parametrize("measured", [3.0, 5.0])
def test_exact_metric_that_differs_at_all_is_a_regression(measured: float) -> None:
    verdict = judged("compiled_graphs", [measured], [4.0])
    assert (verdict.status, verdict.measured, verdict.limit) == (Status.REGRESSED, measured, 4.0)
    assert verdict.reason == f"{measured:g} instead of 4, and no difference is allowed"


def test_exact_metric_that_is_the_same_passes() -> None:
    verdict = judged("graph_breaks", [0.0] * 3, [0.0] * 3)
    assert (verdict.status, verdict.change_pct) == (Status.PASS, None)


def test_exact_metric_regresses_where_one_process_differs() -> None:
    verdict = judged("graph_breaks", [0.0, 1.0, 0.0], [0.0] * 3)
    assert (verdict.status, verdict.measured) == (Status.REGRESSED, 1.0)
    assert "1 of 3 processes differ" in verdict.reason


def test_exact_metric_shows_the_process_that_differs_most_which_an_acknowledgement_is_compared_with() -> None:
    verdict = judged("graph_breaks", [2.0, 9.0, 0.0], [0.0] * 3)
    assert (verdict.status, verdict.measured) == (Status.REGRESSED, 9.0)
    assert verdict.reason.startswith("9 instead of 0, ")


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
    verdict = judged("psnr_db", [measured_db], [baseline_db])
    assert (verdict.status, verdict.limit) == (status, limit_db)


def test_reason_says_whether_tolerance_or_floor_was_the_limit() -> None:
    lost, below = judged("psnr_db", [26.9], [30.0]), judged("psnr_db", [26.3], [27.0])
    assert lost.reason == "1 pair moved by -3.1 dB on average, beyond the limit -3 dB (26.9 against 30)"
    assert below.reason == "pair 0 is at 26.3 dB, below the floor 26.4 dB (26.3 against 27)"


def test_floor_is_that_of_the_metric() -> None:
    scheme = dataclasses.replace(INT8WO, floor=FidelityFloor(psnr_db=1.0, ssim=0.95, source="a test"))
    case = make_case(FLUX_FP8.build.pipeline, scheme=scheme, compile=CompileMode.REGIONAL)
    assert judged("ssim", [0.955], [0.96], case=case).limit == 0.95


def test_case_without_a_floor_has_the_tolerance_alone() -> None:
    case = make_case(FLUX_FP8.build.pipeline, fuse_qkv=True)
    assert judged("psnr_db", [15.0], [16.0], case=case).limit == 13.0


COMPOSED = dataclasses.replace(
    FLUX_FP8, workload=dataclasses.replace(FLUX_FP8.workload, batch_size=16, measured_steps=6)
)
"""Of which fewer pairs are generated than when most of its like were recorded."""


@pytest.mark.parametrize(
    ("case", "measured_db", "status", "said"),
    [
        pytest.param(
            COMPOSED, (33.0, 31.0), Status.PASS, "2 pairs moved by -1 dB on average", id="the-same-two"
        ),
        pytest.param(COMPOSED, (31.5, 29.5), Status.REGRESSED, "beyond the limit -2.12 dB", id="both-lost"),
        pytest.param(
            COMPOSED, (34.0, 28.9), Status.REGRESSED, "beyond the limit -3 dB of one", id="one-lost"
        ),
        pytest.param(COMPOSED, (34.0,), Status.INCONCLUSIVE, "1 of the 2 pairs", id="one-missing"),
        pytest.param(FLUX_FP8, (34.0, 32.0), Status.INCONCLUSIVE, "2 of the 4 pairs", id="of-a-whole-row"),
    ],
)
def test_the_pairs_that_a_composed_row_generates_are_compared_with_themselves_in_a_baseline_of_four(
    case: Case, measured_db: tuple[float, ...], status: Status, said: str
) -> None:
    lowest = min(measured_db)
    fidelity = Fidelity(psnr_db=lowest, ssim=0.95, identical=False, pair_psnrs_db=measured_db)
    run = make_run(FLUX_FP8, H100, processes=(make_process(fidelity=fidelity),))
    verdict = judged("psnr_db", [], [34.0, 32.0, 27.5, 36.0], case=case, run=run)
    assert verdict.status is status
    assert said in verdict.reason


def test_change_of_decibels_is_said_in_decibels() -> None:
    fidelity = Fidelity(psnr_db=30.0, ssim=0.9, identical=False, latents_sqnr_db=28.0)
    run = make_run(FLUX_FP8, H100, processes=(make_process(fidelity=fidelity),))
    verdict = judged("latents_sqnr_db", [28.0], [30.0], run=run)
    assert (verdict.status, verdict.change_pct) == (Status.REGRESSED, None)
    assert verdict.reason == "-2 dB against the baseline, beyond the limit 29 dB (baseline - 1 dB)"


def test_change_from_nothing_is_a_difference() -> None:
    verdict = judged("peak_allocated_mib", [100.0], [0.0])
    assert verdict.reason.startswith("+100 MiB against the baseline, beyond the limit ")
