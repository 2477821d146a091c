from __future__ import annotations

from perf_tests.harness.planning.recording import order


def test_published_rows_come_first_and_of_each_kind_the_cheapest() -> None:
    places = order(
        ["new-cheap", "old-dear", "old-cheap", "new-dear"],
        {"new-cheap": 10.0, "new-dear": 90.0, "old-cheap": 20.0, "old-dear": 99.0},
        {"old-dear", "old-cheap"},
    )
    assert places == {"old-cheap": 0, "old-dear": 1, "new-cheap": 2, "new-dear": 3}


def test_a_row_of_unknown_cost_comes_last_among_its_like() -> None:
    places = order(["a", "b", "c"], {"b": 500.0, "c": 1.0}, {"a", "b"})
    assert places == {"b": 0, "a": 1, "c": 2}
