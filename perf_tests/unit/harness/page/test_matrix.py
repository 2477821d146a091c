"""The matrix at a glance: where each case stands, and why a row is grey."""

from __future__ import annotations

import pytest

from perf_tests.harness.page import matrix
from perf_tests.harness.page.marks import Kind, mark_of
from perf_tests.harness.page.view import MatrixCell, MatrixTable
from perf_tests.harness.runs.record import Run, Status
from perf_tests.tables.cases import Weights
from perf_tests.tables.matrix import MATRIX
from perf_tests.tables.platforms import CPU, H100
from perf_tests.unit.builders import FLUX_FP8, MINI_INT8WO, make_run

RUN = make_run(FLUX_FP8, H100, status=Status.REGRESSED, reason="denoise_step_ms:\nbeyond the limit")


def tables(recorded: frozenset[str] = frozenset(), run: Run = RUN) -> dict[str, MatrixTable]:
    made = matrix.tables(
        [run], {run.id: mark_of(run.status)}, {run.id: "case-1"}, lambda case, _: case in recorded
    )
    return {table.title: table for table in made}


def cells(table: MatrixTable) -> dict[str, MatrixCell]:
    return {cell.id: cell for row in table.rows for cells in row.cells for cell in cells}


def test_case_stands_in_the_row_of_its_scheme_and_the_column_of_batch_and_mode() -> None:
    table = tables()["flux1-dev on h100"]

    assert table.columns[:2] == ("b1 eager", "b1 regional")
    row = next(row for row in table.rows if row.scheme == "fp8dqrow")
    first = row.cells[table.columns.index("b1 regional")][0]
    assert (first.id, first.anchor, first.mark.kind) == (RUN.id, "case-1", Kind.WORSE)
    assert first.says == "flux1-dev-b1-fp8dqrow-regional REGRESSED: denoise_step_ms: beyond the limit"


def test_rows_of_the_platform_that_were_not_measured_are_grey_with_the_reason() -> None:
    grey = cells(tables()["flux1-schnell on h100"])["flux1-schnell-b1-bf16-regional"]

    assert grey.mark.kind is Kind.NEVER
    assert grey.anchor == ""
    assert grey.says.startswith("flux1-schnell-b1-bf16-regional: never recorded: ")


def test_row_that_was_recorded_is_grey_because_it_was_not_selected() -> None:
    case = "flux1-schnell-b1-bf16-regional"
    made = tables(frozenset({case}))["flux1-schnell on h100"]

    assert cells(made)[case].says == f"{case}: this run did not select it"


@pytest.mark.parametrize("run", [RUN, make_run(MINI_INT8WO, CPU)], ids=lambda run: run.platform)
def test_every_row_of_the_platform_is_there_and_none_of_the_cross_product(run: Run) -> None:
    shown = [name for table in tables(run=run).values() for name in cells(table)]

    rows = [row for row in MATRIX if run.platform in {each.id for each in row.platforms}]
    assert sorted(shown) == sorted(row.case(Weights.SYNTHETIC).id for row in rows if not row.exhaustive)
    assert any(row.exhaustive for row in rows) is (run.platform == "cpu")


def test_pipelines_without_a_case_in_the_run_are_one_sentence() -> None:
    found = tables()
    grey = [table.pipeline for table in found.values() if table.is_grey]

    assert len(grey) == len(found) - 1
    assert "flux1-dev" not in grey
    said = matrix.left_out(found.values())
    assert said.startswith("Without a case in this run, of the rows of h100: cogvideox-5b (")
    assert all(f"{name} (" in said for name in grey)
    assert matrix.left_out([found["flux1-dev on h100"]]) == ""


def test_reasons_for_grey_rows_are_counted() -> None:
    counted = dict(matrix.reasons(tables().values()))

    assert counted["this run did not select it"].endswith(" rows")
    assert counted["never recorded: UNSUPPORTED: needs compute capability 10.0"].endswith(" rows")


def test_platforms_have_tables_of_their_own() -> None:
    on_cpu = make_run(MINI_INT8WO)
    runs = (RUN, on_cpu)
    made = matrix.tables(
        runs, {run.id: mark_of(run.status) for run in runs}, {run.id: "" for run in runs}, lambda *_: False
    )

    titles = [table.title for table in made]
    assert {"flux1-dev on h100", "flux-mini on cpu"} <= set(titles)
    assert titles.index("flux1-dev on h100") < titles.index("flux-mini on cpu")
