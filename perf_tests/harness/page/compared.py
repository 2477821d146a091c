"""Two runs as one page: the candidate, judged by the base, and both beside each other."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

import msgspec
from PIL import Image

from perf_tests.harness.baselines.entry import Accepted
from perf_tests.harness.compare.picture_pairs import (
    KeptRun,
    NoPair,
    PictureChange,
    PictureFinding,
    SamePictures,
    change_of,
    drawn,
)
from perf_tests.harness.compare.run_pairs import SAME, RunComparison
from perf_tests.harness.page import pictures, report_file
from perf_tests.harness.page.pages import page_of
from perf_tests.harness.page.pictures import Album
from perf_tests.harness.page.sources import PageSources
from perf_tests.harness.page.view import Page, PagePicture, PageTable
from perf_tests.harness.rebaseline import candidates
from perf_tests.harness.rebaseline.candidates import CASES, RunFile
from perf_tests.harness.report.wording import format_value
from perf_tests.harness.runs.record import Run

PROVENANCE = "base"
NO_FINDINGS: Mapping[str, PictureFinding] = MappingProxyType({})


def write(base: RunFile, candidate: RunFile, comparison: RunComparison, path: Path) -> None:
    """Write the page about `comparison`, which was made of `base` and `candidate`, to the file `path`.

    Raises PerfError where the disk refuses.
    """
    sources = sources_of(base, candidate, comparison)
    pairs = _pairs(sources, base, candidate)
    findings = {case: change_of(*pair) for case, pair in pairs.items()}
    _, html = report_file.illustrated(
        sources,
        lambda beside: page(beside, comparison, findings),
        lambda room: _albums(sources, pairs, findings, room),
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


def page(
    sources: PageSources,
    comparison: RunComparison,
    findings: Mapping[str, PictureFinding] = NO_FINDINGS,
) -> Page:
    """The page about the comparison that `sources` were made from.

    `findings` maps cases to how their pictures differ.
    """
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
        tables=(_stacks(sources), *_picture_tables(findings), *made.tables),
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


# Pictures of both


def _pairs(sources: PageSources, base: RunFile, candidate: RunFile) -> Mapping[str, tuple[KeptRun, KeptRun]]:
    """Case id -> its two runs, of the cases that generate pictures."""
    folders = [file.path if file.path.is_dir() else file.path.parent for file in (base, candidate)]
    return {
        run.id: (
            KeptRun(run=sources.base[run.id], folder=folders[0]),
            KeptRun(run=run, folder=folders[1]),
        )
        for run in sources.record.cases
        if CASES[run.id].case.is_generating
    }


def _albums(
    sources: PageSources,
    pairs: Mapping[str, tuple[KeptRun, KeptRun]],
    findings: Mapping[str, PictureFinding],
    limit_bytes: int,
) -> dict[str, Album]:
    """Case id -> the pictures of both runs and where they differ, or why there are none.

    What is red comes first, then what differs most. From the first that does not fit on, it is said where the
    pictures are.
    """
    found: dict[str, Album] = {}
    left = limit_bytes
    for run in sorted(sources.record.cases, key=lambda run: (not sources.is_red(run), _psnr(findings, run))):
        finding = findings.get(run.id)
        if finding is None:
            continue
        has_room = left >= 0 or isinstance(finding, SamePictures)
        album = _album(pairs[run.id], finding) if has_room else Album(note=pictures.NO_ROOM)
        left -= sum(len(picture.url) for picture in album.pictures)
        found[run.id] = Album(note=pictures.NO_ROOM) if album.pictures and left < 0 else album
    return found


def _psnr(findings: Mapping[str, PictureFinding], run: Run) -> float:
    finding = findings.get(run.id)
    return finding.psnr_db if isinstance(finding, PictureChange) else math.inf


def _album(pair: tuple[KeptRun, KeptRun], finding: PictureFinding) -> Album:
    if isinstance(finding, SamePictures):
        which = "the picture" if finding.pairs == 1 else f"all {finding.pairs} pictures"
        return Album(note=f"{which} that both runs kept {'is' if finding.pairs == 1 else 'are'} the same")
    if isinstance(finding, NoPair):  # what one of them kept is better than nothing
        return Album(pictures=_alone(*pair), note=finding.reason)
    shown = drawn(*pair, finding)
    ssim = "" if shown.ssim is None else f", SSIM {shown.ssim:.4f}"
    heat = (
        f"where they differ, {shown.amplification:.3g} times amplified: PSNR {finding.psnr_db:.2f} dB{ssim}, "
        f"{shown.where}"
    )
    captioned = ((shown.base, "base"), (shown.candidate, "candidate"), (shown.heatmap, heat))
    made = tuple(pictures.framed(Image.fromarray(each), said) for each, said in captioned)
    return Album(pictures=(*made, *_films(*pair)), note=_which(pair[1].run, finding))


def _which(run: Run, change: PictureChange) -> str:
    """Which of several pictures are shown; empty where there is one."""
    is_film = CASES[run.id].case.workload.num_frames is not None
    parts = (
        f"{change.differing} of {change.pairs} prompts give another picture" if change.pairs > 1 else "",
        f"shown is prompt {change.number + 1}" if change.pairs > 1 else "",
        f"of the film, frame {change.frame} is shown" if is_film else "",
    )
    return "; ".join(filter(None, parts))


def _films(base: KeptRun, candidate: KeptRun) -> tuple[PagePicture, ...]:
    """What was drawn of videos in each run, beside the reference of that run."""
    return pictures.pictures_of(
        film
        for kept, name in ((base, "base"), (candidate, "candidate"))
        for film in pictures.first_film(
            kept.folder, kept.run, f"film of the {name}: its reference, {name}, where these two differ"
        )
    )


def _alone(base: KeptRun, candidate: KeptRun) -> tuple[PagePicture, ...]:
    """The first picture of each run, where it has one."""
    files = (
        *pictures.first_picture(base.folder, base.run, "base"),
        *pictures.first_picture(candidate.folder, candidate.run, "candidate"),
    )
    return pictures.pictures_of(files)


def _picture_tables(findings: Mapping[str, PictureFinding]) -> Iterator[PageTable]:
    changes = [(case, each) for case, each in findings.items() if isinstance(each, PictureChange)]
    if changes:
        yield PageTable(
            title="Pictures that differ",
            head=("case", "prompts with another picture", "lowest PSNR between the runs"),
            rows=tuple(
                (case, f"{each.differing} of {each.pairs}", format_value(each.psnr_db, "dB"))
                for case, each in sorted(changes, key=lambda change: change[1].psnr_db)
            ),
        )
