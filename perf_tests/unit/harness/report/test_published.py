from __future__ import annotations

import pytest

from perf_tests.harness.compare.published import compare
from perf_tests.harness.compare.published_page import PageLine
from perf_tests.harness.report.published import lines, page_lines
from perf_tests.tables.published import Column, Explanation
from perf_tests.tables.published_page import AHEAD_OF_TIME, SNIPPET
from perf_tests.unit.builders import make_record, make_run
from perf_tests.unit.published import CASES, FLUX_INT8DQ, make_row, measured


def test_report_shows_numbers_footnotes_differences_and_what_was_not_compared() -> None:
    rows = (make_row(gpu="A100", latency_s=8.0), make_row(case=FLUX_INT8DQ.id, scheme="int8dq"))
    eager = CASES["flux1-dev-b1-bf16-eager"]
    record = make_record(
        measured(4.4, projected=True),
        measured(5.6, model_gib=22.9, case=FLUX_INT8DQ),
        measured(6.0, case=eager, injected=("hang",)),
        make_run(),
        references=(),
    )
    refused = make_row(case=eager.id, scheme="bf16", compile=False)
    head, first, second, *rest = lines(compare(record, (*rows, refused)))
    assert " ".join(head.split()) == (
        "case published on s ours theirs ratio model GiB ours theirs ratio peak GiB ours theirs ratio notes"
    )
    assert first.split() == [
        *("flux1-dev-b1-int8dq-regional", "H100"),
        *("5.600", "4.000", "1.400", "22.900", "20.000", "1.145", "24.000", "30.000", "0.800", "[1],", "[2]"),
    ]
    assert second.split() == [
        *("flux1-dev-b1-fp8dqrow-regional", "A100"),
        *("4.400", "8.000", "0.550", "20.000", "20.000", "1.000", "24.000", "30.000", "0.800"),
        *("projected,", "another", "GPU"),
    ]
    assert rest[0].startswith("[1] latency: int8 products are slower than float8 ones today")
    assert rest[1].startswith("[2] model memory: the layers that see one row per image stay bf16")
    assert rest[2].startswith(
        'differs: compiled: theirs the whole transformer, mode="max-autotune", fullgraph=True; ours '
    )
    assert rest[-2:] == [
        "not compared: flux1-dev-b1-bf16-eager: faults were injected into it: hang",
        "2 rows compared, 1 of them on the same GPU model, 1 measured cases without a published row, "
        "0 published rows without a measured case (--every-row lists them); "
        "unexplained (latency above 1.25 times on the same GPU model, model memory off by more than 2 %): 0",
    ]


def test_unexplained_row_is_marked_and_a_known_link_is_shown(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    known = Explanation(
        cases="*-int8wo-*",
        of=Column.LATENCY,
        ratios=(1.0, 800.0),
        text="slow",
        link="https://example.org/1",
    )
    monkeypatch.setattr("perf_tests.tables.published.EXPLANATIONS", (known,))
    compiled = CASES["flux1-dev-b1-int8wo-regional-noonednn"]
    row = make_row(case=compiled.id, scheme="int8wo")
    said = lines(compare(make_record(measured(900.0, 25.0, case=compiled), references=()), [row]))
    assert said[1].endswith("UNEXPLAINED model memory, [1]")
    assert said[2].endswith("(https://example.org/1)")
    assert said[-1].endswith(": 1")


def test_rows_of_which_the_run_holds_no_case_are_listed_where_they_are_asked_for() -> None:
    slower = make_row(case=FLUX_INT8DQ.id, scheme="int8dq", latency_s=3.406)
    nameless = make_row(case=None, scheme="int3wo", reason="nobody runs it", model_memory_gib=None)
    comparison = compare(make_record(measured(4.0), references=()), [slower, make_row(), nameless])
    assert not [line for line in lines(comparison)[:-1] if FLUX_INT8DQ.id in line]
    _, matched, first, second, *_ = lines(comparison, every_row=True)
    assert matched.startswith("flux1-dev-b1-fp8dqrow-regional ")
    assert first.split() == [
        *(FLUX_INT8DQ.id, "H100", "-", "3.406", "-", "-", "20.000", "-", "-", "30.000", "-"),
        *("not", "in", "this", "run"),
    ]
    assert " ".join(second.split()) == "flux1-dev int3wo H100 - 4.000 - - - - - 30.000 - nobody runs it"
    assert "2 published rows without a measured case (--every-row lists them)" in lines(comparison)[-1]


def test_value_that_was_not_published_is_a_dash() -> None:
    row = make_row(model_memory_gib=None, peak_memory_gib=None)
    said = lines(compare(make_record(measured(4.0), references=()), [row]))
    assert said[1].split()[5:] == ["20.000", "-", "-", "24.000", "-", "-"]


def test_figures_beside_the_tables_have_ours_or_a_footnote_that_says_why_not() -> None:
    before, after = SNIPPET
    page = (
        PageLine(figure=before, ours=5.26, why=None),
        PageLine(figure=after, ours=2.99, why=None, same_gpu=False, projected=True),
        PageLine(figure=AHEAD_OF_TIME[0], ours=None, why="not yet"),
    )
    head, first, second, third, *notes = page_lines(page)
    assert " ".join(head.split()) == "beside the tables published on ours theirs ratio notes"
    assert " ".join(first.split()) == (
        "snippet FLUX.1-dev before autoquant and compile H100 5.260 6.431 0.818 s (1)"
    )
    assert " ".join(second.split()) == (
        "snippet FLUX.1-dev after H100 2.990 3.483 0.858 s projected, another GPU, (1)"
    )
    assert " ".join(third.split()).endswith("A100 - 1.776 - s (2), (3)")
    assert notes[0].startswith("(1) the snippet asks for 50 steps, and the figures fit the 28 of ours")
    assert notes[1] == "(2) none of ours: not yet"
    assert notes[2].startswith("(3) no steady state")
    assert notes[3] == "3 figures and claims beside the tables, 2 with ours; none of them is judged"
