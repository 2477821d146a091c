"""The record of a session while it runs: `run.jsonl`, to which every change is appended as one line.

`run.json` is for readers: one indented document, which scripts rely on. To write all of it at each change
takes as long as measuring, once there are hundreds of cases with hundreds of layers. So a session writes it
once, when it ends, also after Ctrl-C and SIGTERM, and until then appends to the journal beside it. The first
line is the record as it was when the session kept its first run, so that a journal never needs another file
to be understood; each further line holds what one change added. Whoever reads a run directory reads the
journal where there is one: it is removed once `run.json` holds the same.

A killed session leaves its journal, at worst with half a line at the end, which is a change that was never
finished: it is left out. A broken line before the end is no such thing, and the whole journal is refused.
Lines with measurements are on the disk before the session goes on. Verdicts are only handed to the kernel:
they survive the session's death, and after a power failure a session that resumes gives them again.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Protocol, TypeVar

import msgspec

from perf_tests.harness.records.attributions import Attribution
from perf_tests.harness.records.evidence import Evidence
from perf_tests.harness.runs.record import (
    CellProcess,
    Comparison,
    Diagonal,
    Progress,
    Run,
    RunRecord,
    Status,
    Verdict,
)
from perf_tests.protocol.base import Struct
from perf_tests.protocol.errors import PerfError
from perf_tests.protocol.files import replace_atomically
from perf_tests.protocol.reports import Environment

JOURNAL = "run.jsonl"


class _Identified(Protocol):
    @property
    def id(self) -> str: ...


E = TypeVar("E", bound=_Identified)
Key = tuple[str, int]
"""The id of an entry, and its number among those of the same id: a reference may be there for each card."""


class NumberedRun(Struct, array_like=True):
    """One entry of a section of the record, with its key."""

    number: int
    run: Run


class Outcome(Struct, array_like=True):
    """What judging changed in a run that is in the journal already."""

    id: str
    number: int
    status: Status
    reason: str
    verdicts: tuple[Verdict, ...]
    progress: Progress

    def applied(self, run: Run) -> Run:
        """The run with this outcome."""
        return msgspec.structs.replace(
            run, status=self.status, reason=self.reason, verdicts=self.verdicts, progress=self.progress
        )


OUTCOME = frozenset({"status", "reason", "verdicts", "progress"})
MEASURED = tuple(name for name in Run.__struct_fields__ if name not in OUTCOME)


class JournalLine(Struct, omit_defaults=True):
    """One line: what differs from the record that all lines before it add up to."""

    environment: Environment | None = None
    missing: tuple[str, ...] | None = None
    cases: tuple[NumberedRun, ...] = ()
    references: tuple[NumberedRun, ...] = ()
    judged: tuple[Outcome, ...] = ()
    """Of cases."""
    comparisons: tuple[Comparison, ...] = ()
    diagonals: tuple[Diagonal, ...] = ()
    cells: tuple[CellProcess, ...] = ()
    attributions: tuple[Attribution, ...] | None = None
    evidence: tuple[Evidence, ...] | None = None

    @property
    def holds_measurements(self) -> bool:
        """Whether it holds anything that a session could not find out again without measuring."""
        return bool(self.cases or self.references or self.comparisons or self.diagonals or self.cells)


# What changed


def change(before: RunRecord, now: RunRecord) -> JournalLine | None:
    """What turns `before` into `now`, but for the order of entries; None where an entry is gone.

    A value counts as unchanged where it is the same object, which spares comparing what was measured.
    """
    known, cases = _that_differ(before.cases, now.cases)
    known_references, references = _that_differ(before.references, now.references)
    if known.keys() - cases.keys() or known_references.keys() - references.keys():
        return None
    new = _changed(known, cases)
    judged = {key: run for key, run in new.items() if key in known and _is_measured_alike(known[key], run)}
    comparisons = _changed(_keyed(before.comparisons), _keyed(now.comparisons))
    return JournalLine(
        environment=None if now.environment == before.environment else now.environment,
        missing=None if now.missing == before.missing else now.missing,
        cases=tuple(NumberedRun(number=key[1], run=run) for key, run in new.items() if key not in judged),
        references=tuple(
            NumberedRun(number=key[1], run=run) for key, run in _changed(known_references, references).items()
        ),
        judged=tuple(
            Outcome(
                id=key[0],
                number=key[1],
                status=run.status,
                reason=run.reason,
                verdicts=run.verdicts,
                progress=run.progress,
            )
            for key, run in judged.items()
        ),
        comparisons=tuple(comparisons.values()),
        diagonals=tuple(_changed(_keyed(before.diagonals), _keyed(now.diagonals)).values()),
        cells=tuple(_changed(_keyed(before.cells), _keyed(now.cells)).values()),
        attributions=None if now.attributions == before.attributions else now.attributions,
        evidence=None if now.evidence == before.evidence else now.evidence,
    )


def replay(record: RunRecord, lines: Iterable[bytes]) -> RunRecord:
    """`record` with the changes in `lines`, in turn; its entries are in the order of their first line.

    Raises msgspec.DecodeError for a line that is no change, and KeyError for a verdict on an unknown run.
    """
    cases, references = _keyed(record.cases), _keyed(record.references)
    comparisons, diagonals = _keyed(record.comparisons), _keyed(record.diagonals)
    cells = _keyed(record.cells)
    for line in lines:
        change = msgspec.json.decode(line, type=JournalLine)
        cases |= _of(change.cases)
        references |= _of(change.references)
        comparisons |= _keyed(change.comparisons)
        diagonals |= _keyed(change.diagonals)
        cells |= _keyed(change.cells)
        for each in change.judged:
            cases[each.id, each.number] = each.applied(cases[each.id, each.number])
        record = msgspec.structs.replace(
            record,
            environment=change.environment or record.environment,
            missing=record.missing if change.missing is None else change.missing,
            attributions=record.attributions if change.attributions is None else change.attributions,
            evidence=record.evidence if change.evidence is None else change.evidence,
        )
    return msgspec.structs.replace(
        record,
        cases=tuple(cases.values()),
        references=tuple(references.values()),
        comparisons=tuple(comparisons.values()),
        diagonals=tuple(diagonals.values()),
        cells=tuple(cells.values()),
    )


def _that_differ(before: Sequence[E], now: Sequence[E]) -> tuple[dict[Key, E], dict[Key, E]]:
    """Both, by key; without what is the same in both where only single entries were replaced."""
    if len(before) == len(now):
        replaced = [(old, new) for old, new in zip(before, now, strict=True) if old is not new]
        ids = {old.id for old, _ in replaced}
        # With another entry of its id, the number of an entry depends on those that are left out.
        are_alone = sum(entry.id in ids for entry in now) == len(ids) == len(replaced)
        if are_alone and all(old.id == new.id for old, new in replaced):
            return {(old.id, 0): old for old, _ in replaced}, {(new.id, 0): new for _, new in replaced}
    return _keyed(before), _keyed(now)


def _keyed(entries: Sequence[E]) -> dict[Key, E]:
    keyed = {(entry.id, 0): entry for entry in entries}
    if len(keyed) == len(entries):
        return keyed
    numbered: dict[Key, E] = {}
    for entry in entries:
        number = sum(entry_id == entry.id for entry_id, _ in numbered)
        numbered[entry.id, number] = entry
    return numbered


def _of(entries: Iterable[NumberedRun]) -> dict[Key, Run]:
    return {(entry.run.id, entry.number): entry.run for entry in entries}


def _changed(before: Mapping[Key, E], now: Mapping[Key, E]) -> dict[Key, E]:
    return {key: entry for key, entry in now.items() if before.get(key) is not entry}


def _is_measured_alike(before: Run, now: Run) -> bool:
    return all(getattr(before, name) is getattr(now, name) for name in MEASURED)


# The file


class Journal:
    """The journal of one session, which it alone writes."""

    def __init__(self, folder: Path) -> None:
        """In the run directory `folder`; the first record that is written begins it."""
        self.path = folder / JOURNAL
        self._written: RunRecord | None = None
        self._descriptor: int | None = None
        self._size = 0

    def write(self, record: RunRecord) -> None:
        """Append what differs from the record that was written last.

        Raises PerfError where that cannot be done; the lines before are then intact, and the next call writes
        what this one could not.
        """
        known = None if self._written is None else change(self._written, record)
        try:
            if known is None or self._descriptor is None:
                self._begin(record)
            elif known != JournalLine():
                self._append(self._descriptor, known)
        except OSError as error:
            raise PerfError(
                f"cannot write {self.path}: {error.strerror}; nothing measured is lost while this session "
                "lives: make room, or choose another directory with --perf-out"
            ) from error
        self._written = record

    def remove(self) -> None:
        """Remove the file, because another one holds what it says. Idempotent.

        Raises PerfError where that cannot be done.
        """
        self.close()
        try:
            self.path.unlink(missing_ok=True)
        except OSError as error:
            raise PerfError(f"cannot remove {self.path}: {error.strerror}; remove it by hand") from error

    def close(self) -> None:
        """Close the file, which stays. Idempotent."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def _begin(self, record: RunRecord) -> None:
        self.close()
        line = msgspec.json.encode(record) + b"\n"
        replace_atomically(self.path, line)
        self._descriptor = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
        self._size = len(line)

    def _append(self, descriptor: int, change: JournalLine) -> None:
        line = msgspec.json.encode(change) + b"\n"
        try:
            _write_all(descriptor, line)
            if change.holds_measurements:
                os.fsync(descriptor)
        except BaseException:  # the next line must not follow half of this one
            with suppress(OSError):
                os.ftruncate(descriptor, self._size)
            raise
        self._size += len(line)


def _write_all(descriptor: int, content: bytes) -> None:
    left = memoryview(content)
    while left:
        left = left[os.write(descriptor, left) :]
