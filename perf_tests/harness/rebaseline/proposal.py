"""Run records in, baseline files out: what `tools/rebaseline.py` proposes and writes."""

from __future__ import annotations

import hashlib
import json
import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

import msgspec

from perf_tests.harness.baselines import files as baseline_files
from perf_tests.harness.baselines.files import Baselines, Entry, Provenance
from perf_tests.harness.rebaseline import eligibility, store
from perf_tests.harness.rebaseline.candidates import (
    CASES,
    METRIC_NAMES,
    RunFile,
    drift_of,
    entry_of,
    first_reference,
    provenance_of,
)
from perf_tests.harness.runs.record import Run, RunRecord
from perf_tests.protocol.errors import UsageError
from perf_tests.tables.platforms import PLATFORM_BY_ID, Noise


@dataclass(frozen=True, kw_only=True, slots=True)
class Change:
    """One metric whose accepted numbers would change; medians over processes."""

    case: str
    metric: str
    old: float | None
    """None where it has no baseline."""
    new: float | None
    """None where the run no longer measures it."""
    since_first_pct: float | None
    """From the first reference; None where it is not held against one."""

    @property
    def change_pct(self) -> float | None:
        """None where there is nothing to divide by."""
        if self.old is None or self.new is None or self.old == 0:
            return None
        return (self.new / self.old - 1.0) * 100.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Proposal:
    """What blessing would do to the files."""

    changes: tuple[Change, ...]
    refusals: tuple[str, ...]
    """One sentence per selected case that cannot be blessed."""
    files: Mapping[Path, Baselines]
    """Only those that would be written."""
    noise: Mapping[Path, Mapping[str, Noise]]
    """The same of the noise that the processes of all entries of a platform show together."""
    unshown: tuple[str, ...] = ()
    """Cases of which no metric changes, but something else in the file: what a process takes, which nobody
    judges, or the first reference."""


def propose(
    source: RunFile,
    *,
    root: Path,
    patterns: tuple[str, ...],
    reason: str,
    platform: str | None,
    first_reason: str = "",
) -> Proposal:
    """What the cases of the run that match one of `patterns` would change under `root`.

    With a `first_reason` their numbers become the first reference, too, which else stays as it is. Raises
    UsageError for a pattern without a match or an unknown platform, BaselineError for a store that cannot be
    read. Writes nothing.
    """
    if platform is not None and platform not in PLATFORM_BY_ID:
        raise UsageError(f"--platform {platform!r} is not one of {', '.join(PLATFORM_BY_ID)}")
    runs = _selected(source.record, patterns)
    refused = {run.id: eligibility.of_run(run, source.record, platform) for run in runs}
    files: dict[Path, Baselines] = {}
    changes: list[Change] = []
    unshown: list[str] = []
    for run in runs:
        if refused[run.id] is not None:
            continue
        path = baseline_files.path_of(root, run.platform, run.pipeline)
        before = files.get(path) or _read_or_empty(path, run)
        after = _with(before, run, source, reason, first_reason.strip())
        noise = baseline_files.load_noise(root, PLATFORM_BY_ID[run.platform])
        refused[run.id] = eligibility.of_entry(run.id, after.cases[run.id], noise)
        if refused[run.id] is not None:
            continue
        of_run = _changes(run.id, before.cases.get(run.id), after.cases[run.id])
        changes.extend(of_run)
        if after != before:
            files[path] = after
            unshown.extend(() if of_run else (run.id,))
    return Proposal(
        changes=tuple(changes),
        refusals=tuple(f"{case}: {why}" for case, why in refused.items() if why is not None),
        files=files,
        noise=store.changed_noise(root, files),
        unshown=tuple(unshown),
    )


def write(proposal: Proposal) -> None:
    """Write what is proposed. Raises UsageError, having written nothing, where a case is refused."""
    if proposal.refusals:
        raise UsageError("nothing was written: " + "; ".join(proposal.refusals))
    for path, baselines in proposal.files.items():
        baseline_files.write(path, baselines)
    for path, noise in proposal.noise.items():
        baseline_files.write_noise(path, noise)


def commit_message(proposal: Proposal, reason: str) -> str:
    """A conventional commit message for the files of `proposal`."""
    platforms = ",".join(sorted({baselines.platform for baselines in proposal.files.values()}))
    cases = sorted({*(change.case for change in proposal.changes), *proposal.unshown})
    return "\n".join((f"baseline({platforms}): {reason.strip()}", "", *(f"- {case}" for case in cases)))


def _selected(record: RunRecord, patterns: tuple[str, ...]) -> tuple[Run, ...]:
    for pattern in patterns:
        if not any(fnmatchcase(run.id, pattern) for run in record.cases):
            ids = ", ".join(sorted(run.id for run in record.cases)) or "none"
            raise UsageError(f"--only {pattern!r} matches no case of the run; its cases are: {ids}")
    return tuple(run for run in record.cases if any(fnmatchcase(run.id, each) for each in patterns))


# Entries


def _read_or_empty(path: Path, run: Run) -> Baselines:
    if path.exists():
        return baseline_files.read(path)
    return Baselines(
        format_version=baseline_files.FORMAT_VERSION,
        platform=run.platform,
        pipeline=run.pipeline,
        cases={},
        provenance={},
    )


def _with(before: Baselines, run: Run, source: RunFile, reason: str, first_reason: str) -> Baselines:
    provenance = provenance_of(run, source, reason)
    key = _key(provenance)
    old = before.cases.get(run.id)
    measured = entry_of(run, source.record, key)
    # Another digest is another case: what it was compared with is no first of it.
    kept = None if first_reason or old is None or old.digest != run.digest else old
    entry = msgspec.structs.replace(
        measured,
        first=first_reference(measured, PLATFORM_BY_ID[run.platform], CASES[run.id].case, kept),
        first_reason=first_reason or (kept.first_reason if kept else ""),
    )
    # The same numbers again keep their first reason: to bless a run twice changes nothing, and to bless one
    # that was recorded without its seconds adds them.
    if old is not None and _is_same(entry, old):
        kept = msgspec.structs.replace(entry, provenance=old.provenance)
        return msgspec.structs.replace(before, cases={**before.cases, run.id: kept})
    cases = {**before.cases, run.id: entry}
    named = {each.provenance for each in cases.values()}
    known = {**before.provenance, key: provenance}
    return msgspec.structs.replace(
        before, cases=cases, provenance={name: each for name, each in known.items() if name in named}
    )


def _is_same(new: Entry, old: Entry) -> bool:
    """Whether the accepted numbers are the same, wherever they come from."""
    besides = ("provenance", "seconds", "samples", "reference_processes")
    return msgspec.structs.replace(new, **{name: getattr(old, name) for name in besides}) == old


def _key(provenance: Provenance) -> str:
    canonical = json.dumps(msgspec.to_builtins(provenance), sort_keys=True)
    return hashlib.sha256(canonical.encode()).hexdigest()[:12]


def _changes(case: str, old: Entry | None, new: Entry) -> tuple[Change, ...]:
    before = old.metrics if old else {}
    return tuple(
        Change(
            case=case,
            metric=name,
            old=_median(before.get(name)),
            new=_median(new.metrics.get(name)),
            since_first_pct=_since_first_pct(new, name),
        )
        # A metric that has left the table leaves the file, too: not without being shown.
        for name in dict.fromkeys((*METRIC_NAMES, *before))
        if before.get(name) != new.metrics.get(name)
    )


def _since_first_pct(entry: Entry, name: str) -> float | None:
    moved = drift_of(entry, name) if name in entry.metrics else None
    return None if moved is None else moved.change_pct


def _median(values: tuple[float, ...] | None) -> float | None:
    return None if values is None else statistics.median(values)
