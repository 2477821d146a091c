"""A folder of nights in, a static site out: a page each, written anew from its record, and an index.

Nothing of a night is copied but what its page shows: code of other projects ran on the machine that it comes
from, so that its own report.html could say anything, and do anything, where it is published.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from perf_tests.harness.page import earlier, pictures, report_file, sources
from perf_tests.harness.page.earlier import Nights
from perf_tests.harness.page.pages import page_of
from perf_tests.harness.publishing import index
from perf_tests.harness.publishing.index import NightLine, UnreadableNight
from perf_tests.harness.report.wording import clipped, flat
from perf_tests.harness.runs.record import RunRecord
from perf_tests.harness.runs.record_file import read_stored
from perf_tests.protocol.errors import BaselineError, PerfError, RecordError, UsageError

INDEX = "index.html"
MAX_NIGHTS = 90
"""On a site: as many as GitHub keeps artifacts of. Their pages stay below the gigabyte that GitHub Pages
takes."""
NAME_DIGITS = 16
MAX_WHY = 400
"""Characters."""
OPTION = "--out"


@dataclass(frozen=True, kw_only=True, slots=True)
class WrittenSite:
    """What a site shows."""

    nights: tuple[NightLine, ...]
    """The newest first."""
    unreadable: tuple[UnreadableNight, ...]
    left_out: int
    """Older nights than a site has room for."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Found:
    """A night that can be read."""

    folder: Path
    began: str
    """In order of time."""
    file: str
    """The name of its page, which nothing in the record has a say in but by its hash."""


def write(nights: Path, out: Path, baselines: Path) -> WrittenSite:
    """Write the site of the newest `MAX_NIGHTS` runs in the folder `nights`, each in a folder of its own,
    into the folder `out`, which must be new or empty.

    What cannot be read is listed. Raises UsageError where there is no night at all or where `out` holds
    anything, BaselineError where the baselines cannot be trusted, and PerfError where the disk refuses.
    """
    folders = _folders(nights)
    _prepare(out)
    found, unreadable = _found(folders)
    newest = sorted(found, key=lambda night: night.began, reverse=True)[:MAX_NIGHTS]
    past = dataclasses.replace(earlier.read_all(nights), unreadable=())  # the index lists those
    lines: list[NightLine] = []
    for night in newest:
        shown = _written(night, out, baselines, past)
        if isinstance(shown, NightLine):
            lines.append(shown)
        else:
            unreadable.append(shown)
    left_out = len(found) - len(newest)
    report_file.save(out / INDEX, index.rendered(lines, unreadable, left_out), OPTION)
    return WrittenSite(nights=tuple(lines), unreadable=tuple(unreadable), left_out=left_out)


def _folders(nights: Path) -> list[Path]:
    if not nights.is_dir():
        raise UsageError(f"{nights} is not a folder; give the one that holds a folder for each night")
    found = [path for path in sorted(nights.iterdir()) if not path.name.startswith(".")]
    if not found:
        raise UsageError(f"{nights} is empty, and a site without any night would replace what is published")
    return found


def _prepare(out: Path) -> None:
    try:
        out.mkdir(parents=True, exist_ok=True)
        is_empty = not any(out.iterdir())
    except OSError as error:
        raise PerfError(f"cannot write {out}: {error.strerror}; choose another {OPTION}") from error
    if not is_empty:
        raise UsageError(f"{out} is not empty, and all of it would be published: choose another {OPTION}")


def _found(folders: list[Path]) -> tuple[list[_Found], list[UnreadableNight]]:
    """The nights that can be read, each once, and those that cannot. Only one record is held at a time."""
    found: dict[str, _Found] = {}
    unreadable: list[UnreadableNight] = []
    for folder in folders:
        try:
            if not folder.is_dir():
                raise RecordError("it is a file, and a night is a folder that holds a run.json")
            stored = read_stored(folder)
            began = index.began(stored.record).isoformat()
        except Exception as error:  # noqa: BLE001 - of a file that may hold anything
            unreadable.append(_unreadable(folder, error))
        else:
            digest = hashlib.sha256(stored.content).hexdigest()
            file = f"night-{digest[:NAME_DIGITS]}.html"
            found[file] = _Found(folder=folder, began=began, file=file)
    return list(found.values()), unreadable


def _written(night: _Found, out: Path, baselines: Path, past: Nights) -> NightLine | UnreadableNight:
    """Write the page of a night; why there is none where that fails, which costs no other night its own."""
    try:
        record = read_stored(night.folder).record
        line, html = _page(night, record, baselines, past)
    except BaselineError:
        raise  # of this checkout, and so of every night
    except Exception as error:  # noqa: BLE001 - whatever is wrong with one night, the others are published
        return _unreadable(night.folder, error)
    report_file.save(out / night.file, html, OPTION)
    return line


def _page(night: _Found, record: RunRecord, baselines: Path, past: Nights) -> tuple[NightLine, str]:
    beside = dataclasses.replace(
        sources.read(night.folder, record, baselines),
        where=night.folder.name,
        earlier=earlier.before(past, record),
    )
    albums_in = partial(pictures.of_record, night.folder, record, beside.is_red)
    page, html = report_file.illustrated(beside, page_of, albums_in)
    return index.line_of(record, page, night.file), html


def _unreadable(folder: Path, error: Exception) -> UnreadableNight:
    kind = "" if isinstance(error, PerfError) else f"{type(error).__name__}: "
    said = f"{kind}{error}".replace(str(folder), folder.name)
    return UnreadableNight(name=folder.name, why=clipped(flat(said), MAX_WHY))


def described(site: WrittenSite) -> Iterator[str]:
    """The site in words, for whoever had it written."""
    count, more = len(site.nights), site.left_out
    said = "1 night has a page" if count == 1 else f"{count} nights have a page each"
    yield f"{said}, {more or 'no'} older {'one was' if more < 2 else 'ones were'} left out"
    yield from (f"without a page: {each.name}: {each.why}" for each in site.unreadable)
