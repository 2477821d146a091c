"""The directory of one run: what belongs in it, and how an earlier run makes room for the next."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath

from perf_tests.harness.runs.file_lock import FileLock, HeldError
from perf_tests.harness.runs.journal import JOURNAL
from perf_tests.harness.runs.record import RunRecord
from perf_tests.harness.runs.record_file import RECORD, read_record
from perf_tests.protocol.errors import PerfError, RecordError, UsageError
from perf_tests.protocol.files import TEMPORARY_SUFFIX

LOGS, CAPTURES, CACHE, PLANS = "logs", "captures", "cache", "plans"
REPRO, PROFILES = "repro", "profiles"
PAGE = "report.html"
FINDINGS = "findings.json"
FOLDERS = frozenset({LOGS, CAPTURES, CACHE, PLANS, REPRO, PROFILES})


def is_evidence(file: str) -> bool:
    """Whether `file` is relative to a run directory, and where sessions keep what explains red cases: a
    record that somebody edited may name any file."""
    path = PurePosixPath(file)
    return len(path.parts) > 1 and path.parts[0] in (REPRO, PROFILES) and ".." not in path.parts


LOCK = ".lock"


@dataclass(frozen=True, slots=True)
class RunDirectory:
    """The directory of one session, which no other session uses until it is released or the process ends."""

    path: Path
    """Absolute."""
    lock: FileLock
    resumed: RunRecord | None = None
    """The record that it holds; None where it holds none yet."""

    def release(self) -> None:
        """Let other sessions have the directory. Idempotent."""
        self.lock.release()


def prepare_run_directory(out: Path) -> RunDirectory:
    """Make `out` an empty directory and lock it.

    A run that it holds is moved to `<out>.<date of the run>`, never deleted. Raises UsageError for a
    directory that holds anything else or that another session uses, and PerfError where the disk refuses.
    """
    out = out.absolute()
    with _writing(out):
        # Before it is locked, which may change the time of the folder.
        date = _date(out) if _names(out) else ""
        lock = _locked(out)
        if _names(out):
            with lock:  # which moves along
                out.rename(_free(out.with_name(f"{out.name}.{date or _date(out)}")))
                lock = _locked(out)
    return RunDirectory(out, lock)


def resume_run_directory(out: Path) -> RunDirectory:
    """Lock `out`, and read the record that it holds; its files stay as they are.

    Raises RecordError for a record that cannot be read, UsageError for a directory that holds anything but a
    run or that another session uses, and PerfError where the disk refuses.
    """
    out = out.absolute()
    with _writing(out):
        lock = _locked(out)
        for name in (PAGE, FINDINGS):  # they do not show what will be measured now
            (out / name).unlink(missing_ok=True)
        names = _names(out)
    try:
        return RunDirectory(out, lock, read_record(out) if _holds_record(out, names) else None)
    except RecordError:
        lock.release()
        raise


def file_inside(out: Path, name: str) -> Path | None:
    """The file of the run directory `out` that a record calls `name`; None where there is none.

    An edited record may name any file, also one elsewhere, which is none of the run.
    """
    root = out.resolve()
    try:
        path = (root / name).resolve()
        return path if path.is_relative_to(root) and path.is_file() else None
    except (OSError, ValueError):  # too long, or with a zero byte
        return None


def _locked(out: Path) -> FileLock:
    names = _names(out)
    if names and not {RECORD, JOURNAL} & names and not _is_unfinished(names):
        raise UsageError(
            f"{out} holds {min(names)!r}, which is not part of a run; give --perf-out a directory of its own"
        )
    out.mkdir(parents=True, exist_ok=True)
    try:
        return FileLock(out / LOCK)
    except HeldError as error:
        raise UsageError(
            f"{error.holder} is measuring into {out}, and two sessions would lose each other's records: "
            "wait until it has ended, or choose another directory with --perf-out"
        ) from error


def _names(out: Path) -> set[str]:
    return {path.name for path in out.iterdir()} - {LOCK} if out.exists() else set()


def _holds_record(out: Path, names: set[str]) -> bool:
    """Whether a session kept anything in `out`: a finished line in its journal, where it wrote no record."""
    return RECORD in names or (JOURNAL in names and b"\n" in (out / JOURNAL).read_bytes())


def _is_unfinished(names: set[str]) -> bool:
    """Whether they are what a session leaves that was killed before it wrote its first record."""
    return bool(names) and all(name in FOLDERS or _is_half_written(name) for name in names)


def _is_half_written(name: str) -> bool:
    return name.startswith((RECORD, JOURNAL)) and name.endswith(TEMPORARY_SUFFIX)


def _date(out: Path) -> str:
    """When the run in `out` began, as far as it can be told, in the compact form of ISO 8601."""
    try:
        began = datetime.fromisoformat(read_record(out).created_at)
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
