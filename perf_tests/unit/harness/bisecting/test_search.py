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


def test_what_comes_after_the_good_end_is_known_before_that_is_measured() -> None:
    assert search.upcoming(question(9), {}) == ("v8", "v4")
    assert search.upcoming(question(9, step=5.0), {"v0": BisectPoint(value=1.0)}) == ("v4",)
    assert search.upcoming(question(2), {}) == ("v1",)


def test_a_long_range_that_does_not_build_costs_few_attempts() -> None:
    broken: dict[int, float | None] = dict.fromkeys(range(300, 701))
    asked = question(1001)
    points = searched(asked, {0: 1.0, **broken, 701: 2.0})
    (bracket,) = search.brackets(asked, points)
    assert len(bracket.skipped) == 16
    assert len(points) <= 40
    assert int(bracket.before[1:]) < 300
    assert int(bracket.after[1:]) > 700
    assert bracket.not_tried == int(bracket.after[1:]) - int(bracket.before[1:]) - 1 - 16


def test_an_island_among_versions_that_do_not_build_is_found() -> None:
    broken: dict[int, float | None] = dict.fromkeys((*range(2, 7), *range(9, 14)))
    assert found(question(17), {0: 1.0, **broken, 7: 2.0, 14: 2.0}) == [("v1", "v7", 1.0)]


def test_all_skipped_between_the_ends_is_one_bracket_with_each_name() -> None:
    asked = question(5)
    points = searched(asked, {0: 1.0, 1: None, 2: None, 3: None, 4: 2.0})
    assert search.brackets(asked, points) == (
        Bracket(before="v0", after="v4", change=1.0, skipped=("v1", "v2", "v3")),
    )


def test_two_versions_are_enough() -> None:
    assert found(question(2), {0: 1.0, 1: 2.0}) == [("v0", "v1", 1.0)]


def test_levels_that_go_up_and_down_still_end_in_a_step_between_neighbours() -> None:
    asked = question(9)
    points = searched(asked, {0: 0.0, 2: 3.0, 3: 0.0, 5: 3.0, 6: 0.0, 7: 3.0})
    steps = search.brackets(asked, points)
    assert {(each.before, each.after) for each in steps} == {("v6", "v7")}


def test_packages_that_differ_beside_the_step_are_named() -> None:
    asked = question(2)
    points = {
        "v0": BisectPoint(value=1.0, packages={"numpy": "2.3.0", "triton": "3.4.0", "six": "1.0"}),
        "v1": BisectPoint(value=2.0, packages={"numpy": "2.4.0", "triton": "3.4.0", "idna": "3.0"}),
    }
    (bracket,) = search.brackets(asked, points)
    assert bracket.also_changed == {
        "idna": "none -> 3.0",
        "numpy": "2.3.0 -> 2.4.0",
        "six": "1.0 -> none",
    }
