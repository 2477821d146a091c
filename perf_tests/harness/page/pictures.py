"""Pictures and films of what is red or changed, as data URLs, under a limit for the whole page."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from PIL import Image

from perf_tests.harness.fidelity import heatmaps
from perf_tests.harness.page.view import PagePicture
from perf_tests.harness.rebaseline.candidates import reference_of
from perf_tests.harness.runs.directory import CAPTURES, file_inside
from perf_tests.harness.runs.record import Run, RunRecord, Status
from perf_tests.harness.verdicts.case_status import SEVERITY
from perf_tests.tables.metrics.rows import METRIC_BY_NAME

FILM_LIMIT_BYTES = 1_500_000
"""Of one film, so that a single one does not take the place of all pictures."""
SIDE_PX = 512
"""Of a picture in the page, at most."""
QUALITY = 80
"""Of JPEG: 512 pixels take 40 to 80 kB."""
FILM = ".mp4"
NO_ROOM = f"no room is left here: they are in {CAPTURES} of the run directory"
NOW = "this run"
DRAWN = (
    ("reference.png", "reference"),
    ("candidate.png", NOW),
    ("heatmap.png", "where they differ"),
    ("mp4", f"film: reference, {NOW}, where they differ"),
)
"""What is appended to the stem of a capture that was drawn -> what it shows."""
UNREADABLE = (OSError, ValueError, SyntaxError, Image.DecompressionBombError)
"""What Pillow raises for a file that is cut off, or no picture."""


Captioned = tuple[Path, str]
"""A file, and what it shows."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Album:
    """The pictures of one case."""

    pictures: tuple[PagePicture, ...] = ()
    note: str = ""
    """Why there is none, or where the rest is; empty where nothing is missing."""


def first_film(out: Path, run: Run, caption: str) -> Sequence[Captioned]:
    """The film that was drawn of the run beside its reference, where the run directory `out` has one."""
    stems = [capture.array.removesuffix(".npy") for process in run.processes for capture in process.captures]
    return _there(out, ((f"{stem}{FILM}", caption) for stem in stems))[:1]


def of_record(
    out: Path, record: RunRecord, is_red: Callable[[Run], bool], limit_bytes: int
) -> dict[str, Album]:
    """The `albums` of the cases of `record`, from the files of its run directory `out`."""
    return albums(record.cases, is_red, partial(of_run, out, record), limit_bytes)


def of_run(out: Path, record: RunRecord, run: Run) -> Sequence[Captioned]:
    """The files in the run directory `out` that show a case of `record`: what was drawn of it, else its
    first picture and that of its reference."""
    reference = reference_of(run, record)
    given = (
        *(first_picture(out, reference, "reference") if reference else ()),
        *first_picture(out, run, NOW),
    )
    return _there(out, _drawn(run)) or given


def first_picture(out: Path, run: Run, caption: str) -> Sequence[Captioned]:
    """The first picture that the run gave, where the run directory `out` has it."""
    captured = [capture.image for process in run.processes for capture in process.captures]
    return _there(out, ((image, caption) for image in captured[:1]))


def albums(
    runs: Iterable[Run],
    is_red: Callable[[Run], bool],
    files_of: Callable[[Run], Sequence[Captioned]],
    limit_bytes: int,
) -> dict[str, Album]:
    """Case id -> its pictures, which `files_of` finds, for those of `runs` that somebody should look at.

    The worst cases come first. From the first that does not fit into what is left of `limit_bytes` on, it is
    said instead where the pictures are. A file that is no picture costs itself and nothing else.
    """
    found: dict[str, Album] = {}
    left = limit_bytes
    for run in sorted(filter(lambda run: _is_worth_it(run, is_red), runs), key=_severity):
        files = files_of(run)
        if left >= 0:
            pictures = pictures_of(files)
            left -= sum(len(picture.url) for picture in pictures)
        if files and left < 0:
            found[run.id] = Album(note=NO_ROOM)
        elif files and pictures:
            found[run.id] = Album(pictures=pictures)
    return found


def pictures_of(files: Iterable[Captioned]) -> tuple[PagePicture, ...]:
    """The files as pictures of the page, without those that are none."""
    return tuple(filter(None, (_picture(path, caption) for path, caption in files)))


def _is_worth_it(run: Run, is_red: Callable[[Run], bool]) -> bool:
    """Whether it is red, or its output changed or is new."""
    moved = (Status.IMPROVED, Status.NO_BASELINE)
    about_outputs = any(
        verdict.status in moved and _compares_outputs(verdict.metric) for verdict in run.verdicts
    )
    return about_outputs or is_red(run)


def _compares_outputs(metric: str) -> bool:
    return metric in METRIC_BY_NAME and METRIC_BY_NAME[metric].reader.compares_outputs


def _severity(run: Run) -> tuple[bool, int]:
    # A picture explains a red picture best.
    explained = any(
        verdict.metric in METRIC_BY_NAME and heatmaps.explain(verdict, METRIC_BY_NAME[verdict.metric])
        for verdict in run.verdicts
    )
    return (not explained, SEVERITY.index(run.status) if run.status in SEVERITY else len(SEVERITY))


def _there(out: Path, files: Iterable[tuple[str, str]]) -> list[Captioned]:
    """Those that the run directory holds, with their captions."""
    return [(path, caption) for name, caption in files if (path := file_inside(out, name)) is not None]


def _drawn(run: Run) -> Iterator[tuple[str, str]]:
    """What was drawn of a run in comparison with its reference."""
    for process in run.processes:
        for capture in process.captures:
            stem = capture.array.removesuffix(".npy")
            yield from ((f"{stem}.{name}", caption) for name, caption in DRAWN)


def _picture(path: Path, caption: str) -> PagePicture | None:
    if path.suffix == FILM:
        return _film(path, caption)
    try:
        with Image.open(path, formats=("PNG",)) as image:
            return framed(image, caption)
    except UNREADABLE:
        return None


def framed(image: Image.Image, caption: str) -> PagePicture:
    """A picture for the page, as a JPEG of at most `SIDE_PX`. Raises one of `UNREADABLE`."""
    image.thumbnail((SIDE_PX, SIDE_PX))
    encoded = io.BytesIO()
    image.convert("RGB").save(encoded, "JPEG", quality=QUALITY)
    return PagePicture(caption=caption, url=_url("image/jpeg", encoded.getvalue()))


def _film(path: Path, caption: str) -> PagePicture | None:
    try:
        content = path.read_bytes() if path.stat().st_size <= FILM_LIMIT_BYTES else b""
    except OSError:
        return None
    return PagePicture(caption=caption, url=_url("video/mp4", content), is_film=True) if content else None


def _url(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"
