"""Which package is named, how often that is right, and how often chance is told from a change."""

from __future__ import annotations

import math
import random
from collections import Counter
from itertools import product

import pytest

from perf_tests.harness.attribution import shares
from perf_tests.harness.attribution.shares import StackChange
from perf_tests.harness.records.attributions import Blame
from perf_tests.harness.runs.record import Status
from perf_tests.harness.stats.pairs import decide, pair_test
from perf_tests.harness.stats.sequential_bounds import SequentialTest
from perf_tests.harness.verdicts import ab_comparison
from perf_tests.tables.platforms import Noise

NOISE = Noise(sd_pct=0.36, dof=40)
"""As measured between processes on an H100."""
NIGHTS = 2000


def exact(value: float) -> StackChange:
    return StackChange(value=value)


# What is exact


@pytest.mark.parametrize(
    ("cells", "blame", "torch", "torchao"),
    [
        # y00, y10, y01, y11
        ((10.0, 14.0, 10.0, 14.0), Blame.TORCH, 4.0, 0.0),
        ((10.0, 10.0, 14.0, 14.0), Blame.TORCHAO, 0.0, 4.0),
        ((10.0, 12.0, 12.0, 14.0), Blame.EACH, 2.0, 2.0),
        ((10.0, 10.0, 10.0, 14.0), Blame.TOGETHER, 2.0, 2.0),
        ((10.0, 14.0, 14.0, 14.0), Blame.EITHER, 2.0, 2.0),
        ((10.0, 13.0, 11.0, 14.0), Blame.EACH, 3.0, 1.0),
        ((10.0, 8.0, 16.0, 14.0), Blame.TORCHAO, -2.0, 6.0),
        ((10.0, 10.0, 10.0, 10.0), Blame.NOT_REPRODUCED, 0.0, 0.0),
    ],
)
def test_four_exact_cells_name_the_package(
    cells: tuple[float, float, float, float], blame: Blame, torch: float, torchao: float
) -> None:
    good, new_torch, new_torchao, new = cells
    whole, mixed = exact(new - good), exact(new_torch - new_torchao)
    assert shares.blame(whole, mixed, exact(new_torch - good)) is blame
    assert [each.value for each in shares.shares(whole, mixed)] == [torch, torchao]


def test_without_a_third_difference_both_is_all_that_is_known() -> None:
    assert shares.blame(exact(4.0), exact(0.0), None) is Blame.BOTH


# Intervals


def test_a_share_of_two_diagonals_of_five_pairs_has_an_error_of_a_sixth_of_a_percent() -> None:
    diagonal = shares.of_pairs(0.015, 5, NOISE)
    assert diagonal.half == pytest.approx(2.0211 * 0.0036 * math.sqrt(2 / 5), rel=1e-4)
    torch, torchao = shares.shares(diagonal, diagonal)
    assert (torch.value, torchao.value) == (0.015, 0.0)
    assert torch.half / 2.0211 == pytest.approx(0.0016, rel=0.02)


def test_mixed_stacks_close_to_half_of_the_whole_are_not_clear() -> None:
    whole = StackChange(value=0.015, half=0.004)
    assert shares.is_clear(whole, StackChange(value=0.015, half=0.004))
    assert shares.is_clear(whole, StackChange(value=0.0, half=0.004))
    assert not shares.is_clear(whole, StackChange(value=0.009, half=0.004))
    assert not shares.is_clear(whole, StackChange(value=-0.004, half=0.004))


def test_torch_alone_close_to_a_quarter_beyond_its_share_is_not_clear() -> None:
    whole, mixed = StackChange(value=0.016, half=0.002), StackChange(value=0.0, half=0.002)
    assert shares.is_clear_alone(whole, mixed, StackChange(value=0.0, half=0.002))
    assert shares.is_clear_alone(whole, mixed, StackChange(value=0.008, half=0.002))
    assert not shares.is_clear_alone(whole, mixed, StackChange(value=0.0035, half=0.002))


@pytest.mark.parametrize(
    ("twin", "excluded"),
    [
        (StackChange(value=0.014, half=0.004), True),
        (StackChange(value=0.008, half=0.004), True),
        (StackChange(value=0.007, half=0.004), False),  # less than half
        (StackChange(value=0.008, half=0.009), False),  # undecided
        (StackChange(value=-0.02, half=0.004), False),
    ],
)
def test_a_twin_excludes_torchao_only_where_it_moved_for_certain_and_by_half(
    twin: StackChange, excluded: bool
) -> None:
    assert shares.excludes_torchao(StackChange(value=0.015, half=0.004), twin) is excluded


# How often it is right


def pairs(chance: random.Random, effect_pct: float, count: int) -> list[float]:
    """Log ratios of so many pairs of fresh processes."""
    sd, effect = NOISE.sd_pct / 100, math.log1p(effect_pct / 100)
    return [effect + chance.gauss(0, sd) - chance.gauss(0, sd) for _ in range(count)]


def measured(chance: random.Random, effect_pct: float, count: int = 5) -> StackChange:
    return shares.of_pairs(math.fsum(pairs(chance, effect_pct, count)) / count, count, NOISE)


def answers(
    whole_pct: float, mixed_pct: float, torch_pct: float | None = None, count: int = 5
) -> Counter[Blame]:
    """What is answered in so many nights whose true differences are these."""
    chance = random.Random(20261127)
    return Counter(
        shares.blame(
            measured(chance, whole_pct, count),
            measured(chance, mixed_pct, count),
            None if torch_pct is None else measured(chance, torch_pct, count),
        )
        for _ in range(NIGHTS)
    )


@pytest.mark.parametrize(("mixed_pct", "blame"), [(1.5, Blame.TORCH), (-1.5, Blame.TORCHAO)])
def test_the_package_is_right_in_97_of_100_at_one_and_a_half_percent(mixed_pct: float, blame: Blame) -> None:
    assert answers(1.5, mixed_pct)[blame] / NIGHTS >= 0.97


def test_both_is_recognised_in_95_of_100_at_one_and_a_half_percent() -> None:
    assert answers(1.5, 0.0)[Blame.BOTH] / NIGHTS >= 0.95


@pytest.mark.parametrize(
    ("torch_pct", "blame"), [(0.75, Blame.EACH), (0.0, Blame.TOGETHER), (1.5, Blame.EITHER)]
)
def test_ten_pairs_tell_the_kind_of_both(torch_pct: float, blame: Blame) -> None:
    assert answers(1.5, 0.0, torch_pct, count=10)[blame] / NIGHTS >= 0.90


def test_a_true_share_lies_in_its_interval_in_95_of_100() -> None:
    chance, inside = random.Random(1), Counter[bool]()
    for _ in range(NIGHTS):
        torch, _ = shares.shares(measured(chance, 1.5), measured(chance, 0.9))
        inside[abs(torch.value - math.log1p(0.012)) <= torch.half] += 1
    assert 0.94 <= inside[True] / NIGHTS <= 0.97


def test_a_time_that_is_red_by_chance_is_not_reproduced_in_95_of_100() -> None:
    test = pair_test(NOISE, ab_comparison.level(208), max_pairs=10)
    assert 1 - confirmed(test, effect_pct=0.0) >= 0.95


def test_a_slowdown_of_one_and_a_half_percent_is_confirmed() -> None:
    test = pair_test(NOISE, ab_comparison.LEVEL, max_pairs=10)
    assert confirmed(test, effect_pct=1.5) >= 0.95


def confirmed(test: SequentialTest, effect_pct: float) -> float:
    """The share of nights in which pairs confirm a red time."""
    chance, nights = random.Random(3), 500
    found = 0
    for _ in range(nights):
        logs = pairs(chance, effect_pct, 10)
        looks = (decide(test, [math.exp(each) for each in logs[:k]]) for k in range(5, 11))
        found += next(each.status for each in looks if each.status) is Status.REGRESSED
    return found / nights


def test_no_effect_is_blamed_on_no_package() -> None:
    small = (0.0, 0.001)
    for whole, mixed in product(small, small):
        noisy = StackChange(value=whole, half=0.002)
        assert shares.blame(noisy, StackChange(value=mixed, half=0.002), None) is Blame.NOT_REPRODUCED
