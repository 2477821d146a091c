"""Critical values against published and independently known numbers."""

from __future__ import annotations

import math

import pytest

from perf_tests.harness.stats.critical_values import at_least, at_most, change_limit, spread_limit


@pytest.mark.parametrize(
    ("level", "dof", "quantile"),
    [
        pytest.param(0.025, 10, 2.228139, id="student-10"),
        pytest.param(0.025, 60, 2.000298, id="student-60"),
        pytest.param(0.0005, 6, 5.958816, id="student-6-far-out"),
        pytest.param(0.00001, 60, 4.631252, id="student-60-far-out"),
    ],
)
def test_single_look_is_students_t(level: float, dof: int, quantile: float) -> None:
    assert change_limit(level, 5, (1,), dof) == pytest.approx(quantile, rel=1e-5)


@pytest.mark.parametrize(
    ("looks", "limit"),
    [
        # Jennison and Turnbull, table 2.1: Pocock's constants at the two-sided level 0.05.
        pytest.param((1, 2), 2.178, id="two"),
        pytest.param((1, 2, 3, 4, 5), 2.413, id="five"),
    ],
)
def test_equal_steps_of_information_give_pococks_constants(looks: tuple[int, ...], limit: float) -> None:
    # A baseline without error, and a known sd. Both sides of 0.05 hardly ever happen together.
    assert change_limit(0.025, 1e9, looks, 100_000) == pytest.approx(limit, abs=2e-3)


def test_error_of_the_baseline_is_common_to_all_looks() -> None:
    # Checked with scipy's multivariate normal. The fewer baseline processes, the less a look adds.
    looks = (1, 2, 3, 4, 5)
    assert change_limit(0.025, 1, looks, 100_000) == pytest.approx(2.2629, abs=1e-3)
    assert change_limit(0.025, 5, looks, 100_000) == pytest.approx(2.3606, abs=1e-3)


@pytest.mark.parametrize(
    ("level", "values", "dof", "quantile"),
    [
        pytest.param(0.05, 5, 60, 2.525215, id="f-4-60"),
        pytest.param(0.00002, 5, 60, 8.354413, id="f-4-60-far-out"),
        pytest.param(0.00002, 2, 60, 21.448495, id="f-1-60-far-out"),
    ],
)
def test_spread_is_judged_by_f(level: float, values: int, dof: int, quantile: float) -> None:
    assert spread_limit(level, values, dof) == pytest.approx(quantile, rel=1e-5)


def test_rates_are_bounded_as_by_clopper_and_pearson() -> None:
    assert at_most(0, 100) == pytest.approx(1 - 0.05 ** (1 / 100), rel=1e-5)
    assert at_most(3, 100) == pytest.approx(0.0757, abs=1e-4)
    assert at_least(3, 100) == pytest.approx(0.0082, abs=1e-4)
    assert at_most(100, 100) == 1.0
    assert at_least(100, 100) == pytest.approx(0.05 ** (1 / 100), rel=1e-5)


def test_bounds_of_large_counts_are_those_of_a_normal_rate() -> None:
    sd = math.sqrt(0.05 * 0.95 / 200_000)
    assert at_most(10_000, 200_000) == pytest.approx(0.05 + 1.645 * sd, abs=1e-5)
