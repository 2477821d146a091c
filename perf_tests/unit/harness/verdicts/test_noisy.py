from __future__ import annotations

from typing import Any

import pytest

from perf_tests.harness.runs.record import (
    Status,
    Verdict,
)
from perf_tests.tables.platforms import H100
from perf_tests.unit.builders import (
    FLUX_FP8,
    make_reference,
    make_significance,
)
from perf_tests.unit.harness.verdicts.judging import judged, run_of


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
def test_noisy_metric_is_judged_by_as_many_processes_as_it_takes(
    measured: list[float], status: Status, wants_more: bool
) -> None:
    verdict = judged("denoise_step_ms", measured, [100.0] * 5)
    assert (verdict.status, verdict.wants_more) == (status, wants_more)


def test_process_decides_alone_where_no_other_may_be_asked_for() -> None:
    alone = make_significance(max_processes=1)
    verdict = judged("denoise_step_ms", [103.0], [100.0] * 5, significance=alone)
    assert (verdict.status, verdict.wants_more) == (Status.REGRESSED, False)


def test_run_with_more_processes_than_may_be_asked_for_is_judged_by_all() -> None:
    alone = make_significance(max_processes=1)
    verdict = judged("denoise_step_ms", [101.5] * 7, [100.0] * 5, significance=alone)
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
def test_speed_up_is_better_the_higher(step_ms: float, status: Status) -> None:
    verdict = _judge_speed_up(step_ms, reference_processes=5)
    assert verdict.status is status
    assert verdict.limit is not None
    assert verdict.limit < 2.0


def _judge_speed_up(step_ms: float, *, now: int = 1, **entry: Any) -> Verdict:
    return judged(
        "speedup_vs_bf16",
        [],
        [2.0] * 5,
        entry=entry,
        run=run_of("denoise_step_ms", [step_ms] * 3),
        reference=make_reference(
            FLUX_FP8, H100, processes=run_of("denoise_step_ms", [100.0] * now).processes
        ),
    )


def test_limit_of_a_speed_up_is_widened_by_the_error_of_both_references() -> None:
    limits = [
        _judge_speed_up(50.0, now=now, reference_processes=then).limit
        for now, then in ((5, 5), (1, 5), (1, 1))
    ]
    # 2 x exp(-c x 0.36 % x sqrt(1/3 + 1/5 + 1/now + 1/then)), and at least the tolerance: 2 / 1.015
    assert limits == pytest.approx([1.97044, 1.96654, 1.95993], abs=1e-5)


def test_reference_of_unknown_process_count_is_taken_for_one_process() -> None:
    assert _judge_speed_up(50.0).limit == _judge_speed_up(50.0, reference_processes=1).limit


def test_numbers_of_a_noisy_verdict_are_means_with_both_intervals() -> None:
    verdict = judged("denoise_step_ms", [102.0, 102.0], [100.0, 100.0, 100.0])
    assert (verdict.measured, verdict.baseline) == (102.0, 100.0)
    assert verdict.change_pct == pytest.approx(2.0)
    assert verdict.ci_pct is not None
    assert verdict.family_ci_pct is not None
    # 1.02 x exp(-+2.000 x 0.36 % x sqrt(1/2 + 1/3)), where 2.000 is Student's t of 60 degrees
    assert verdict.ci_pct == pytest.approx((1.332, 2.673), abs=0.002)
    assert 0 < verdict.family_ci_pct[0] < verdict.ci_pct[0] < verdict.ci_pct[1] < verdict.family_ci_pct[1]


def test_reason_names_the_limit_what_sets_it_and_what_is_seen() -> None:
    reason = judged("denoise_step_ms", [103.0, 103.0], [100.0] * 5).reason
    assert reason == (
        "+3.00 % against the baseline, beyond the limit 101.109 ms (+1.11 %: the noise of 2 processes "
        "against 5); changes of 1.3 % are seen"
    )


def test_limit_is_the_tolerance_where_that_is_wider_than_the_noise() -> None:
    verdict = judged("decode_ms", [101.0] * 5, [100.0] * 5)
    assert verdict.limit == pytest.approx(102.0)
    assert "within the limit 102 ms (+2.00 %: the tolerance)" in verdict.reason


def test_run_that_ended_undecided_says_how_far_it_came() -> None:
    assert judged("denoise_step_ms", [103.0], [100.0] * 5).reason == (
        "+3.00 % against the baseline is undecided after 1 process, up to 5 may be asked for, and the "
        "run ended before that: measure it again"
    )


def test_processes_that_scatter_too_much_are_reported_with_the_noise_of_the_platform() -> None:
    reason = judged("denoise_step_ms", [103.0, 100.0], [100.0] * 5).reason
    assert reason.startswith("its 2 processes scatter 5.8 times more than this platform's noise of 0.36 %")
    assert "measure it again on a quiet machine" in reason


def test_provisional_baseline_shows_only_larger_changes() -> None:
    provisional = judged("denoise_step_ms", [101.2] * 5, [100.0])
    assert provisional.status is Status.PASS
    assert provisional.reason.startswith("provisional baseline of 1 process: +1.20 %")
    assert provisional.reason.endswith("changes of 2.2 % are seen")
    assert judged("denoise_step_ms", [101.2] * 5, [100.0] * 5).status is Status.REGRESSED


def test_baseline_of_three_processes_is_not_provisional() -> None:
    assert "provisional" not in judged("denoise_step_ms", [100.0], [100.0] * 3).reason


def test_metric_without_noise_is_not_widened_by_few_processes() -> None:
    verdict = judged("model_memory_mib", [101.0], [100.0])
    assert (verdict.status, verdict.limit) == (Status.REGRESSED, 100.5)
    assert "provisional" not in verdict.reason
