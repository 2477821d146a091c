"""Which of two packages made something worse, from the differences between the four stacks; pure.

With y(torch, torchao) in any cell, 0 as it last was good and 1 new, the two diagonals are

    D1 = y11 - y00   the whole change, which a comparison with the good stack has measured
    D2 = y10 - y01   the two mixed stacks against each other

and (D1 + D2) / 2 is torch's share, (D1 - D2) / 2 torchao's: each the mean of what its package changes with
the other one good and with the other one new (Shapley), so that they add up to the whole whatever the two do
together. Beyond half of D1 either way D2 names a package. Between, a third difference tells what both means:

    T0 = y10 - y00   torch alone; near its share each does its part, near nothing they need each other,
                     near the whole either is enough

Worse is positive. Times are in logarithms; what is exact is in its own units and has no error.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from perf_tests.harness.records.attributions import Blame
from perf_tests.harness.stats import critical_values
from perf_tests.tables.platforms import Noise


@dataclass(frozen=True, kw_only=True, slots=True)
class StackChange:
    """How much worse one stack is than another, with half its 95 % interval."""

    value: float
    half: float = 0.0
    """0 for what is exact."""

    def plus(self, other: StackChange, times: float) -> StackChange:
        """`self + times * other`, the errors of the two being independent."""
        return StackChange(
            value=self.value + times * other.value, half=math.hypot(self.half, times * other.half)
        )

    def scaled(self, times: float) -> StackChange:
        """So many times the difference."""
        return StackChange(value=times * self.value, half=abs(times) * self.half)

    @property
    def is_worse(self) -> bool:
        """Whether the whole interval is for the worse."""
        return self.value - self.half > 0


def of_pairs(log_change: float, pairs: int, noise: Noise) -> StackChange:
    """The difference of a time, the mean over so many pairs; `noise` is that of a process."""
    error = noise.sd_pct / 100 * math.sqrt(2 / pairs)
    return StackChange(value=log_change, half=critical_values.change_limit(0.025, 1, (1,), noise.dof) * error)


def shares(whole: StackChange, mixed: StackChange) -> tuple[StackChange, StackChange]:
    """What comes from torch and what from torchao; together they are the whole."""
    return whole.plus(mixed, 1).scaled(0.5), whole.plus(mixed, -1).scaled(0.5)


def blame(whole: StackChange, mixed: StackChange, torch_alone: StackChange | None) -> Blame:
    """Where `whole` comes from; BOTH where only `torch_alone` could tell how."""
    if not whole.is_worse:
        return Blame.NOT_REPRODUCED
    half = whole.value / 2
    if mixed.value > half:
        return Blame.TORCH
    if mixed.value < -half:
        return Blame.TORCHAO
    return Blame.BOTH if torch_alone is None else _kind_of_both(whole, mixed, torch_alone)


def _kind_of_both(whole: StackChange, mixed: StackChange, torch_alone: StackChange) -> Blame:
    beyond_share = torch_alone.value - shares(whole, mixed)[0].value
    quarter = whole.value / 4
    if beyond_share < -quarter:
        return Blame.TOGETHER
    return Blame.EITHER if beyond_share > quarter else Blame.EACH


def is_clear(whole: StackChange, mixed: StackChange) -> bool:
    """Whether more pairs of the mixed stacks would hardly name another package."""
    return all(
        abs(distance.value) > distance.half for distance in (mixed.plus(whole, 0.5), mixed.plus(whole, -0.5))
    )


def is_clear_alone(whole: StackChange, mixed: StackChange, torch_alone: StackChange) -> bool:
    """Whether more pairs of torch alone would hardly tell another kind of both.

    The shares are as they are: only the error of `torch_alone` can be made smaller.
    """
    beyond_share = torch_alone.value - shares(whole, mixed)[0].value
    return abs(abs(beyond_share) - whole.value / 4) > torch_alone.half


def excludes_torchao(whole: StackChange, twin: StackChange) -> bool:
    """Whether the bf16 twin, which has no torchao, moved so much that torchao is not needed to explain
    `whole`; one that is undecided excludes nothing."""
    return twin.is_worse and twin.value >= whole.value / 2
