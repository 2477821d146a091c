from __future__ import annotations

from collections import Counter

import pytest

from perf_tests.tables.metrics.rows import UNITS
from perf_tests.tables.published import PLATFORM_OF_GPU
from perf_tests.tables.published_page import PAGE, Chapter, Measured, Nothing, PageFigure, Saving
from perf_tests.unit.builders import for_each
from perf_tests.unit.published import CASES, ROWS


def test_every_figure_of_the_page_is_there() -> None:
    assert [(each.theirs, each.unit) for each in PAGE if each.theirs is not None] == [
        *((saved, "% saved") for saved in (53.88, 27.33, 33.04, 23.0, 32.0)),
        *((6.431, "s"), (3.483, "s")),
        *((peak, "GiB") for peak in (19.7, 31.7, 10.3, 22.2, 10.3, 12.4, 7.9, 4.8, 3.1)),
        *((10.48, "s"), (6.99, "GB"), (1.96, "s"), (14.50, "GB"), (1.94, "s"), (8.29, "GB")),
        *((0.660, "s"), (31.451, "GiB"), (0.735, "s"), (20.517, "GiB")),
        *((1.776, "s"), (421.0, "ms")),
        (2.981, "s"),
    ]


def test_every_chapter_of_the_page_is_there() -> None:
    assert Counter(each.chapter for each in PAGE) == {
        Chapter.HEADLINES: 5,
        Chapter.SNIPPET: 2,
        Chapter.MEMORY: 9,
        Chapter.QUANTIZING: 6,
        Chapter.SERIALIZATION: 4,
        Chapter.AHEAD_OF_TIME: 2,
        Chapter.TRAINING: 1,
        Chapter.ADVICE: 4,
    }


@for_each(PAGE)
def test_a_figure_names_cases_and_metrics_that_exist_or_says_why_not(figure: PageFigure) -> None:
    match figure.ours:
        case Measured(case=case, metric=metric):
            named, metrics = [case], metric
        case Saving(base=base, case=case, metric=metric):
            named, metrics = [base, case], metric
        case Nothing(reason=reason):
            assert reason
            return
    assert [name for name in named if name not in CASES] == []
    assert metrics in UNITS
    assert figure.unit is not None


@for_each(PAGE)
def test_a_figure_names_a_gpu_that_a_platform_is(figure: PageFigure) -> None:
    assert figure.gpu in (*PLATFORM_OF_GPU, None)


@pytest.mark.parametrize(
    ("text", "base_s", "case_s", "published_pct", "apart_pct"),
    [
        ("speedup of FLUX.1-dev", 6.573, 3.030, 53.88, 0.03),
        ("speedup of CogVideoX-5b", 243.312, 176.794, 27.33, 0.02),
        ("speedup of CogVideoX-5b", 112.398, 75.255, 33.04, 0.02),
        ("speedup of CogVideoX-2b in fp16, about", 96.918, 74.807, 23.0, 0.5),
        ("speedup of CogVideoX-5b in fp16, about", 258.962, 176.794, 32.0, 0.5),
    ],
)
def test_a_headline_is_the_time_that_one_row_saves_over_another(
    text: str, base_s: float, case_s: float, published_pct: float, apart_pct: float
) -> None:
    (headline,) = (each for each in PAGE if (each.text, each.theirs) == (text, published_pct))
    assert isinstance(headline.ours, Saving)
    published = {
        row.case: row.latency_s for row in ROWS if row.gpu == headline.gpu and row.latency_s is not None
    }
    assert published[headline.ours.base] == base_s
    assert published[headline.ours.case] == case_s
    assert 100 * (1 - case_s / base_s) == pytest.approx(published_pct, abs=apart_pct)


def test_figures_that_mislead_say_so() -> None:
    remarks = {(each.chapter, each.theirs): each.remark or "" for each in PAGE}
    assert "50 steps of 182 ms would take 9.1 s" in remarks[Chapter.SNIPPET, 3.483]
    assert "max_memory_reserved() / 1e9" in remarks[Chapter.QUANTIZING, 6.99]
    assert "74.4 TFLOP take 0.24 s" in remarks[Chapter.AHEAD_OF_TIME, 1.776]
    assert "2.8 GiB more than in 2024" in remarks[Chapter.MEMORY, 31.7]


def test_each_way_to_quantize_has_the_row_that_quantizes_there() -> None:
    rows = {each.theirs: each.ours for each in PAGE if each.chapter is Chapter.QUANTIZING}
    case, peak = "llama-7b-b1-int8wo-eager", "quantize_peak_reserved_mib"
    assert rows == {
        10.48: Measured(case=f"{case}-onhost", metric="quantize_s"),
        6.99: Measured(case=f"{case}-onhost", metric=peak),
        1.96: Measured(case=case, metric="quantize_s"),
        14.50: Measured(case=case, metric=peak),
        1.94: Measured(case=f"{case}-bymodule", metric="quantize_s"),
        8.29: Measured(case=f"{case}-bymodule", metric=peak),
    }


def test_old_gpus_have_no_row_and_the_reason() -> None:
    (old,) = (each for each in PAGE if each.text.startswith("Turing and Volta"))
    assert isinstance(old.ours, Nothing)
    assert old.ours.reason.startswith("it gives no figure, no platform of ours is one")
