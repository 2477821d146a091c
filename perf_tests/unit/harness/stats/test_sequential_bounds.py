"""The sequential rule on literal processes, and what no rearranging or scaling of them may change."""

from __future__ import annotations

import dataclasses
import itertools
import random
from typing import Any

import pytest

from perf_tests.harness.runs.record import Status
from perf_tests.harness.stats.sequential_bounds import (
    SequentialTest,
    decide,
    drift,
    excess_spread,
    metric_level,
)
from perf_tests.tables.metrics.spec import Better
from perf_tests.tables.platforms import Noise

NOISE = Noise(sd_pct=0.39, dof=60)
BASELINE = (100.0, 100.4, 99.6, 100.1, 99.9)
LOWER, HIGHER = Better.LOWER, Better.HIGHER


def make_test(**changes: Any) -> SequentialTest:
    """60 noisy metrics against a full baseline."""
    default = SequentialTest(
        noise=NOISE,
        level=metric_level(60),
        baseline_processes=5,
        max_processes=5,
        tolerance_pct=0.75,
        surprise_pct=10.0,
    )
    return dataclasses.replace(default, **changes)


TEST = make_test()


def status(*measured: float, test: SequentialTest = TEST, better: Better = LOWER) -> Status | None:
    return decide(test, BASELINE[: test.baseline_processes], measured, better).status


@pytest.mark.parametrize(
    ("measured", "expected"),
    [
        pytest.param((100.1,), Status.PASS, id="one-process-excludes-a-slowdown"),
        pytest.param((99.0,), Status.PASS, id="faster-is-no-slowdown"),
        pytest.param((100.8,), None, id="one-process-cannot-tell"),
        pytest.param((103.0,), None, id="one-process-decides-nothing"),
        pytest.param((85.0,), None, id="nor-praised"),
        pytest.param((103.0, 102.8), Status.REGRESSED, id="two-processes-agree"),
        pytest.param((97.0, 97.2), Status.IMPROVED, id="faster"),
        pytest.param((85.0, 85.2), Status.SURPRISE, id="faster-without-a-reason"),
        pytest.param((101.0, 101.0), None, id="two-processes-cannot-tell"),
        pytest.param((101.0, 101.1, 100.9, 101.0), Status.REGRESSED, id="four-can"),
        pytest.param((103.0, 100.0), Status.INCONCLUSIVE, id="processes-that-disagree"),
        pytest.param((100.9, 100.95, 100.9, 100.95), None, id="undecided-before-the-last"),
        pytest.param((100.9, 100.95, 100.9, 100.95, 100.8), Status.PASS, id="decided-at-the-last"),
        pytest.param((100.95, 100.9, 100.95, 100.9, 100.95), Status.REGRESSED, id="either-way"),
    ],
)
def test_each_look_ends_as_the_rule_says(measured: tuple[float, ...], expected: Status | None) -> None:
    assert status(*measured) is expected


def test_where_one_process_is_all_there_is_it_decides() -> None:
    test = make_test(max_processes=1)
    assert status(103.0, test=test) is Status.REGRESSED
    assert status(101.0, test=test) is Status.PASS
    assert status(97.0, test=test) is Status.IMPROVED


def test_ratio_that_falls_is_worse() -> None:
    assert status(97.0, 97.2, better=HIGHER) is Status.REGRESSED
    assert status(103.0, 102.8, better=HIGHER) is Status.IMPROVED
    assert decide(TEST, BASELINE, (97.0, 97.2), HIGHER).limit_pct == pytest.approx(-1.18, abs=0.01)


def test_no_improvement_is_unexplained_where_the_metric_has_no_bound_for_it() -> None:
    assert status(50.0, 50.2, test=make_test(surprise_pct=None)) is Status.IMPROVED


def test_change_within_the_tolerance_passes_however_certain_it_is() -> None:
    calm = make_test(noise=Noise(sd_pct=0.01, dof=60))
    processes = (100.70, 100.71, 100.70)
    assert decide(calm, (100.0,) * 5, processes, LOWER).status is Status.PASS
    assert decide(calm, (100.0,) * 5, (100.80, 100.81), LOWER).status is Status.REGRESSED


def test_provisional_baseline_gates_at_what_it_can_see() -> None:
    one, full = make_test(baseline_processes=1), TEST
    assert full.detectable_pct == pytest.approx(1.43, abs=0.01)
    assert one.detectable_pct == pytest.approx(2.40, abs=0.01)
    assert status(101.5, 101.4, test=one) is None
    assert status(102.5, 102.4, test=one) is Status.REGRESSED


def test_error_of_a_reference_is_not_measured_away() -> None:
    # Speed-ups: one process of the reference in this run, five in the baseline's.
    shared = make_test(shared_variance=1 / 1 + 1 / 5)
    assert shared.standard_error(5) == pytest.approx(0.0039 * (1 / 5 + 1 / 5 + 1 + 1 / 5) ** 0.5)
    assert shared.detectable_pct == pytest.approx(2.76, abs=0.01)


def test_intervals_hold_the_change_and_exclude_zero_where_the_code_changed() -> None:
    decision = decide(TEST, BASELINE, (102.0, 102.0), LOWER)
    assert decision.change_pct == pytest.approx(2.0, abs=0.01)
    # 0.39 % sqrt(1/2 + 1/5) = 0.3263 %, times t = 2.000 and c = 3.662
    assert decision.interval_pct == pytest.approx((1.338, 2.668), abs=0.005)
    assert decision.family_interval_pct == pytest.approx((0.790, 3.227), abs=0.005)
    assert decision.limit_pct == pytest.approx(1.202, abs=0.005)


def test_spread_is_told_with_its_limit() -> None:
    decision = decide(TEST, BASELINE, (103.0, 100.0), LOWER)
    # (ln 1.03)^2 / 2 over 0.0039^2
    assert decision.spread_ratio == pytest.approx(28.72, abs=0.01)
    assert decision.spread_limit == pytest.approx(21.34, abs=0.01)
    assert decide(TEST, BASELINE, (100.0,), LOWER).spread_ratio is None


def test_time_of_nothing_has_no_change() -> None:
    with pytest.raises(ValueError, match=r"0\.0 has no relative change"):
        decide(TEST, BASELINE, (100.0, 0.0), LOWER)


# The level


@pytest.mark.parametrize(
    ("noisy_metrics", "level"),
    [
        pytest.param(1, 0.00085, id="one"),
        pytest.param(60, 0.05 / 60, id="many"),
        pytest.param(186, 0.05 / 186, id="more"),
    ],
)
def test_more_metrics_the_less_each_may_err(noisy_metrics: int, level: float) -> None:
    assert metric_level(noisy_metrics) == level


def test_what_is_less_certain_is_judged_more_carefully() -> None:
    certain = TEST.regressed_limit
    assert certain == pytest.approx(3.662, abs=1e-3)
    assert make_test(noise=Noise(sd_pct=0.39, dof=20)).regressed_limit == pytest.approx(4.096, abs=1e-3)
    assert make_test(level=metric_level(186)).regressed_limit == pytest.approx(4.020, abs=1e-3)


def test_bounds_meet_at_the_last_look_and_never_cross_before() -> None:
    bounds = [TEST.bounds(processes) for processes in range(1, 6)]
    assert bounds[-1].passed == pytest.approx(bounds[-1].regressed, rel=1e-12)
    assert all(each.passed < each.regressed for each in bounds[:-1])
    assert [each.regressed for each in bounds] == sorted((each.regressed for each in bounds), reverse=True)


# What may not matter


def drawn(source: random.Random, least: int = 1) -> list[float]:
    """Some processes, sometimes all of them far off."""
    centre = 100 * (1 + source.choice((-0.12, -0.02, 0.0, 0.008, 0.012, 0.03)))
    return [centre * (1 + source.gauss(0, 0.005)) for _ in range(source.randint(least, 5))]


@pytest.mark.parametrize("seed", range(5))
def test_order_of_processes_changes_nothing(seed: int) -> None:
    source = random.Random(seed)
    for _ in range(20):
        measured = drawn(source)
        decision = decide(TEST, BASELINE, measured, LOWER)
        for order in itertools.islice(itertools.permutations(range(len(measured))), 1, 4):
            reordered = [measured[index] for index in order]
            assert decide(TEST, BASELINE[::-1], reordered, LOWER) == decision


@pytest.mark.parametrize("factor", [1e-3, 0.3, 7.0, 1e6])
@pytest.mark.parametrize("better", [LOWER, HIGHER])
def test_scaling_all_times_changes_nothing(factor: float, better: Better) -> None:
    source = random.Random(1)
    for _ in range(40):
        measured = drawn(source)
        before = decide(TEST, BASELINE, measured, better)
        after = decide(TEST, [factor * each for each in BASELINE], [factor * m for m in measured], better)
        assert after.status is before.status
        assert after.change_pct == pytest.approx(before.change_pct, abs=1e-9)


ORDER = (Status.SURPRISE, Status.IMPROVED, Status.PASS, None, Status.REGRESSED)
"""From the fastest to the slowest."""


def test_more_slowdown_never_looks_better() -> None:
    source = random.Random(2)
    for _ in range(100):
        measured = drawn(source, least=2)  # one process decides neither way
        seen = [status(*(factor * each for each in measured)) for factor in (1.0, 1.001, 1.005, 1.02, 1.2)]
        if Status.INCONCLUSIVE in seen:  # the speed does not change how much the processes scatter
            assert set(seen) == {Status.INCONCLUSIVE}
            continue
        ranks = [ORDER.index(each) for each in seen]
        assert ranks == sorted(ranks)


def test_one_slower_process_never_makes_a_regression_green() -> None:
    source = random.Random(3)
    regressed = [each for each in (drawn(source) for _ in range(300)) if status(*each) is Status.REGRESSED]
    assert len(regressed) > 50
    for measured in regressed:
        for index in range(len(measured)):
            for factor in (1.001, 1.01, 1.1):
                slower = [each * (factor if i == index else 1.0) for i, each in enumerate(measured)]
                assert status(*slower) in (Status.REGRESSED, Status.INCONCLUSIVE)


# Baselines


@pytest.mark.parametrize(
    ("values", "excess"),
    [
        pytest.param(BASELINE, None, id="as-the-platform"),
        pytest.param((100.0,), None, id="one"),
        pytest.param((99.0, 101.0, 99.0, 101.0, 99.0), 2.81, id="two-kinds-of-process"),
        pytest.param((100.0, 100.2, 110.0), 14.0, id="one-was-disturbed"),
    ],
)
def test_processes_too_far_apart_make_no_baseline(values: tuple[float, ...], excess: float | None) -> None:
    assert excess_spread(values, NOISE) == (None if excess is None else pytest.approx(excess, abs=0.05))


def test_ten_accepted_steps_of_one_percent_are_seen_and_fail_at_the_bound() -> None:
    first = (100.0, 100.2, 99.8)
    drifts = [drift(first, [each * 1.01**steps for each in first], LOWER) for steps in range(11)]
    assert [each.is_beyond for each in drifts] == [False] * 5 + [True] * 6
    assert drifts[4].change_pct == pytest.approx(4.060, abs=1e-3)
    assert drifts[10].change_pct == pytest.approx(10.462, abs=1e-3)
    assert drifts[10].limit_pct == pytest.approx(5.0)


def test_improvements_add_up_to_nothing_that_fails() -> None:
    assert not drift((100.0,), (50.0,), LOWER).is_beyond
    assert not drift((2.0,), (3.0,), HIGHER).is_beyond
    assert drift((2.0,), (1.89,), HIGHER).is_beyond
    assert not drift((2.0,), (1.89,), HIGHER, limit_pct=6.0).is_beyond
