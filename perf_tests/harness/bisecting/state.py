"""A search in one file, from which it goes on: written after every measurement, replaced atomically."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from itertools import zip_longest
from pathlib import Path

import msgspec

from perf_tests.harness.bisecting.search import BisectPoint, BisectQuestion
from perf_tests.protocol.base import Struct
from perf_tests.protocol.errors import PerfError, RecordError, UsageError
from perf_tests.protocol.files import read_regular, replace_atomically

FORMAT_VERSION = 2


class BisectState(Struct):
    """The content of the file."""

    format_version: int
    question: BisectQuestion
    points: dict[str, BisectPoint]
    log: tuple[str, ...] = ()
    """What was decided, in order."""


def resume(path: Path, question: BisectQuestion, *, retry_skipped: bool = False) -> BisectState:
    """The search in `path`, or a new one where there is none.

    What was measured serves other versions, ends and steps, too. With `retry_skipped`, what could not be
    measured is tried again. Raises RecordError for a file that cannot be read, and for one of another probe
    or other conditions, whose measurements say nothing about this question.
    """
    if not path.exists():
        return BisectState(format_version=FORMAT_VERSION, question=question, points={})
    try:
        found = msgspec.json.decode(read_regular(path), type=BisectState)
    except (OSError, msgspec.DecodeError) as error:
        raise RecordError(f"the search {path} cannot be read: {error}; remove it to begin anew") from error
    _check(path, found, question)
    points = {
        item: point for item, point in found.points.items() if point.value is not None or not retry_skipped
    }
    return msgspec.structs.replace(found, question=question, points=points)


def _check(path: Path, found: BisectState, question: BisectQuestion) -> None:
    begin_anew = "give another --state, or remove it to begin anew"
    if found.format_version != FORMAT_VERSION:
        raise RecordError(
            f"{path} has format {found.format_version}, and this checkout reads {FORMAT_VERSION}: "
            f"{begin_anew}"
        )
    for what, stored, asked in (
        ("probe", found.question.probe, question.probe),
        *zip_longest(("conditions",), found.question.conditions, question.conditions, fillvalue="conditions"),
    ):
        if stored != asked:
            raise RecordError(
                f"{path} holds another search, whose {what} is {stored!r} instead of {asked!r}: {begin_anew}"
            )
    for item, point in found.points.items():
        if point.half < 0 or (point.value is None) != bool(point.reason):
            raise RecordError(
                f"{path}: {item} has neither a value nor a reason why there is none, or has both, or a "
                f"negative half: it was edited; {begin_anew}"
            )


@contextmanager
def held(path: Path) -> Iterator[None]:
    """Keep the search in `path` from others, whose versions would lie in the same folders.

    Raises UsageError where another process has it, or its folder cannot be written to.
    """
    with ExitStack() as stack:
        try:
            lock = stack.enter_context(path.with_suffix(".lock").open("w"))
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UsageError(f"{path}: another process searches already: give another --state") from None
        except OSError as error:
            raise UsageError(f"the search cannot be kept in {path}: {error.strerror}") from error
        yield


def write(path: Path, state: BisectState) -> None:
    """Write the search. Raises PerfError where the disk refuses."""
    try:
        replace_atomically(path, msgspec.json.format(msgspec.json.encode(state), indent=1) + b"\n")
    except OSError as error:
        raise PerfError(f"cannot write {path}: {error.strerror}; nothing else is lost: make room") from error
