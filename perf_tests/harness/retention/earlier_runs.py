"""The runs that made room for later ones: `latest.<date>` beside `latest`, of which the newest are kept."""

from __future__ import annotations

import re
import shutil
from contextlib import suppress
from pathlib import Path

from perf_tests.harness.runs.directory import LOCK
from perf_tests.harness.runs.file_lock import FileLock, HeldError
from perf_tests.harness.runs.journal import JOURNAL
from perf_tests.harness.runs.record_file import RECORD

KEPT = 5
"""Runs that stay beside the one that is measured: a week of working days. They take up to gigabytes each, and
nothing needs them once their numbers are accepted or explained."""
DATED = re.compile(r"\.(\d{8}T\d{6}Z)(?:\.(\d+))?")
"""What `prepare_run_directory` appends to the name of a directory."""
BEGINNING = re.compile(rb'\s*\{\s*"format_version":\s*\d')
"""Of every record, and of every journal."""


def remove_old(out: Path) -> tuple[Path, ...]:
    """Remove all but the newest `KEPT` runs that made room for later ones in `out`; returns what was removed.

    Only a directory with such a name and a record in it is one of them. One that a session uses, or that the
    disk does not let go of, stays as it is.
    """
    beside = out.parent.iterdir() if out.parent.is_dir() else ()
    found = {age: path for path in beside if (age := _age(path, out)) is not None}
    newest_first = sorted(found, reverse=True)
    return tuple(found[age] for age in newest_first[KEPT:] if _is_removed(found[age]))


def _age(path: Path, out: Path) -> tuple[str, int] | None:
    """What earlier runs of `out` are sorted by; None for anything that is none of them."""
    if not path.name.startswith(out.name):
        return None
    match = DATED.fullmatch(path.name.removeprefix(out.name))
    is_run = match is not None and not path.is_symlink() and _holds_record(path)
    return (match[1], int(match[2] or 1)) if match is not None and is_run else None


def _holds_record(path: Path) -> bool:
    for name in (RECORD, JOURNAL):
        with suppress(OSError), (path / name).open("rb") as file:
            if BEGINNING.match(file.read(100)):
                return True
    return False


def _is_removed(path: Path) -> bool:
    try:
        with FileLock(path / LOCK):
            shutil.rmtree(path)
    except (HeldError, OSError):  # a directory of another user, for example, costs room and no result
        return False
    return True
