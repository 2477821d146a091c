from __future__ import annotations

from collections.abc import Sequence

import pytest

from perf_tests.harness.stats.over_images import growth_per_image, trend_pct

SLOWS = (1.0, 1.02, 1.04, 1.06, 1.08)


@pytest.mark.parametrize(
    ("mib", "growth"),
    [
        ((100.0, 116.0, 132.0, 148.0, 164.0), 16.0),
        # What the first image leaves behind is no leak.
        ((100.0, 900.0, 900.0, 900.0), 0.0),
        ((100.0, 100.0, 100.0, 103.0), 1.5),
        ((900.0, 900.0, 100.0), -800.0),
    ],
)
def test_growth_is_that_from_the_second_image_to_the_last(mib: Sequence[float], growth: float) -> None:
    assert growth_per_image(mib) == growth


@pytest.mark.parametrize(
    ("seconds", "clocks_mhz", "pct"),
    [
        pytest.param(SLOWS, (1500.0,) * 5, 8.0, id="slows-down"),
        pytest.param(SLOWS, (), 8.0, id="no-clock"),
        pytest.param((1.0, 1.02, 1.04, 1.03, 1.08), (1500.0,) * 5, 0.0, id="not-in-order"),
        pytest.param((1.0, 1.02, 1.02, 1.06, 1.08), (1500.0,) * 5, 0.0, id="two-alike"),
        pytest.param(SLOWS[::-1], (1500.0,) * 5, 0.0, id="becomes-faster"),
        pytest.param(SLOWS, (1620.0, 1590.0, 1560.0, 1530.0, 1500.0), 0.0, id="clock-falls-as-much"),
        pytest.param(SLOWS, (1500.0, 1525.0, 1550.0, 1575.0, 1600.0), 8.0, id="clock-rises"),
    ],
)
def test_trend_is_what_the_images_add_that_the_clock_does_not_explain(
    seconds: Sequence[float], clocks_mhz: Sequence[float], pct: float
) -> None:
    assert trend_pct(seconds, clocks_mhz) == pytest.approx(pct, abs=1e-9)
