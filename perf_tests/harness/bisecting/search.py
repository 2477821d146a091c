"""Which of many versions changed a number, by levels instead of good and bad: it finds several steps; pure.

The ends come first. Then every interval whose ends differ by more than a step is divided at the version that
is closest to its middle, until nothing that can be measured lies between: such a bracket is an answer. A
version that cannot be installed, built or measured is skipped by name; the next ones are its neighbours.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from enum import StrEnum
from itertools import pairwise

from perf_tests.protocol.base import Struct

DIVISOR = 4
"""A step is more than this part of the difference between the ends, unless told otherwise: of two or three
equal steps, each is one."""


class BisectPoint(Struct):
    """What is known of one version."""

    value: float | None = None
    """None where it could not be measured."""
    half: float = 0.0
    """Half the 95 % interval; 0 for what is exact."""
    reason: str = ""
    """Why it could not be measured."""
    seconds: float = 0.0


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


class BisectQuestion(Struct):
    """What is asked. Another question needs other measurements."""

    items: tuple[str, ...]
    """The versions in order, the good end first."""
    probe: str
    """What is measured, and how: a change of it makes another question."""
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
        if (middle := _middle(question.items[low + 1 : high], points)) is not None:
            return middle
    return None


def upcoming(question: BisectQuestion, points: Points) -> tuple[str, ...]:
    """The versions that are measured after the next one, whichever of its neighbours' levels that one has."""
    now = next_item(question, points)
    if now is None:
        return ()
    known = [point for point in points.values() if point.value is not None]
    guesses = {point.value: {**points, now: point} for point in known}
    found = dict.fromkeys(next_item(question, guess) for guess in guesses.values())
    return tuple(each for each in found if each is not None)


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
    return tuple(
        Bracket(
            before=question.items[low],
            after=question.items[high],
            change=_value(points, question.items[high]) - _value(points, question.items[low]),
            skipped=tuple(each for each in question.items[low + 1 : high] if each in points),
        )
        for low, high in _intervals(question, points)
    )


def _intervals(question: BisectQuestion, points: Points) -> Iterator[tuple[int, int]]:
    """Neighbours, of those that were measured, which differ by more than a step."""
    step = _step(question, points)
    measured = [
        index
        for index, item in enumerate(question.items)
        if item in points and points[item].value is not None
    ]
    for low, high in pairwise(measured):
        if _differs(points[question.items[low]], points[question.items[high]], step):
            yield low, high


def _middle(between: Sequence[str], points: Points) -> str | None:
    """The version closest to the middle of which nothing is known."""
    unknown = [index for index, item in enumerate(between) if item not in points]
    middle = (len(between) - 1) / 2
    return between[min(unknown, key=lambda index: (abs(index - middle), index))] if unknown else None


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
