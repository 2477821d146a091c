from __future__ import annotations

import math

import pytest

from perf_tests.harness.stats.location import (
    geometric_mean,
    log_mean,
    log_variance,
    pooled_noise,
    trimmed_mean,
)
from perf_tests.tables.platforms import Noise


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        pytest.param((3.0,), 3.0, id="one"),
        pytest.param((3.0, 4.0), 3.5, id="two"),
        pytest.param((9.0, 2.0, 1.0), 2.0, id="three-give-the-median"),
        pytest.param((1.0, 90.0, 2.0, 3.0), 2.5, id="four-too"),
        pytest.param((1.0, 2.0, 3.0, 7.0, 90.0), 4.0, id="five-without-the-ends"),
        pytest.param((*range(1, 20), 900.0), 10.5, id="two-of-twenty-at-each-end"),
    ],
)
def test_trimmed_mean_leaves_a_tenth_out_at_each_end(values: tuple[float, ...], expected: float) -> None:
    assert trimmed_mean(values) == trimmed_mean(values[::-1]) == pytest.approx(expected)


def test_logarithms_have_a_mean_and_a_variance() -> None:
    assert log_mean((1.0, math.e**2)) == pytest.approx(1.0)
    assert log_variance((1.0, math.e, math.e**2)) == pytest.approx(1.0)


@pytest.mark.parametrize("value", [0.0, -1.0, math.inf, math.nan])
def test_what_is_not_positive_has_no_logarithm(value: float) -> None:
    with pytest.raises(ValueError, match="has no relative change"):
        log_mean((1.0, value))


def test_noise_is_pooled_over_cases_by_their_degrees_of_freedom() -> None:
    prior = Noise(sd_pct=2.0, dof=4)
    spread = [math.exp(0.01 * z) for z in (-1.0, 0.0, 1.0)]  # 1 % with 2 degrees of freedom
    noise = pooled_noise([[100 * each for each in spread], [7 * each for each in spread], [5.0]], prior)
    assert noise.dof == 8
    # sqrt((4 x 2^2 + 2 x 1^2 + 2 x 1^2) / 8)
    assert noise.sd_pct == pytest.approx(1.5811, abs=1e-4)


def test_without_baselines_the_noise_is_what_the_platform_is_known_for() -> None:
    assert pooled_noise([], Noise(sd_pct=0.36, dof=6)) == Noise(sd_pct=0.36, dof=6)


def test_geometric_mean_of_equal_values_is_that_value() -> None:
    assert geometric_mean((0.1,) * 3) == 0.1
    assert geometric_mean((1.0, 4.0)) == pytest.approx(2.0)
