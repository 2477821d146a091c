"""A run record and the published tables in, ours next to theirs out: what `compare.py --published` shows."""

from __future__ import annotations

import csv
import dataclasses
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec

from perf_tests.harness.rebaseline.candidates import CASES
from perf_tests.harness.runs import validity
from perf_tests.harness.runs.record import Run, RunRecord
from perf_tests.protocol.errors import BaselineError
from perf_tests.tables.cases import Weights
from perf_tests.tables.matrix import MATRIX
from perf_tests.tables.published import (
    MAX_LATENCY_RATIO,
    MAX_MODEL_MEMORY_DIFFERENCE_PCT,
    PLATFORM_OF_GPU,
    Column,
    Explanation,
    PublishedRow,
    case_id,
    explanation,
    reason,
)

COLUMNS = frozenset(field.name for field in dataclasses.fields(PublishedRow))
MIB_PER_GIB = 1024.0
LATENCY, MODEL_MEMORY, PEAK_MEMORY = "latency_s", "model_memory_mib", "peak_allocated_mib"


PUBLISHED_IDS = {
    row.case(weights).id: row.case(Weights.SYNTHETIC).id for row in MATRIX for weights in Weights
}
"""Case id -> the id in the published tables, which were measured with pretrained weights and name synthetic
ones: runs with either can be compared with them."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PublishedQuantity:
    """One quantity, measured and published, in the same unit."""

    ours: float | None
    theirs: float | None

    @property
    def ratio(self) -> float | None:
        """Ours / theirs; None where one of them is missing."""
        return None if self.ours is None or self.theirs is None else self.ours / self.theirs


@dataclass(frozen=True, kw_only=True, slots=True)
class PublishedMatch:
    """One measured case and one published row of the same case."""

    case: str
    row: PublishedRow
    same_gpu: bool
    """Whether ours was measured on the GPU model of the row; latency is judged only then."""
    projected: bool
    """Whether our latency is composed from the stages of a shorter generation."""
    latency_s: PublishedQuantity
    model_memory_gib: PublishedQuantity
    peak_memory_gib: PublishedQuantity
    """Shown, not judged: theirs includes loading and warm-up."""

    @property
    def exceeded(self) -> dict[Column, Explanation | None]:
        """What exceeds its limit -> the known explanation, None where there is none."""
        ratios = {
            Column.LATENCY: (self.latency_s.ratio, self.same_gpu and self._is_slower),
            Column.MODEL_MEMORY: (self.model_memory_gib.ratio, self._differs_in_size),
        }
        return {
            of: explanation(self.case, of, ratio)
            for of, (ratio, is_beyond) in ratios.items()
            if ratio is not None and is_beyond
        }

    @property
    def unexplained(self) -> tuple[Column, ...]:
        """What exceeds its limit without a known explanation."""
        return tuple(of for of, why in self.exceeded.items() if why is None)

    @property
    def _is_slower(self) -> bool:
        return (self.latency_s.ratio or 0.0) > MAX_LATENCY_RATIO

    @property
    def _differs_in_size(self) -> bool:
        ratio = self.model_memory_gib.ratio
        return ratio is not None and abs(ratio - 1.0) * 100.0 > MAX_MODEL_MEMORY_DIFFERENCE_PCT


@dataclass(frozen=True, kw_only=True, slots=True)
class PublishedComparison:
    """A whole run compared with the published tables."""

    matches: tuple[PublishedMatch, ...]
    """Worst latency ratio first."""
    not_compared: dict[str, str]
    """Case with a published row that was not compared -> why."""
    unmeasured: tuple[PublishedRow, ...]
    """The published rows of which the run holds no case, in the order of the tables."""
    unpublished: int
    """How many measured cases have no published row."""

    @property
    def unexplained(self) -> tuple[PublishedMatch, ...]:
        """The matches that need an explanation in the table, or a fix."""
        return tuple(match for match in self.matches if match.unexplained)


# Joining


def compare(record: RunRecord, rows: Iterable[PublishedRow]) -> PublishedComparison:
    """Match every measured case of the run, references included, with each published row of that case."""
    rows = tuple(rows)
    by_case: dict[str, list[PublishedRow]] = {}
    for row in rows:
        if row.case is not None:
            by_case.setdefault(row.case, []).append(row)
    matches: list[PublishedMatch] = []
    not_compared: dict[str, str] = {}
    unpublished = 0
    measured = {PUBLISHED_IDS.get(run.id) for run in runs_of(record)}
    for run in runs_of(record):
        published = by_case.get(PUBLISHED_IDS[run.id], []) if run.id in PUBLISHED_IDS else []
        why = why_not_compared(run) if published else None
        if why is not None:
            not_compared[run.id] = why
        elif published:
            matches.extend(_match(run, row) for row in published)
        else:
            unpublished += 1
    return PublishedComparison(
        matches=tuple(sorted(matches, key=_best_first, reverse=True)),
        not_compared=not_compared,
        unmeasured=tuple(row for row in rows if row.case not in measured),
        unpublished=unpublished,
    )


def runs_of(record: RunRecord) -> Iterator[Run]:
    """Every measured case, and the references that are none of the cases."""
    selected = {run.id for run in record.cases}
    yield from record.cases
    yield from (run for run in record.references if run.id not in selected)


def _best_first(match: PublishedMatch) -> tuple[float, str, str]:
    return (match.latency_s.ratio or 0.0, match.case, match.row.gpu)


def why_not_compared(run: Run, metric: str = LATENCY) -> str | None:
    """Why `metric` of the run is not held against anything; None where it is."""
    if run.failure is not None:
        return f"{run.status}: {run.failure.message}"
    if run.injected:
        return f"faults were injected into it: {', '.join(run.injected)}"
    if run.digest != CASES[run.id].case.digest:
        return "the case has changed since the run: measure it again"
    if metric not in run.measured:
        return f"{metric} was not measured, it is {run.status}: {run.reason}"
    why = validity.invalidity(run)
    return f"its times cannot be trusted: {why}" if why else None


def _match(run: Run, row: PublishedRow) -> PublishedMatch:
    return PublishedMatch(
        case=run.id,
        row=row,
        same_gpu=PLATFORM_OF_GPU.get(row.gpu) == run.platform,
        projected=run.projected,
        latency_s=PublishedQuantity(ours=run.measured.get(LATENCY), theirs=row.latency_s),
        model_memory_gib=PublishedQuantity(ours=_gib(run, MODEL_MEMORY), theirs=row.model_memory_gib),
        peak_memory_gib=PublishedQuantity(ours=_gib(run, PEAK_MEMORY), theirs=row.peak_memory_gib),
    )


def _gib(run: Run, metric: str) -> float | None:
    measured_mib = run.measured.get(metric)
    return None if measured_mib is None else measured_mib / MIB_PER_GIB


# Reading


def read(folder: Path) -> tuple[PublishedRow, ...]:
    """All rows of the tables in `folder`, in the order of their file names.

    Raises BaselineError where there is no table, and for a row whose case or reason is not what
    `tables.published` derives from its other columns.
    """
    files = sorted(folder.glob("*.csv"))
    if not files:
        raise BaselineError(
            f"no published table (*.csv) in {folder}; name their folder with --published-dir, "
            "it is baselines/published of the checkout"
        )
    return tuple(row for file in files for row in _rows(file))


def latencies_s(folder: Path) -> dict[str, dict[str, float]]:
    """Case id -> published GPU -> latency in seconds; empty where `folder` does not exist.

    Raises BaselineError for a table that cannot be read.
    """
    found: dict[str, dict[str, float]] = {}
    for row in read(folder) if folder.is_dir() else ():
        if row.case is not None:
            found.setdefault(row.case, {})[row.gpu] = row.latency_s
    return found


def _rows(file: Path) -> Iterator[PublishedRow]:
    try:
        with file.open(encoding="utf-8", newline="") as opened:
            lines = list(csv.DictReader(opened, restkey="more cells than columns", strict=True))
    except (OSError, UnicodeDecodeError, csv.Error) as exc:
        raise BaselineError(f"the published table {file} cannot be read: {exc}") from exc
    for number, line in enumerate(lines, start=2):  # line 1 names the columns
        try:
            yield _row(line)
        except ValueError as exc:
            raise BaselineError(f"the published table {file} is broken in line {number}: {exc}") from exc


def _row(line: dict[str, str | None]) -> PublishedRow:
    unknown = [name for name in line if name not in COLUMNS]
    if unknown:
        raise ValueError(f"it has columns that no published table has: {', '.join(unknown)}")
    # All cells are text; an empty one is a value that was not published.
    row = msgspec.convert({name: cell or None for name, cell in line.items()}, PublishedRow, strict=False)
    numbers = (row.latency_s, row.model_memory_gib, row.peak_memory_gib)
    if not all(number is None or (math.isfinite(number) and number > 0) for number in numbers):
        raise ValueError(f"its seconds and GiB must be positive numbers, not {numbers}")
    try:
        expected = {"case": case_id(row), "reason": reason(row)}
    except KeyError as exc:
        raise ValueError(f"no table of pipelines or schemes knows {exc}") from exc
    found = {"case": row.case, "reason": row.reason}
    if found != expected:
        raise ValueError(f"its attributes say {expected}, but the row says {found}")
    return row
