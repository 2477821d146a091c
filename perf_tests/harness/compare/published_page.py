"""A run record and the page beside the published tables in, ours next to each of its figures out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from perf_tests.harness.compare.published import MIB_PER_GIB, PUBLISHED_IDS, runs_of, why_not_compared
from perf_tests.harness.runs.record import Run, RunRecord
from perf_tests.tables.published import PLATFORM_OF_GPU
from perf_tests.tables.published_page import FigureUnit, Measured, Nothing, PageFigure, Saving

SCALES: Mapping[FigureUnit | None, float] = {
    FigureUnit.GIB: 1.0 / MIB_PER_GIB,
    FigureUnit.GB: 2**20 / 1e9,
}
"""Unit of the page -> what a metric of ours is multiplied by; the others are in that unit already."""
COMPARABLE = frozenset({FigureUnit.SECONDS, FigureUnit.GIB, FigureUnit.GB, FigureUnit.MILLISECONDS})
"""Units of which ours / theirs says something."""
TIMES = frozenset({FigureUnit.SECONDS, FigureUnit.SAVED_PCT})
"""Units that may be projected."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PageLine:
    """One figure of the page and ours."""

    figure: PageFigure
    ours: float | None
    why: str | None
    """Why there is nothing of ours; None where there is."""
    same_gpu: bool = True
    """Whether ours was measured on the GPU model of the figure, where it names one."""
    projected: bool = False
    """Whether ours is composed from the stages of a shorter generation."""

    @property
    def ratio(self) -> float | None:
        """Ours / theirs; None where one is missing, or a quotient says nothing."""
        if self.ours is None or self.figure.theirs is None or self.figure.unit not in COMPARABLE:
            return None
        return self.ours / self.figure.theirs


def compare(record: RunRecord, page: Iterable[PageFigure]) -> tuple[PageLine, ...]:
    """A line for every figure of `page`, in its order."""
    runs = {PUBLISHED_IDS[run.id]: run for run in runs_of(record) if run.id in PUBLISHED_IDS}
    return tuple(_line(figure, runs) for figure in page)


def _line(figure: PageFigure, runs: Mapping[str, Run]) -> PageLine:
    if isinstance(figure.ours, Nothing):
        return PageLine(figure=figure, ours=None, why=figure.ours.reason)
    needed = _needed(figure.ours)
    if (why := _why_not(needed, runs)) is not None:
        return PageLine(figure=figure, ours=None, why=why)
    found = [runs[case] for case, _ in needed]
    return PageLine(
        figure=figure,
        ours=_value(figure.ours, runs) * SCALES.get(figure.unit, 1.0),
        why=None,
        same_gpu=figure.gpu is None or all(PLATFORM_OF_GPU[figure.gpu] == run.platform for run in found),
        projected=figure.unit in TIMES and any(run.projected for run in found),
    )


def _needed(ours: Measured | Saving) -> tuple[tuple[str, str], ...]:
    """The cases and their metrics that `ours` is made of."""
    match ours:
        case Measured(case=case, metric=metric):
            return ((case, metric),)
        case Saving(base=base, case=case, metric=metric):
            return ((base, metric), (case, metric))


def _why_not(needed: Iterable[tuple[str, str]], runs: Mapping[str, Run]) -> str | None:
    for case, metric in needed:
        if case not in runs:
            return f"{case} is not in this run"
        if why := why_not_compared(runs[case], metric):
            return f"{case}: {why}"
    return None


def _value(ours: Measured | Saving, runs: Mapping[str, Run]) -> float:
    match ours:
        case Measured(case=case, metric=metric):
            return runs[case].measured[metric]
        case Saving(base=base, case=case, metric=metric):
            return 100.0 * (1.0 - runs[case].measured[metric] / runs[base].measured[metric])
