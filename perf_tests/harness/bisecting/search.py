"""Which of many versions changed a number, by levels instead of good and bad: it finds several steps; pure.

The ends come first. Then every interval whose ends differ by more than a step is divided at the version that
is closest to its middle, until nothing that can be measured lies between: such a bracket is an answer. A
version that cannot be installed, built or measured is skipped by name; the next one is the middle of the
longest run of versions of which nothing is known, so that a long range that does not build costs little.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from enum import StrEnum
from itertools import pairwise

import msgspec

from perf_tests.protocol.base import Struct

DIVISOR = 4
"""A step is more than this part of the difference between the ends, unless told otherwise: of two or three
equal steps, each is one."""
MAX_SKIPS = 16
"""Versions between two measured ones that are tried in vain before the rest between them is left alone."""


class BisectPoint(Struct):
    """What is known of one version."""

    value: float | None = None
    """None where it could not be measured."""
    half: float = 0.0
    """Half the 95 % interval; 0 for what is exact."""
    reason: str = ""
    """Why it could not be measured."""
    seconds: float = 0.0
    """Of measuring, in vain or not; without those of installing or building."""
    commit: str = ""
    """What it was built from; empty where that is unknown."""
    packages: dict[str, str] = msgspec.field(default_factory=dict)
    """Everything that its environment holds, by version; empty where it has none of its own."""


class BisectAnswer(StrEnum):
    """What a search ends with."""

    STEPS = "steps"
    NO_GOOD_END = "no good end"
    """The version that should be good is not, or cannot be measured."""
    NOT_REPRODUCED = "does not reproduce"
    """The version that should be bad is as the good one, or cannot be measured."""


class Bracket(Struct):
    """Two versions between which a step lies, and nothing that can be measured."""

    before: str
    after: str
    change: float
    skipped: tuple[str, ...]
    """Versions between them, which cannot be measured."""
    not_tried: int = 0
    """How many versions between them nobody tried to measure."""
    also_changed: dict[str, str] = msgspec.field(default_factory=dict)
    """Other packages that differ between the two, such as `2.3.0 -> 2.4.0`: the step may be theirs."""


class BisectQuestion(Struct):
    """What is asked. Measurements serve every question of the same `probe` and `conditions`."""

    items: tuple[str, ...]
    """The versions in order, the good end first."""
    probe: str
    """What is measured, and how."""
    conditions: tuple[str, ...] = ()
    """What else decides what is measured, such as the package and what is installed beside it."""
    max_skips: int = MAX_SKIPS
    step: float | None = None
    """The least change that matters, in the units of the probe; None for a quarter of the whole."""
    bad_value: float | None = None
    """What the bad end is known for: it tells an end that is not good from one that does not reproduce."""


Points = Mapping[str, BisectPoint]


def next_item(question: BisectQuestion, points: Points) -> str | None:
    """The version to measure next; None where the answer is known."""
    good, bad = question.items[0], question.items[-1]
    for end in (good, bad):
        if end not in points:
            return end
    if answer(question, points) is not BisectAnswer.STEPS:
        return None
    for low, high in _intervals(question, points):
        if (middle := _middle(question, points, low, high)) is not None:
            return middle
    return None


def upcoming(question: BisectQuestion, points: Points) -> tuple[str, ...]:
    """The versions that are measured after the next one, as far as one can guess, the likely ones first."""
    now = next_item(question, points)
    if now is None:
        return ()
    if now == question.items[0]:
        guessed = {**points, now: BisectPoint(value=0.0)}
        after = next_item(question, guessed)
        return () if after is None else (after, *upcoming(question, guessed))
    found = dict.fromkeys(
        next_item(question, {**points, now: guess}) for guess in _guesses(question, points, now)
    )
    return tuple(each for each in found if each is not None)


def _guesses(question: BisectQuestion, points: Points, now: str) -> tuple[BisectPoint, ...]:
    """What `now` may turn out to be: a bad end that differs, or one of its neighbours' levels."""
    if now == question.items[-1]:
        good = points[question.items[0]]
        apart = 1.0 + good.half + (question.step or 0.0)
        return (BisectPoint(value=_value(points, question.items[0]) + 2 * apart),)
    at = question.items.index(now)
    around = (question.items[index] for index in _measured_around(question, points, at))
    return (*(points[each] for each in around), BisectPoint(reason="it may be skipped, too"))


def answer(question: BisectQuestion, points: Points) -> BisectAnswer:
    """What is answered once both ends are known."""
    good, bad = points[question.items[0]], points[question.items[-1]]
    if good.value is None:
        return BisectAnswer.NO_GOOD_END
    if bad.value is None:
        return BisectAnswer.NOT_REPRODUCED
    if _differs(good, bad, _step(question, points)):
        return BisectAnswer.STEPS
    known = question.bad_value
    is_bad = known is not None and math.isclose(good.value, known, rel_tol=1e-6, abs_tol=good.half)
    return BisectAnswer.NO_GOOD_END if is_bad else BisectAnswer.NOT_REPRODUCED


def brackets(question: BisectQuestion, points: Points) -> tuple[Bracket, ...]:
    """Every step that was found, in the order of the versions; of an unfinished search, as far as it came."""
    return tuple(_bracket(question, points, low, high) for low, high in _intervals(question, points))


def _bracket(question: BisectQuestion, points: Points, low: int, high: int) -> Bracket:
    before, after = question.items[low], question.items[high]
    between = question.items[low + 1 : high]
    skipped = tuple(each for each in between if each in points)
    return Bracket(
        before=before,
        after=after,
        change=_value(points, after) - _value(points, before),
        skipped=skipped,
        not_tried=len(between) - len(skipped),
        also_changed=_changed(points[before].packages, points[after].packages),
    )


def _changed(before: Mapping[str, str], after: Mapping[str, str]) -> dict[str, str]:
    if not (before and after):
        return {}
    return {
        name: f"{before.get(name, 'none')} -> {after.get(name, 'none')}"
        for name in sorted(before.keys() | after.keys())
        if before.get(name) != after.get(name)
    }


def _intervals(question: BisectQuestion, points: Points) -> Iterator[tuple[int, int]]:
    """Neighbours, of those that were measured, which differ by more than a step."""
    step = _step(question, points)
    for low, high in pairwise(_measured(question, points)):
        if _differs(points[question.items[low]], points[question.items[high]], step):
            yield low, high


def _measured(question: BisectQuestion, points: Points) -> list[int]:
    known = ((index, points.get(item)) for index, item in enumerate(question.items))
    return [index for index, point in known if point is not None and point.value is not None]


def _measured_around(question: BisectQuestion, points: Points, at: int) -> tuple[int, int]:
    measured = _measured(question, points)
    return max(each for each in measured if each < at), min(each for each in measured if each > at)


def _middle(question: BisectQuestion, points: Points, low: int, high: int) -> str | None:
    """The version to try next between two that were measured; None where there is none left to try.

    Between two skipped ones, it is where the least is known: the middle of the longest run.
    """
    between = range(low + 1, high)
    known = [index for index in between if question.items[index] in points]
    if len(known) >= question.max_skips:
        return None
    runs = [range(before + 1, after) for before, after in pairwise((low, *known, high))]
    longest = max(runs, key=lambda run: (len(run), -abs(run.start + run.stop - low - high - 1)))
    return question.items[longest[(len(longest) - 1) // 2]] if longest else None


def _step(question: BisectQuestion, points: Points) -> float:
    if question.step is not None:
        return question.step
    return abs(_value(points, question.items[-1]) - _value(points, question.items[0])) / DIVISOR


def _differs(one: BisectPoint, other: BisectPoint, step: float) -> bool:
    if one.value is None or other.value is None:
        return False
    return abs(one.value - other.value) > max(step, math.hypot(one.half, other.half))


def _value(points: Points, item: str) -> float:
    value = points[item].value
    return math.nan if value is None else value
