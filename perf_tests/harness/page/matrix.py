"""The matrix at a glance: a table for each pipeline, schemes down, batch sizes and compile modes across."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from perf_tests.harness.page.marks import Kind, StatusMark
from perf_tests.harness.page.view import MatrixCell, MatrixRow, MatrixTable
from perf_tests.harness.rebaseline.candidates import CASES
from perf_tests.harness.report.wording import clipped, flat
from perf_tests.harness.runs.record import Run
from perf_tests.tables.cases import Case, Weights
from perf_tests.tables.matrix import MATRIX
from perf_tests.tables.platforms import PLATFORM_BY_ID
from perf_tests.tables.recipes import CompileMode
from perf_tests.tables.tiers import why_unrecorded

NOT_SELECTED = "this run did not select it"
UNKNOWN = "another matrix"
"""What stands for the scheme of a case that this checkout does not know."""
MAX_SAYS = 300
MODES = ("", *CompileMode)
"""The order of the columns of a batch size; the first is that of a case which this checkout does not know."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Place:
    """Where a case stands in the matrix."""

    pipeline: str
    scheme: str
    batch: int
    mode: str

    @property
    def group(self) -> str:
        """Batch size and compile mode, as the head of a column."""
        return f"b{self.batch} {self.mode}" if self.mode else UNKNOWN


def place_of(run: Run) -> Place:
    """The place of the case of `run`, which may be of a checkout with other rows."""
    known = CASES.get(run.id)
    return (
        Place(pipeline=run.pipeline, scheme=UNKNOWN, batch=0, mode="")
        if known is None
        else _place(known.case)
    )


def tables(
    runs: Sequence[Run],
    marks: Mapping[str, StatusMark],
    anchors: Mapping[str, str],
    is_recorded: Callable[[str, str], bool],
    *,
    has_grey: bool = True,
) -> tuple[MatrixTable, ...]:
    """A table for each pipeline on each platform of `runs`, with all rows of the matrix there if `has_grey`.

    `marks` and `anchors` map case ids to how a case looks, and where the page has more about it;
    `is_recorded` says whether a case ever had a baseline on a platform. Rows of the cross product appear only
    where they were run.
    """
    by_platform: dict[str, list[Run]] = {}
    for run in runs:
        by_platform.setdefault(run.platform, []).append(run)
    return tuple(
        table
        for platform, of_platform in by_platform.items()
        for table in _of_platform(
            platform,
            {run.id: (place_of(run), _measured(run, marks[run.id], anchors[run.id])) for run in of_platform},
            is_recorded,
            _rows_of(platform) if has_grey else (),
        )
    )


def reasons(found: Iterable[MatrixTable]) -> tuple[tuple[str, str], ...]:
    """Why rows of the matrix are grey: each reason, and how many rows it is true of."""
    grey = (cell for table in found for cell in table.cells if cell.mark.kind is Kind.NEVER)
    counted = Counter(cell.says.partition(": ")[2] for cell in grey)
    return tuple((why, f"{count} {'row' if count == 1 else 'rows'}") for why, count in counted.most_common())


def left_out(found: Iterable[MatrixTable]) -> str:
    """The pipelines that a run has no case of, and how many rows each has; empty without any."""
    grey = [table for table in found if table.is_grey]
    platforms = ", ".join(dict.fromkeys(table.platform for table in grey))
    named = ", ".join(f"{table.pipeline} ({len(table.cells)})" for table in grey)
    return f"Without a case in this run, of the rows of {platforms}: {named}." if grey else ""


def _of_platform(
    platform: str,
    cells: dict[str, tuple[Place, MatrixCell]],
    is_recorded: Callable[[str, str], bool],
    rows: Iterable[Case],
) -> Iterable[MatrixTable]:
    for case in rows:
        if case.id not in cells:
            cells[case.id] = (_place(case), _grey(case.id, platform, is_recorded(case.id, platform)))
    by_pipeline: dict[str, list[tuple[Place, MatrixCell]]] = {}
    for place, cell in cells.values():
        by_pipeline.setdefault(place.pipeline, []).append((place, cell))
    for pipeline, of_pipeline in by_pipeline.items():
        yield _table(pipeline, platform, of_pipeline)


def _table(pipeline: str, platform: str, cells: Sequence[tuple[Place, MatrixCell]]) -> MatrixTable:
    columns = sorted(
        {(place.batch, place.mode) for place, _ in cells}, key=lambda each: (each[0], MODES.index(each[1]))
    )
    heads = {(place.batch, place.mode): place.group for place, _ in cells}
    by_scheme: dict[str, dict[tuple[int, str], list[MatrixCell]]] = {}
    for place, cell in cells:
        by_scheme.setdefault(place.scheme, {}).setdefault((place.batch, place.mode), []).append(cell)
    return MatrixTable(
        pipeline=pipeline,
        platform=platform,
        columns=tuple(heads[column] for column in columns),
        rows=tuple(
            MatrixRow(scheme=scheme, cells=tuple(tuple(found.get(column, ())) for column in columns))
            for scheme, found in by_scheme.items()
        ),
    )


def _rows_of(platform: str) -> Iterable[Case]:
    for row in MATRIX:
        if platform in {each.id for each in row.platforms} and not row.exhaustive:
            yield row.case(Weights.SYNTHETIC)


def _place(case: Case) -> Place:
    recipe = case.build.recipe
    return Place(
        pipeline=case.build.pipeline.id,
        scheme=recipe.scheme.id,
        batch=case.workload.batch_size,
        mode=recipe.compile.value,
    )


def _measured(run: Run, mark: StatusMark, anchor: str) -> MatrixCell:
    reason = flat(run.failure.message if run.failure else run.reason)
    says = ": ".join(filter(None, (f"{run.id} {mark.label}", reason)))
    return MatrixCell(id=run.id, mark=mark, says=clipped(says, MAX_SAYS), anchor=anchor)


def _grey(case_id: str, platform: str, is_recorded: bool) -> MatrixCell:
    known = PLATFORM_BY_ID.get(platform)
    why = None if is_recorded or known is None else why_unrecorded(case_id, known)
    reason = f"never recorded: {why}" if why else NOT_SELECTED
    return MatrixCell(id=case_id, mark=StatusMark(Kind.NEVER, ""), says=f"{case_id}: {reason}", anchor="")
