"""Which versions are measured, in which order, and what is answered."""

from __future__ import annotations

import pytest

from perf_tests.harness.bisecting import search
from perf_tests.harness.bisecting.search import BisectAnswer, BisectPoint, BisectQuestion, Bracket


def question(count: int, **changes: object) -> BisectQuestion:
    return BisectQuestion(items=tuple(f"v{number}" for number in range(count)), probe="", **changes)  # type: ignore[arg-type]  # of any field


def searched(asked: BisectQuestion, values: dict[int, float | None]) -> dict[str, BisectPoint]:
    """Measure until the answer is known; `values` is the level from each version on, None skips that one."""
    levels = {number: value for number, value in values.items() if value is not None}
    points: dict[str, BisectPoint] = {}
    while (item := search.next_item(asked, points)) is not None:
        number = int(item[1:])
        if number in values and number not in levels:
            points[item] = BisectPoint(reason="does not build")
        else:
            points[item] = BisectPoint(value=levels[max(each for each in levels if each <= number)])
    return points


def found(asked: BisectQuestion, values: dict[int, float | None]) -> list[tuple[str, str, float]]:
    points = searched(asked, values)
    return [(each.before, each.after, each.change) for each in search.brackets(asked, points)]


@pytest.mark.parametrize("at", [1, 2, 50, 98, 99])
def test_one_step_among_a_hundred_is_found_in_nine_measurements(at: int) -> None:
    asked = question(100)
    points = searched(asked, {0: 1.0, at: 2.0})
    assert search.brackets(asked, points) == (
        Bracket(before=f"v{at - 1}", after=f"v{at}", change=1.0, skipped=()),
    )
    assert len(points) <= 9


def test_two_steps_are_both_found() -> None:
    assert found(question(40), {0: 1.0, 7: 2.0, 30: 3.0}) == [("v6", "v7", 1.0), ("v29", "v30", 1.0)]


def test_steps_that_cancel_each_other_out_leave_ends_that_do_not_differ() -> None:
    asked = question(10)
    points = searched(asked, {0: 1.0, 3: 2.0, 6: 1.0})
    assert search.answer(asked, points) is BisectAnswer.NOT_REPRODUCED


def test_a_step_for_the_better_on_the_way_is_found_too() -> None:
    steps = found(question(9), {0: 1.0, 2: 0.0, 4: 3.0})
    assert steps == [("v1", "v2", -1.0), ("v3", "v4", 3.0)]


def test_changes_below_the_step_are_not_followed() -> None:
    assert found(question(20, step=0.6), {0: 1.0, 5: 1.5, 10: 2.5}) == [("v9", "v10", 1.0)]


def test_a_version_that_cannot_be_measured_widens_the_bracket_by_name() -> None:
    asked = question(9)
    points = searched(asked, {0: 1.0, 3: None, 4: None, 5: 2.0})
    assert search.brackets(asked, points) == (
        Bracket(before="v2", after="v5", change=1.0, skipped=("v3", "v4")),
    )


def test_a_difference_within_its_errors_is_no_step() -> None:
    asked = question(5)
    points = {"v0": BisectPoint(value=1.0, half=0.3), "v4": BisectPoint(value=1.3, half=0.3)}
    assert search.answer(asked, points) is BisectAnswer.NOT_REPRODUCED
    assert search.next_item(asked, points) is None


def test_ends_that_are_alike_are_told_by_what_the_bad_one_is_known_for() -> None:
    alike = {"v0": BisectPoint(value=1.0), "v4": BisectPoint(value=1.0)}
    assert search.answer(question(5, bad_value=1.0), alike) is BisectAnswer.NO_GOOD_END
    assert search.answer(question(5, bad_value=0.0), alike) is BisectAnswer.NOT_REPRODUCED
    assert search.answer(question(5), alike) is BisectAnswer.NOT_REPRODUCED


def test_ends_that_cannot_be_measured_are_answers() -> None:
    works, fails = BisectPoint(value=1.0), BisectPoint(reason="does not import")
    assert search.answer(question(3), {"v0": fails, "v2": works}) is BisectAnswer.NO_GOOD_END
    assert search.answer(question(3), {"v0": works, "v2": fails}) is BisectAnswer.NOT_REPRODUCED


def test_the_ends_are_measured_first_and_the_next_ones_are_known_ahead() -> None:
    asked = question(9)
    assert search.next_item(asked, {}) == "v0"
    ends = {"v0": BisectPoint(value=1.0), "v8": BisectPoint(value=2.0)}
    assert search.next_item(asked, ends) == "v4"
    assert set(search.upcoming(asked, ends)) == {"v2", "v6"}
    assert search.upcoming(asked, searched(asked, {0: 1.0, 5: 2.0})) == ()
