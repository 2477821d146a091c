"""The files of history: one immutable `<platform>/<night>-<run>.jsonl.gz` a night, in a folder of its own."""

from __future__ import annotations

import gzip
import re
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import msgspec

from perf_tests.harness.history.night import FORMAT_VERSION, NightHeader, NightRow
from perf_tests.protocol.errors import RecordError, UsageError
from perf_tests.protocol.files import read_regular, replace_atomically
from perf_tests.tables.platforms import PLATFORM_BY_ID

NAME = re.compile(r"[\w.-]{1,80}")
MAX_BYTES = 64 << 20
"""Of one night, unpacked: four hundred times what 200 cases take."""


@dataclass(frozen=True, kw_only=True, slots=True)
class StoredNight:
    """One file."""

    night: NightHeader
    rows: tuple[NightRow, ...]


def append(folder: Path, night: NightHeader, rows: Iterable[NightRow]) -> Path:
    """Write the file of a night; to write the same again changes nothing.

    Raises UsageError where another content stands there already, for a run that cannot name a file, and for a
    day or a platform that there is not.
    """
    _check_names(night)
    path = folder / night.platform / f"{night.night}-{night.run}.jsonl.gz"
    content = dumps(night, rows)
    if path.exists() and read_regular(path) != content:
        raise UsageError(
            f"{path} holds another night: history is never rewritten; give a --run that tells them apart"
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    replace_atomically(path, content)
    return path


def _check_names(night: NightHeader) -> None:
    """Raise UsageError for what a record should not say: the machine that wrote it is not trusted."""
    if not NAME.fullmatch(night.run):
        raise UsageError(
            f"{night.run!r} cannot be part of a file's name: use letters, digits, '.', '_' and '-'"
        )
    if night.platform not in PLATFORM_BY_ID:
        raise UsageError(f"the run is of {night.platform!r}: there is no such platform in this checkout")
    if not _is_day(night.night):
        raise UsageError(f"the run began on {night.night!r}, which is no day: measure again")


def _is_day(text: str) -> bool:
    """Whether it is a date as nights are named by."""
    try:
        return date.fromisoformat(text).isoformat() == text
    except ValueError:
        return False


def dumps(night: NightHeader, rows: Iterable[NightRow]) -> bytes:
    """The content of a file: the same for the same night, whenever it is packed."""
    lines = (msgspec.json.encode(each) for each in (night, *rows))
    return gzip.compress(b"".join(line + b"\n" for line in lines), mtime=0)


def read(path: Path) -> StoredNight:
    """One night. Raises RecordError for a file that cannot be read."""
    try:
        head, *lines = _unpacked(path).splitlines()
        night = msgspec.json.decode(head, type=NightHeader)
        rows = tuple(msgspec.json.decode(line, type=NightRow) for line in lines)
    except (OSError, EOFError, ValueError, zlib.error, msgspec.DecodeError) as error:
        raise RecordError(f"the night {path} cannot be read: {error}") from error
    if night.format_version != FORMAT_VERSION:
        raise RecordError(
            f"the night {path} has format {night.format_version}, and this checkout reads {FORMAT_VERSION}"
        )
    return StoredNight(night=night, rows=rows)


def _unpacked(path: Path) -> bytes:
    with gzip.open(path) as file:
        content = file.read(MAX_BYTES + 1)
    if not content.strip():
        raise ValueError("it is empty")
    if len(content) > MAX_BYTES:
        raise ValueError(f"it is larger than {MAX_BYTES} bytes")
    return content


def nights(folder: Path, platform: str) -> tuple[StoredNight, ...]:
    """All nights of a platform, the oldest first. Raises RecordError for one that cannot be read."""
    found = [read(path) for path in sorted((folder / platform).glob("*.jsonl.gz"))]
    return tuple(sorted(found, key=lambda each: (each.night.night, each.night.run)))
