"""A search in one file, from which it goes on: written after every measurement, replaced atomically."""

from __future__ import annotations

from pathlib import Path

import msgspec

from perf_tests.harness.bisecting.search import BisectPoint, BisectQuestion
from perf_tests.protocol.base import Struct
from perf_tests.protocol.errors import PerfError, RecordError
from perf_tests.protocol.files import read_regular, replace_atomically

FORMAT_VERSION = 1


class BisectState(Struct):
    """The content of the file."""

    format_version: int
    question: BisectQuestion
    points: dict[str, BisectPoint]
    log: tuple[str, ...] = ()
    """What was decided, in order."""


def resume(path: Path, question: BisectQuestion) -> BisectState:
    """The search in `path`, or a new one where there is none.

    Raises RecordError for a file that cannot be read, and for one of another question: its measurements say
    nothing about this one.
    """
    if not path.exists():
        return BisectState(format_version=FORMAT_VERSION, question=question, points={})
    try:
        found = msgspec.json.decode(read_regular(path), type=BisectState)
    except (OSError, msgspec.DecodeError) as error:
        raise RecordError(f"the search {path} cannot be read: {error}; remove it to begin anew") from error
    if found.format_version != FORMAT_VERSION or found.question != question:
        raise RecordError(f"{path} holds another search: give another --state, or remove it to begin anew")
    return found


def write(path: Path, state: BisectState) -> None:
    """Write the search. Raises PerfError where the disk refuses."""
    try:
        replace_atomically(path, msgspec.json.format(msgspec.json.encode(state), indent=1) + b"\n")
    except OSError as error:
        raise PerfError(f"cannot write {path}: {error.strerror}; nothing else is lost: make room") from error
