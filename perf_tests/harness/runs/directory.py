"""The directory of one run: what it is made of, and how an earlier one makes room."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from perf_tests.harness.runs.record import RunRecord, read_record
from perf_tests.protocol.errors import PerfError, RecordError, UsageError

RECORD = "run.json"
LOGS, CAPTURES, CACHE, PLANS = "logs", "captures", "cache", "plans"
LEFTOVERS = {LOGS, CAPTURES, CACHE, PLANS, f"{RECORD}.tmp"}
"""What a session leaves that was killed before its first record."""


def prepare_run_directory(out: Path) -> Path:
    """`out`, empty. A run that it holds is moved to `<out>.<its date>`, never deleted.

    UsageError for a directory that holds anything else, PerfError where the disk refuses.
    """
    out = out.absolute()
    with _writing(out):
        names = {path.name for path in out.iterdir()} if out.exists() else set()
        if RECORD in names or (names and names <= LEFTOVERS):
            out.rename(_free(out.with_name(f"{out.name}.{_date(out)}")))
        elif names:
            raise UsageError(
                f"{out} holds {sorted(names)[0]!r}, which is no part of a run; give a directory of its own "
                "with --perf-out"
            )
        out.mkdir(parents=True, exist_ok=True)
    return out


def resume_run_directory(out: Path) -> tuple[Path, RunRecord | None]:
    """`out` as it was left, and the record that it holds; None where it holds none yet.

    Raises RecordError for a record that cannot be read, UsageError for a directory of something else.
    """
    out = out.absolute()
    with _writing(out):
        names = {path.name for path in out.iterdir()} if out.exists() else set()
    if RECORD in names:
        return out, read_record(out / RECORD)
    return (out if names and names <= LEFTOVERS else prepare_run_directory(out)), None


def _date(out: Path) -> str:
    """When the run in `out` began, as far as it can be told, in the compact form of ISO 8601."""
    try:
        began = datetime.fromisoformat(read_record(out / RECORD).created_at)
    except (RecordError, ValueError):
        began = datetime.fromtimestamp(out.stat().st_mtime, UTC)
    return began.astimezone(UTC).strftime("%Y%m%dT%H%M%SZ")


def _free(path: Path) -> Path:
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
