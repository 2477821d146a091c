"""Reads the record of a run directory, and writes `run.json`; `journal` says which file holds it when."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import msgspec

from perf_tests.harness.runs import journal
from perf_tests.harness.runs.journal import JOURNAL
from perf_tests.harness.runs.record import (
    FORMAT_VERSION,
    REASON_OF_PROGRESS,
    Progress,
    Run,
    RunRecord,
)
from perf_tests.protocol.errors import PerfError, RecordError
from perf_tests.protocol.files import read_regular, replace_atomically

RECORD = "run.json"

PROGRESS_OF_REASON = {
    **{reason: progress for progress, reason in REASON_OF_PROGRESS.items()},
    "measured beside others, not judged": Progress.MEASURED,
}
"""How far a run has come, in a record older than `Run.progress`; with any other reason it is judged."""


class _Header(msgspec.Struct):
    """What every format has."""

    format_version: int


def write_record(path: Path, record: RunRecord) -> None:
    """Write `record` to the file `path`, which is replaced atomically.

    Raises PerfError where that cannot be done.
    """
    text = msgspec.json.format(msgspec.json.encode(record), indent=1)
    try:
        replace_atomically(path, text + b"\n")
    except OSError as error:
        raise PerfError(
            f"cannot write {path}: {error.strerror}; nothing measured is lost while this session lives and "
            "the previous file is intact: make room, or choose another directory with --perf-out"
        ) from error


@dataclass(frozen=True, kw_only=True, slots=True)
class Stored:
    """A record and the file that holds it."""

    record: RunRecord
    content: bytes
    """Of the file."""


def read_record(path: Path) -> RunRecord:
    """The record in `path`, which is a run.json or a run directory.

    A session that was killed left its journal in place of the run.json, which is read just so. Raises
    RecordError where the file cannot be read, is truncated, or has another format.
    """
    return read_stored(path).record


def read_stored(path: Path) -> Stored:
    """The record in `path` as `read_record` reads it, and the bytes that it was read from."""
    file = path / RECORD if path.is_dir() else path
    unfinished = file.with_name(JOURNAL) if file.name == RECORD else None
    if unfinished is not None and unfinished.is_file():
        content = _content(unfinished)
        first, whole, rest = content.partition(b"\n")
        if whole:  # else the session was killed before it kept anything
            return Stored(record=_replayed(unfinished, _decoded(unfinished, first), rest), content=content)
    content = _content(file)
    return Stored(record=_decoded(file, content), content=content)


def _content(file: Path) -> bytes:
    try:
        return read_regular(file)
    except OSError as error:
        raise RecordError(
            f"cannot read the run record {file}: {error.strerror}; give a run.json or the directory of a run"
        ) from error


def _decoded(file: Path, content: bytes) -> RunRecord:
    try:
        version = msgspec.json.decode(content, type=_Header).format_version
        if version == FORMAT_VERSION:
            return _with_progress(msgspec.json.decode(content, type=RunRecord))
    except (msgspec.DecodeError, RecursionError) as error:
        raise RecordError(
            f"cannot read the run record {file}: {error}; it is truncated or not a run.json, "
            "run the suite again"
        ) from error
    raise RecordError(
        f"the run record {file} has format version {version}, this suite reads {FORMAT_VERSION}: "
        "read it with the checkout that wrote it, or run the suite again"
    )


def _replayed(file: Path, record: RunRecord, lines: bytes) -> RunRecord:
    *whole, _half = lines.split(b"\n")
    try:
        return journal.replay(record, whole)
    except (msgspec.DecodeError, KeyError) as error:
        raise RecordError(
            f"cannot read the run record {file}: a line before its end is broken: {error}; "
            "run the suite again, without --perf-resume"
        ) from error


def _with_progress(record: RunRecord) -> RunRecord:
    """The record with the progress of runs that tell it only in their reason."""

    def known(run: Run) -> Run:
        return msgspec.structs.replace(run, progress=PROGRESS_OF_REASON.get(run.reason, run.progress))

    return msgspec.structs.replace(
        record, cases=tuple(map(known, record.cases)), references=tuple(map(known, record.references))
    )
