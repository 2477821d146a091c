"""Charts: numbers in, positions and a title out."""

from __future__ import annotations

import math

from perf_tests.harness.page import charts
from perf_tests.harness.page.charts import Band

BAND = Band(low=99.0, high=101.0, limit=103.0)


def paths(chart: charts.Chart | None, style: str) -> list[str]:
    assert chart is not None
    return [path.d for path in chart.paths if path.style == style]


def heights(d: str) -> list[float]:
    return [float(part.split()[1].removesuffix("h0")) for part in d.split("M")[1:]]


def test_each_step_is_a_dot_and_a_slower_one_is_higher_up() -> None:
    chart = charts.steps([[100.0, 110.0], [105.0]], "ms", None)

    assert chart is not None
    assert chart.title == "3 steps of 2 processes: 100.0 ms to 110.0 ms; there is no baseline"
    (dots,) = paths(chart, "dots")
    first, second, third = heights(dots)
    assert second < third < first
    assert second >= charts.TOP
    assert first <= charts.STEPS_HEIGHT - charts.BOTTOM
    assert [label.text for label in chart.labels[-2:]] == ["process 1", "process 2"]


def test_band_and_limit_of_the_baseline_are_drawn_and_named() -> None:
    chart = charts.steps([[104.0]], "ms", BAND)

    assert chart is not None
    assert (
        chart.title
        == "1 steps of 1 process: 104.0 ms to 104.0 ms; baseline 99.00 ms to 101.0 ms, limit 103.0 ms"
    )
    (box,) = chart.boxes
    assert box.style == "band"
    assert box.height > 10
    (limit,) = paths(chart, "limit")
    above, below = float(limit.split()[1].split("H")[0]), box.y
    (dot,) = heights(paths(chart, "dots")[0])
    assert dot < above < below


def test_steps_without_any_are_no_chart() -> None:
    assert charts.steps([[], []], "ms", BAND) is None
    assert charts.steps([[math.nan]], "ms", BAND) is None


def test_equal_steps_do_not_look_like_a_change() -> None:
    chart = charts.steps([[100.0, 100.1]], "ms", None)

    first, second = heights(paths(chart, "dots")[0])
    assert 0 < first - second < 0.1 * charts.STEPS_HEIGHT


def test_of_very_many_steps_some_are_drawn_and_the_title_says_so() -> None:
    chart = charts.steps([[100.0 + n % 7 for n in range(4000)]], "ms", None)

    assert chart is not None
    assert chart.title.endswith("; of 4000 steps, one in 3 is drawn")
    assert len(heights(paths(chart, "dots")[0])) == 1334


def test_bar_fills_its_width_in_the_proportion_of_its_parts() -> None:
    chart = charts.bar({"load": 30.0, "compile": 10.0}, "s", ("#111111", "#222222"))

    assert chart is not None
    assert chart.title == "40.00 s: load 30.00 s, compile 10.00 s"
    assert [key.text for key in chart.keys] == ["load 30.00 s", "compile 10.00 s"]
    assert [key.fill for key in chart.keys] == ["#111111", "#222222"]
    assert [(box.x, box.width, box.fill) for box in chart.boxes] == [
        (0.0, 540.0, "#111111"),
        (540.0, 180.0, "#222222"),
    ]
    assert charts.bar({}, "s", ("#111111",)) is None
    assert charts.bar({"load": 0.0}, "s", ("#111111",)) is None


def test_lines_are_named_on_the_sides_where_the_other_one_is_not() -> None:
    def names(limit: float) -> dict[str, float]:
        chart = charts.steps([[100.0]], "ms", Band(low=100.0, high=100.0, limit=limit))
        assert chart is not None
        return {each.text: each.y for each in chart.labels if each.text in ("limit", "baseline")}

    slower, faster = names(100.1), names(99.9)
    assert slower["baseline"] - slower["limit"] >= 12
    assert faster["limit"] - faster["baseline"] >= 12


def test_trend_marks_red_runs_and_changes_of_the_stack_and_says_when_it_begins() -> None:
    chart = charts.trend([100.0, None, 104.0], [False, False, True], {2: "torch"}, "ms", BAND, "2026-11-01")

    assert chart is not None
    assert chart.title == (
        "2 runs: 100.0 ms at first, 104.0 ms now; baseline 99.00 ms to 101.0 ms, limit 103.0 ms; 1 red; "
        "the stack changed 1 time"
    )
    assert [len(paths(chart, style)) for style in ("dots", "triangles", "tick")] == [1, 1, 1]
    assert "2026-11-01" in [label.text for label in chart.labels]
    assert charts.trend([100.0, None], [False, False], {}, "ms", BAND, "2026-11-01") is None
