"""Two runs as one page: the candidate, judged by the base, and both beside each other."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import msgspec

from perf_tests.harness.baselines.entry import Accepted
from perf_tests.harness.compare.run_pairs import SAME, RunComparison
from perf_tests.harness.page import pictures, report_file
from perf_tests.harness.page.pages import page_of
from perf_tests.harness.page.sources import PageSources
from perf_tests.harness.page.view import Page, PageTable
from perf_tests.harness.rebaseline import candidates
from perf_tests.harness.rebaseline.candidates import RunFile
from perf_tests.harness.runs.record import Run

PROVENANCE = "base"


def write(base: RunFile, candidate: RunFile, comparison: RunComparison, path: Path) -> None:
    """Write the page about `comparison`, which was made of `base` and `candidate`, to the file `path`.

    Raises PerfError where the disk refuses.
    """
    sources = sources_of(base, candidate, comparison)
    _, html = report_file.illustrated(
        sources,
        lambda beside: page(beside, comparison),
        lambda run: _pictures(run, sources.base[run.id], base, candidate),
    )
    report_file.save(path, html, option="--html")


def sources_of(base: RunFile, candidate: RunFile, comparison: RunComparison) -> PageSources:
    """What the page is made from: the candidate's record with the verdicts against the base."""
    before = {run.id: run for run in base.record.cases}
    now = {run.id: run for run in candidate.record.cases}
    # The comparison leaves out what it does not judge.
    cases = tuple(
        msgspec.structs.replace(run, measured=now[run.id].measured, looks=()) for run in comparison.runs
    )
    return PageSources(
        record=msgspec.structs.replace(
            candidate.record, cases=cases, missing=(), comparisons=(), attributions=()
        ),
        where=str(candidate.path),
        accepted={run.id: _accepted(before[run.id], base) for run in cases if before[run.id].processes},
        base={run.id: before[run.id] for run in cases},
    )


def page(sources: PageSources, comparison: RunComparison) -> Page:
    """The page about the comparison that `sources` were made from."""
    made = page_of(sources)
    count = len(comparison.runs)
    sentence = made.sentence
    if not count:
        sentence = "Nothing was compared: the two runs have no measured case in common."
    elif comparison.code == SAME and not made.causes:
        sentence = f"No worse than the base: {count} {'case' if count == 1 else 'cases'} compared."
    elif not made.causes:
        sentence = "It cannot be told: what could not be compared is listed below."
    return dataclasses.replace(
        made,
        title=f"Two runs compared: {made.title}",
        is_green=comparison.code == SAME,
        sentence=sentence,
        remarks=(*made.remarks, *(f"not compared: {each}" for each in comparison.not_compared)),
        tables=(_stacks(sources), *made.tables),
    )


def _accepted(before: Run, base: RunFile) -> Accepted:
    return Accepted(
        entry=candidates.entry_of(before, base.record, PROVENANCE),
        provenance=candidates.provenance_of(before, (base,), reason="the base of the comparison"),
    )


def _stacks(sources: PageSources) -> PageTable:
    then, now = (_described(runs) for runs in (tuple(sources.base.values()), sources.record.cases))
    rows = ((name, then.get(name, "-"), now.get(name, "-")) for name in dict.fromkeys((*now, *then)))
    return PageTable(
        title="Base and candidate",
        head=("what", "base", "candidate", "difference"),
        rows=tuple((*row, "" if row[1] == row[2] else "differs") for row in rows),
    )


def _described(runs: Sequence[Run]) -> Mapping[str, str]:
    """Card, driver and versions; several where processes differ."""
    found: dict[str, dict[str, None]] = {}
    for environment in (process.environment for run in runs for process in run.processes):
        gpu = environment.gpu
        machine = {
            "card": environment.unit,
            "driver": gpu.driver if gpu else "-",
            "python": environment.python,
        }
        for name, value in (machine | environment.packages).items():
            found.setdefault(name, {})[value] = None
    return {name: ", ".join(values) for name, values in found.items()}


def _pictures(run: Run, before: Run, base: RunFile, candidate: RunFile) -> Sequence[tuple[Path, str]]:
    return tuple(_first(before, base, "base")) + tuple(_first(run, candidate, "candidate"))


def _first(run: Run, file: RunFile, caption: str) -> Iterator[tuple[Path, str]]:
    folder = file.path if file.path.is_dir() else file.path.parent
    yield from pictures.first_picture(folder, run, caption)
