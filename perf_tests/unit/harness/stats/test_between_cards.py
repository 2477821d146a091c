"""The rule between cards, on processes of 16 H100s: what it says of unchanged code, and what it sees.

`data/h100-between-cards.csv` holds the trimmed mean of a step and of the decodings of 46 processes, of rows
that were measured on two cards or more, all with one stack.
"""

from __future__ import annotations

import csv
import dataclasses
import math
from functools import cache
from itertools import permutations
from pathlib import Path

import numpy as np
import pytest

from perf_tests.harness.runs.record import Status
from perf_tests.harness.stats import location
from perf_tests.harness.stats.sequential_bounds import SequentialTest, decide, metric_level
from perf_tests.harness.stats.simulation import NOISE_MODELS, tally
from perf_tests.tables.platforms import H100, Device, Noise
from perf_tests.unit.builders import metric_named

FILE = Path(__file__).parents[2] / "data" / "h100-between-cards.csv"
TIMES = ("denoise_step_ms", "decode_ms")
PROCESSES = Noise(sd_pct=0.36, dof=60)
each_time = pytest.mark.parametrize("name", TIMES)


@cache
def recorded(name: str) -> dict[str, dict[str, list[float]]]:
    """Case -> card -> the value of each process."""
    found: dict[str, dict[str, list[float]]] = {}
    with FILE.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            found.setdefault(row["case"], {}).setdefault(row["card"], []).append(float(row[name]))
    return found


def make_test(name: str, baseline: int, *, between: bool = True, metrics: int = 60) -> SequentialTest:
    gate = metric_named(name).gates[Device.CUDA]
    assert gate.surprise is not None
    return SequentialTest(
        noise=PROCESSES,
        level=metric_level(metrics),
        baseline_processes=baseline,
        max_processes=5,
        tolerance_pct=gate.tolerance.relative_pct,
        surprise_pct=gate.surprise.relative_pct,
        between=H100.between_cards[name] if between else None,
    )


def test_every_row_was_measured_on_several_cards() -> None:
    cards = recorded("decode_ms").values()
    assert min(map(len, cards)) == 2
    assert len(set().union(*cards)) == 16
    assert sum(len(values) for each in cards for values in each.values()) == 46


@each_time
def test_the_table_says_how_far_cards_lie_apart(name: str) -> None:
    squares, degrees = 0.0, 0
    for cards in recorded(name).values():
        means = [location.geometric_mean(values) for values in cards.values()]
        squares += (len(means) - 1) * location.log_variance(means)
        degrees += len(means) - 1
    measured_pct = 100 * math.sqrt(squares / degrees)
    assert H100.between_cards[name].sd_pct == pytest.approx(measured_pct, abs=0.01)


def test_rows_that_share_cards_have_fewer_degrees_of_freedom_than_rows() -> None:
    """If the cards were all that differs: 2 (mean / sd)^2 of the estimated variance is its freedom."""
    rows = [sorted(cards) for cards in recorded("decode_ms").values()]
    names = sorted(set().union(*rows))
    effects = np.random.default_rng(1).standard_normal((20_000, len(names)))
    squares = sum(effects[:, [names.index(card) for card in row]].var(axis=1) * len(row) for row in rows)
    variance = squares / sum(len(row) - 1 for row in rows)
    freedom = 2 * variance.mean() ** 2 / variance.var()
    assert freedom == pytest.approx(7.8, abs=0.2)
    assert all(each.dof == math.floor(freedom) for each in H100.between_cards.values())


@each_time
def test_no_pair_of_recorded_cards_is_red(name: str) -> None:
    statuses = [
        decide(make_test(name, len(before)), before, now[:5], metric_named(name).better).status
        for cards in recorded(name).values()
        for before, now in permutations(cards.values(), 2)
    ]
    assert len(statuses) == 96
    assert set(statuses) <= {Status.PASS, Status.IMPROVED, None}


@pytest.mark.parametrize(
    ("name", "slower_pct", "least"), [("denoise_step_ms", 10, 0.9), ("decode_ms", 5, 0.9)]
)
def test_a_change_is_seen_on_most_recorded_cards(name: str, slower_pct: float, least: float) -> None:
    factor = 1 + slower_pct / 100
    seen = [
        decide(make_test(name, len(before)), before, [factor * now[0]] * 5, metric_named(name).better).status
        for cards in recorded(name).values()
        for before, now in permutations(cards.values(), 2)
    ]
    assert seen.count(Status.REGRESSED) >= least * len(seen)


@pytest.mark.parametrize(
    ("name", "sees_pct"), [pytest.param("denoise_step_ms", 10.0), pytest.param("decode_ms", 4.5)]
)
def test_unchanged_code_on_another_card_is_red_as_rarely_as_on_the_same(name: str, sees_pct: float) -> None:
    test = dataclasses.replace(make_test(name, 3), noise=dataclasses.replace(PROCESSES, sd_pct=0.37))
    model = dataclasses.replace(NOISE_MODELS["stalls"], card_sd_pct=H100.between_cards[name].sd_pct)
    unchanged, slower = (
        tally(model, test, effect_pct=effect, runs=runs, metrics=60, processes=5_000, seed=1)
        for effect, runs in ((0.0, 4_000), (sees_pct, 400))
    )
    assert unchanged.red / unchanged.metrics <= test.level
    assert unchanged.red_runs / 4_000 <= 0.05
    assert slower.statuses[Status.REGRESSED] >= 0.94 * slower.metrics
    assert test.detectable_pct <= sees_pct


def test_the_noise_of_cards_alone_would_make_unchanged_code_red() -> None:
    """What the rule for the same card would say: it is why there is another one."""
    model = dataclasses.replace(NOISE_MODELS["stalls"], card_sd_pct=0.82)
    of_cards = make_test("denoise_step_ms", 3)
    blind = dataclasses.replace(of_cards, between=Noise(sd_pct=0.01, dof=7))
    reds = [
        tally(model, test, effect_pct=0.0, runs=500, metrics=60, processes=5_000, seed=1).red
        for test in (of_cards, blind)
    ]
    assert reds[0] <= 30
    assert reds[1] > 3_000


@each_time
def test_cards_matter_to_the_limit_and_not_to_the_spread(name: str) -> None:
    same, other = make_test(name, 3, between=False), make_test(name, 3)
    assert other.bounds(2).regressed > 1.3 * same.bounds(2).regressed
    assert other.bounds(2).spread == same.bounds(2).spread
    assert other.process_error(2) == same.standard_error(2)
