"""The gate is tested itself: its error rates on seeded noise, by the bounds of the simulated rates."""

from __future__ import annotations

import math
import runpy
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from perf_tests.harness.runs.record import Status
from perf_tests.harness.stats.critical_values import at_least, at_most
from perf_tests.harness.stats.location import trimmed_mean
from perf_tests.harness.stats.sequential_bounds import SequentialTest, decide, metric_level
from perf_tests.harness.stats.simulation import (
    NOISE_MODELS,
    STATUSES,
    Tally,
    library,
    outcomes,
    statistic_sd_pct,
    tally,
)
from perf_tests.tables.metrics.spec import Better
from perf_tests.tables.platforms import Noise

TOOL = runpy.run_path(str(Path(__file__).resolve().parents[4] / "tools" / "power.py"))

LIBRARY = 4_000
RUNS = 2_000
"""Of 60 metrics, for false alarms: 120,000 metrics, of which 102 may be red."""
LEVEL = 0.00085
"""Any red verdict on unchanged code."""


@cache
def known_sd_pct(model: str) -> float:
    return statistic_sd_pct(
        NOISE_MODELS[model], library(NOISE_MODELS[model], LIBRARY, np.random.default_rng(0))
    )


def make_test(
    model: str = "stalls", *, metrics: int = 60, baseline: int = 5, most: int = 5, dof: int = 60
) -> SequentialTest:
    """The platform's noise is that of `model`."""
    return SequentialTest(
        noise=Noise(sd_pct=known_sd_pct(model), dof=dof),
        level=metric_level(metrics),
        baseline_processes=baseline,
        max_processes=most,
        tolerance_pct=0.75,
        surprise_pct=10.0,
    )


@cache
def simulated(
    model: str, test: SequentialTest, *, effect_pct: float = 0.0, runs: int = RUNS, metrics: int = 60
) -> Tally:
    return tally(
        NOISE_MODELS[model],
        test,
        effect_pct=effect_pct,
        runs=runs,
        metrics=metrics,
        processes=LIBRARY,
        seed=7,
    )


# Unchanged code


def test_a_quiet_night_in_eight_shards_is_red_as_rarely_as_in_one() -> None:
    # 8 shards of 62 metrics: with the level of all 496, 3.5 % of the nights are red, with their own 18 %.
    night = simulated("stalls", make_test(metrics=496), metrics=496)
    assert metric_level(496) == pytest.approx(0.05 / 496)
    assert at_most(night.red_runs, RUNS) <= 0.05
    each_by_itself = simulated("stalls", make_test(metrics=62), runs=1_000, metrics=496)
    assert at_least(each_by_itself.red_runs, 1_000) >= 0.15


@pytest.mark.parametrize("model", ["clean", "process effects", "stalls", "drift", "bimodal"])
def test_unchanged_code_is_red_no_more_often_than_stated(model: str) -> None:
    seen = simulated(model, make_test(model if model == "bimodal" else "stalls"))
    assert at_most(seen.red, seen.metrics) <= LEVEL
    assert at_most(seen.red_runs, RUNS) <= 0.05


@pytest.mark.parametrize(
    "settings",
    [
        pytest.param({"dof": 40}, id="noise-less-well-known"),
        pytest.param({"baseline": 3}, id="three-processes"),
        pytest.param({"baseline": 1}, id="provisional"),
        pytest.param({"most": 1}, id="one-candidate"),
        pytest.param({"most": 3}, id="three-candidates"),
    ],
)
def test_stated_rate_holds_under_all_settings(settings: dict[str, Any]) -> None:
    seen = simulated("stalls", make_test(**settings))
    assert at_most(seen.red, seen.metrics) <= LEVEL


def test_many_more_metrics_are_no_redder_together() -> None:
    runs = 600
    seen = simulated("stalls", make_test(metrics=186), runs=runs, metrics=186)
    assert at_most(seen.red_runs, runs) <= 0.055  # 600 runs bound a true 3.5 % no closer
    assert at_most(seen.red, seen.metrics) <= LEVEL / 2


def test_most_unchanged_metrics_take_one_process() -> None:
    seen = simulated("stalls", make_test(), runs=500)
    assert seen.processes / seen.metrics < 1.2


def test_as_long_as_the_noise_is_the_platforms_a_verdict_is_reached() -> None:
    seen = simulated("stalls", make_test())
    assert at_most(seen.statuses[Status.INCONCLUSIVE], seen.metrics) <= LEVEL / 10
    assert sum(seen.statuses.values()) == seen.metrics


# Changed code


@pytest.mark.parametrize("dof", [60, 100])
def test_one_and_a_half_percent_are_seen(dof: int) -> None:
    seen = simulated("stalls", make_test(dof=dof), effect_pct=1.5, runs=500)
    assert at_least(seen.statuses[Status.REGRESSED], seen.metrics) >= 0.95


def test_one_and_a_half_percent_are_seen_among_186_metrics() -> None:
    # 62 cases of three metrics, five processes each, know the noise with 248 degrees of freedom.
    seen = simulated("stalls", make_test(metrics=186, dof=248), effect_pct=1.5, runs=160, metrics=186)
    assert at_least(seen.statuses[Status.REGRESSED], seen.metrics) >= 0.95


def test_three_percent_are_seen_with_three_processes_at_most() -> None:
    seen = simulated("stalls", make_test(), effect_pct=3.0, runs=500)
    assert at_least(seen.regressed_by_look[2], seen.metrics) >= 0.999
    shorter = simulated("stalls", make_test(most=3), effect_pct=3.0, runs=500)
    assert at_least(shorter.statuses[Status.REGRESSED], shorter.metrics) >= 0.999


@pytest.mark.parametrize("baseline", [1, 3, 5])
def test_smallest_detectable_change_is_detected(baseline: int) -> None:
    test = make_test(baseline=baseline)
    seen = simulated("stalls", test, effect_pct=test.detectable_pct, runs=500)
    # 0.951 with a baseline of 3: 30,000 metrics bound that no closer.
    assert at_least(seen.statuses[Status.REGRESSED], seen.metrics) >= 0.949


# Noise that the platform does not know


def test_kernels_chosen_by_chance_are_refused_as_a_baseline() -> None:
    seen = simulated("bimodal", make_test(), runs=200)
    assert at_least(seen.refused, seen.refused + seen.metrics) >= 0.70


def test_slowed_down_process_is_not_a_regression_of_the_code() -> None:
    seen = simulated("throttled", make_test(), runs=500)
    assert at_most(seen.statuses[Status.REGRESSED], seen.metrics) <= 0.002
    assert at_least(seen.statuses[Status.INCONCLUSIVE], seen.metrics) >= 0.015


def test_baseline_with_a_slowed_process_is_refused() -> None:
    seen = simulated("throttled", make_test(), runs=200)
    # One of five processes in 1 - 0.98^5 of the baselines.
    assert at_least(seen.refused, seen.refused + seen.metrics) >= 0.085


# The other gates, on the same processes


def test_other_gates_cry_wolf_and_miss() -> None:
    quiet, slow = (
        simulated("stalls", make_test(), effect_pct=effect_pct, runs=500) for effect_pct in (0.0, 3.0)
    )
    assert at_least(quiet.mean_gate, quiet.metrics) > 10 * LEVEL
    assert at_least(quiet.single_gate, quiet.metrics) > 8 * LEVEL
    assert at_most(slow.mean_gate, slow.metrics) < 0.20
    assert at_most(slow.single_gate, slow.metrics) < 0.03


# The simulation itself


def test_vectorised_rule_is_the_rule() -> None:
    rng = np.random.default_rng(5)
    test, shape = make_test(), (400, 10)
    centre = rng.choice([0.0, 0.008, 0.012, 0.03, -0.02, -0.15], size=(400, 1))
    times = rng.choice([0.003, 0.03], size=(400, 1)) * rng.standard_normal(shape)
    times[:, 5:] += centre
    found = outcomes(test, np.ones(400), times[:, :5], times[:, 5:])
    assert {STATUSES[each] for each in found.status} == set(STATUSES)
    for row, status, processes in zip(np.exp(times), found.status, found.processes, strict=True):
        looks = [decide(test, row[:5], row[5 : 5 + k], Better.LOWER).status for k in range(1, 6)]
        ended = next(look for look, each in enumerate(looks) if each is not None)
        assert (STATUSES[status], processes) == (looks[ended], ended + 1)


def test_process_is_the_trimmed_mean_of_its_steps() -> None:
    model = NOISE_MODELS["stalls"]
    of = library(model, LIBRARY, np.random.default_rng(3))
    # 7 images of 25 steps of 2 %: 2 / sqrt(175) = 0.151, times 1.03.
    assert 100 * float(of.log_step.std()) == pytest.approx(0.156, abs=0.006)
    # A stall costs 20 % of every 25th image: 0.8 % of the mean, and next to nothing of the statistic.
    assert float(of.mean_image.mean()) == pytest.approx(1.008, abs=0.001)
    assert float(of.log_step.mean()) == pytest.approx(0.0, abs=0.0005)
    assert known_sd_pct("stalls") == pytest.approx(math.hypot(0.36, 0.156), abs=0.006)


def test_trimmed_mean_varies_less_than_a_median_and_stands_stalls_a_mean_does_not() -> None:
    rng = np.random.default_rng(4)
    steps = 1 + 0.02 * rng.standard_normal((1500, 75))
    steps[rng.random(1500) < 0.12, 10] += 5.0
    trimmed, medians, means = (
        float(np.std([of(row) for row in steps])) for of in (trimmed_mean, np.median, np.mean)
    )
    assert trimmed < 0.9 * medians < 0.5 * means


def test_same_seed_gives_the_same_tally() -> None:
    one, other = (simulated("stalls", make_test(), runs=20) for _ in range(2))
    assert one == other


def test_tool_prints_the_three_gates(capsys: pytest.CaptureFixture[str]) -> None:
    settings = ("--simulated", "6000", "--metrics", "60", "--effect", "3", "--images", "2", "--dof", "60")
    assert TOOL["main"](settings) == 0
    printed = capsys.readouterr().out
    table = [line for line in printed.splitlines() if line.startswith("|")]
    assert table[0] == "| gate | red, a metric | red, a run of 60 | misses +3 % |"
    assert [line.split("|")[1].strip() for line in table[2:]] == [
        "this suite",
        "`--benchmark-compare-fail=mean:5%`",
        "one request, 25 %",
    ]
    assert "2 images of 25 steps" in printed
