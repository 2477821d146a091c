"""What pairs of two stacks of an attribution say of a time, undisturbed and disturbed."""

from __future__ import annotations

import math
from functools import partial

import pytest

from perf_tests.harness.attribution import diagonals, shares
from perf_tests.harness.attribution.diagonals import PairQuestion
from perf_tests.harness.attribution.shares import StackChange
from perf_tests.harness.records.attributions import Blame
from perf_tests.harness.runs.record import Status
from perf_tests.tables.platforms import Noise
from perf_tests.unit.builders import MINI_INT8WO, metric_named
from perf_tests.unit.harness.verdicts.pairs import QUIET, SCATTERED, compared

NOISE = Noise(sd_pct=0.36, dof=24)
STEP = metric_named("denoise_step_ms")
QUESTION = PairQuestion(case=MINI_INT8WO, time=STEP, noise=NOISE, least_pairs=5, most_pairs=10)
WHOLE = diagonals.change_of(compared(*SCATTERED), STEP, NOISE)
"""+19.7 %, of pairs that scatter."""
is_clear = partial(shares.is_clear, WHOLE)


def change(*ratios: float) -> StackChange:
    return diagonals.change_of(compared(*ratios), STEP, NOISE)


def test_undisturbed_pairs_are_held_to_the_noise_of_the_platform() -> None:
    assert change(*QUIET).half == pytest.approx(0.0047, abs=1e-4)


def test_pairs_that_scatter_are_held_to_their_own_noise() -> None:
    assert (WHOLE.value, WHOLE.half) == pytest.approx((math.log(1.1970), 0.0492), abs=1e-4)
    assert WHOLE.is_worse


def test_mixed_stacks_that_scatter_as_well_name_the_package() -> None:
    found = diagonals.judge(QUESTION, is_clear, compared(*SCATTERED))
    assert found is not None
    assert (found.status, len(found.verdicts)) == (Status.PASS, 1)
    assert shares.blame(WHOLE, change(*SCATTERED), None) is Blame.TORCH


def test_scattered_pairs_near_half_of_the_whole_take_more_and_then_say_nothing() -> None:
    near_half = (1.02, 1.18, 1.06, 1.14, 1.10)
    assert diagonals.judge(QUESTION, is_clear, compared(*near_half)) is None
    found = diagonals.judge(QUESTION, is_clear, compared(*near_half, *near_half))
    assert found is not None
    assert (found.status, found.verdicts) == (Status.INCONCLUSIVE, ())
    assert found.reason == "the pairs scatter 10.7 times more than the platform's noise allows for"


def test_undisturbed_pairs_near_half_of_the_whole_are_judged_at_the_last() -> None:
    near_half = tuple(ratio * 1.094 for ratio in QUIET)
    assert diagonals.judge(QUESTION, is_clear, compared(*near_half)) is None
    found = diagonals.judge(QUESTION, is_clear, compared(*near_half, *near_half))
    assert found is not None
    assert [verdict.metric for verdict in found.verdicts] == ["denoise_step_ms"]
