"""The directory of one run: what belongs in it, and how an earlier run makes room for the next."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from perf_tests.harness.runs.record import RunRecord
from perf_tests.harness.runs.record_file import read_record
from perf_tests.protocol.errors import PerfError, RecordError, UsageError
from perf_tests.protocol.files import TEMPORARY_SUFFIX

RECORD = "run.json"
LOGS, CAPTURES, CACHE, PLANS = "logs", "captures", "cache", "plans"
FOLDERS = frozenset({LOGS, CAPTURES, CACHE, PLANS})


def prepare_run_directory(out: Path) -> Path:
    """Make `out` an empty directory and return its absolute path.

    A run that it holds is moved to `<out>.<date of the run>`, never deleted. Raises UsageError for a
    directory that holds anything else, and PerfError where the disk refuses.
    """
    out = out.absolute()
    with _writing(out):
        names = _names(out)
        if RECORD in names or _is_unfinished(names):
            out.rename(_free(out.with_name(f"{out.name}.{_date(out)}")))
        elif names:
            raise UsageError(
                f"{out} holds {min(names)!r}, which is not part of a run; "
                "give --perf-out a directory of its own"
            )
        out.mkdir(parents=True, exist_ok=True)
    return out


def resume_run_directory(out: Path) -> tuple[Path, RunRecord | None]:
    """The absolute path of `out`, left as it is, and the record that it holds; None where it holds none yet.

    Raises RecordError for a record that cannot be read, UsageError for a directory that holds anything but a
    run, and PerfError where the disk refuses.
    """
    out = out.absolute()
    with _writing(out):
        names = _names(out)
    if RECORD in names:
        return out, read_record(out / RECORD)
    return (out if _is_unfinished(names) else prepare_run_directory(out)), None


def _names(out: Path) -> set[str]:
    return {path.name for path in out.iterdir()} if out.exists() else set()


def _is_unfinished(names: set[str]) -> bool:
    """Whether they are what a session leaves that was killed before it wrote its first record."""
    return bool(names) and all(name in FOLDERS or _is_half_written(name) for name in names)


def _is_half_written(name: str) -> bool:
    return name.startswith(RECORD) and name.endswith(TEMPORARY_SUFFIX)


def _date(out: Path) -> str:
    """When the run in `out` began, as far as it can be told, in the compact form of ISO 8601."""
    try:
        began = datetime.fromisoformat(read_record(out / RECORD).created_at)
    except (RecordError, ValueError):
        began = datetime.fromtimestamp(out.stat().st_mtime, UTC)
    return began.astimezone(UTC).strftime("%Y%m%dT%H%M%SZ")


def _free(path: Path) -> Path:
    """`path`, or the first of `path.2`, `path.3` and so on that does not exist."""
    numbered = (path.with_name(f"{path.name}.{number}") for number in itertools.count(2))
    return next(candidate for candidate in itertools.chain((path,), numbered) if not candidate.exists())


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise PerfError(
            f"cannot write {path}: {error.strerror}; choose another directory with --perf-out"
        ) from error
