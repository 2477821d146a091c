"""A run record in, baseline files out: what `tools/rebaseline.py` proposes and writes."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

import msgspec

from perf_tests.harness.baselines import files, instruction_sets, register, transaction
from perf_tests.harness.baselines.entry import Baselines, Entry, Provenance, accepted_of, key_of
from perf_tests.harness.baselines.instruction_sets import OfInstructions
from perf_tests.harness.rebaseline import acceptance, eligibility, store
from perf_tests.harness.rebaseline.candidates import (
    CASES,
    METRIC_NAMES,
    drift_of,
    entry_of,
    first_reference,
    provenance_of,
)
from perf_tests.harness.rebaseline.pooling import Pool
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
    """How far the new value has moved from the first reference; None where drift is not limited."""
    instructions: str | None = None
    """The instruction set that both are of; None where the metric does not follow it."""

    @property
    def change_pct(self) -> float | None:
        """Percent of the old value; None where either is missing or the old one is zero."""
        if self.old is None or self.new is None or self.old == 0:
            return None
        return (self.new / self.old - 1.0) * 100.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Proposal:
    """What accepting a run would do to the files."""

    root: Path
    """The folder of the files."""
    changes: tuple[Change, ...]
    ineligible: tuple[str, ...]
    """One sentence for each selected case that cannot be accepted."""
    baselines: Mapping[tuple[str, str], Baselines]
    """Platform and pipeline -> what would be accepted, for those of which anything changes."""
    noise: Mapping[Path, Mapping[str, Noise]]
    """Noise file -> its new content, metric -> noise, for the files that would be written."""
    unshown: tuple[str, ...] = ()
    """Cases whose entry changes although no median does: in the number of processes, in the seconds, which
    are not judged, or in the first reference."""
    accepted: tuple[str, ...] = ()
    """What each case whose entry changes rests on, one sentence each."""
    left_out: tuple[str, ...] = ()
    """What of several runs was not pooled, one sentence each."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Terms:
    """On which terms numbers are accepted."""

    reason: str
    platform: str | None = None
    """Its id: runs of others are refused; None accepts all."""
    first_reason: str = ""
    """Why these numbers become the first reference as well; empty: it stays as it is."""
    replace_settled: bool = False
    """Whether fewer than three processes may replace a baseline of three or more."""


def propose(source: Pool, *, root: Path, patterns: tuple[str, ...], terms: Terms) -> Proposal:
    """What accepting the cases of `source` that match one of `patterns` would change under `root`.

    Writes nothing. Raises UsageError for a pattern without a match and for an unknown platform, BaselineError
    for a store that cannot be read.
    """
    _require_known(terms.platform)
    ineligible: dict[str, str] = {}
    proposed: dict[tuple[str, str], Baselines] = {}
    changes: list[Change] = []
    unshown: list[str] = []
    accepted: list[str] = []
    selected = _selected(source.record, patterns)
    for run in selected:
        objection = eligibility.objection_to_run(run, source.record, terms.platform)
        if objection is not None:
            ineligible[run.id] = objection
            continue
        key = (run.platform, run.pipeline)
        before = proposed.get(key) or files.read(root, *key)
        after = _with(before, run, source, terms)
        objection = _objection_to_numbers(root, run, after) or _objection_to_fewer(before, run, after, terms)
        if objection is not None:
            ineligible[run.id] = objection
            continue
        changed = _changes(run.id, before, after)
        changes.extend(changed)
        if after != before:
            proposed[key] = after
            unshown.extend(() if changed else (run.id,))
            accepted.append(acceptance.sentence(run, after.cases[run.id], len(source.origins[run.id])))
    return Proposal(
        root=root,
        changes=tuple(changes),
        ineligible=tuple(f"{case}: {objection}" for case, objection in ineligible.items()),
        baselines=proposed,
        noise=store.changed_noise(root, tuple(proposed.values())),
        unshown=tuple(unshown),
        accepted=tuple(accepted),
        left_out=tuple(each for run in selected for each in source.left_out.get(run.id, ())),
    )


def write(proposal: Proposal) -> None:
    """Write all files of the proposal or none; to be proposed and written within one `transaction.exclusive`.

    Raises UsageError, and writes nothing, where a case is not eligible, and what `transaction.replace_all`
    raises.
    """
    if proposal.ineligible:
        raise UsageError("nothing was written: " + "; ".join(proposal.ineligible))
    baselines: dict[Path, str | None] = {}
    for each in proposal.baselines.values():
        baselines |= files.contents(proposal.root, each)
    noise = {path: files.dumps_noise(each) for path, each in proposal.noise.items()}
    transaction.replace_all(proposal.root, baselines | noise | _registers(proposal))


def _registers(proposal: Proposal) -> dict[Path, str]:
    """Register -> its new text, for those that change."""
    changed: dict[Path, str] = {}
    for platform_id in {platform for platform, _ in proposal.baselines}:
        written = [each.cases for each in proposal.baselines.values() if each.platform == platform_id]
        text = register.with_entries(
            proposal.root, platform_id, (case for cases in written for case in cases)
        )
        if text is not None:
            changed[register.path_of(proposal.root, platform_id)] = text
    return changed


def commit_message(proposal: Proposal, reason: str) -> str:
    """A conventional commit message for committing the files of `proposal`."""
    platforms = ",".join(sorted({platform for platform, _ in proposal.baselines}))
    return "\n".join(
        (f"baseline({platforms}): {reason.strip()}", "", *(f"- {each}" for each in proposal.accepted))
    )


def _require_known(platform: str | None) -> None:
    if platform is not None and platform not in PLATFORM_BY_ID:
        raise UsageError(f"--platform {platform!r} is not one of {', '.join(PLATFORM_BY_ID)}")


def _objection_to_numbers(root: Path, run: Run, after: Baselines) -> str | None:
    entry = after.cases[run.id]
    measured = instruction_sets.instructions(after.provenance[entry.provenance].settings)
    if entry.other_instructions and measured is None:
        return (
            "it does not say which instruction set it was measured with, and the baseline holds numbers of "
            f"{' and '.join(sorted(entry.other_instructions))}: measure it again with this checkout"
        )
    noise = store.noise_in_force(root, PLATFORM_BY_ID[run.platform])
    return eligibility.objection_to_entry(run.id, entry, noise)


def _objection_to_fewer(before: Baselines, run: Run, after: Baselines, terms: Terms) -> str | None:
    """Why so few processes do not replace what was accepted with the same instructions."""
    if terms.replace_settled:
        return None
    if run.id not in before.cases or before.cases[run.id].digest != run.digest:
        return None
    entry = after.cases[run.id]
    measured = instruction_sets.instructions(after.provenance[entry.provenance].settings)
    accepted = accepted_of(before, run.id)
    recorded = instruction_sets.instructions(accepted.provenance.settings)
    old = accepted if measured in (None, recorded) or recorded is None else accepted.others.get(measured)
    if old is None or old.entry.provisional or not entry.provisional:
        return None
    return (
        f"its baseline is settled, of {old.entry.processes} processes, and {entry.processes} would replace "
        "them, which gate only larger changes: measure it with --perf-processes 3, name other runs of the "
        "same card and stack as well, or say --replace-settled"
    )


def _selected(record: RunRecord, patterns: tuple[str, ...]) -> tuple[Run, ...]:
    for pattern in patterns:
        if not any(fnmatchcase(run.id, pattern) for run in record.cases):
            ids = ", ".join(sorted(run.id for run in record.cases)) or "none"
            raise UsageError(f"--only {pattern!r} matches no case of the run; its cases are: {ids}")
    return tuple(run for run in record.cases if any(fnmatchcase(run.id, each) for each in patterns))


# Entries


def _with(before: Baselines, run: Run, source: Pool, terms: Terms) -> Baselines:
    first_reason = terms.first_reason.strip()
    provenance = provenance_of(run, source.origins[run.id], terms.reason)
    key = key_of(provenance)
    old = before.cases.get(run.id)
    measured = entry_of(run, source.record, key)
    # A case with another digest is another case, so the old first reference does not apply to it.
    kept = None if first_reason or old is None or old.digest != run.digest else old
    entry = msgspec.structs.replace(
        measured,
        first=first_reference(measured, PLATFORM_BY_ID[run.platform], CASES[run.id].case, kept),
        first_reason=first_reason or (kept.first_reason if kept else ""),
        other_instructions=_other_instructions(before, run, provenance),
    )
    # Numbers that stay the same keep their provenance: accepting a run twice changes nothing, and accepting
    # one again whose seconds were not recorded adds them.
    if old is not None and _has_same_numbers(entry, old):
        kept = msgspec.structs.replace(entry, provenance=old.provenance)
        return msgspec.structs.replace(before, cases={**before.cases, run.id: kept})
    cases = {**before.cases, run.id: entry}
    named = {each.provenance for each in cases.values()}
    named |= {each.provenance for entry in cases.values() for each in entry.other_instructions.values()}
    known = {**before.provenance, key: provenance}
    return msgspec.structs.replace(
        before, cases=cases, provenance={name: each for name, each in known.items() if name in named}
    )


def _other_instructions(before: Baselines, run: Run, now: Provenance) -> dict[str, OfInstructions]:
    """What the entry of `run`, measured as `now` says, keeps of what was recorded with other instructions."""
    old = before.cases.get(run.id)
    if old is None or old.digest != run.digest:
        return {}
    measured = instruction_sets.instructions(now.settings)
    recorded = instruction_sets.instructions(before.provenance[old.provenance].settings)
    following = instruction_sets.following(before.platform) & old.metrics.keys()
    sets = dict(old.other_instructions)
    if recorded is not None and following:
        sets[recorded] = OfInstructions(
            provenance=old.provenance,
            processes=old.processes,
            metrics={name: old.metrics[name] for name in sorted(following)},
        )
    return {name: each for name, each in sets.items() if name != measured}


def _has_same_numbers(new: Entry, old: Entry) -> bool:
    """Whether two entries differ at most in what is recorded about their numbers."""
    about = ("provenance", "seconds", "samples", "reference_processes")
    return msgspec.structs.replace(new, **{name: getattr(old, name) for name in about}) == old


def _changes(case: str, before: Baselines, after: Baselines) -> tuple[Change, ...]:
    new = after.cases[case]
    measured = instruction_sets.instructions(after.provenance[new.provenance].settings)
    following = instruction_sets.following(after.platform) if measured is not None else frozenset()
    old = _metrics_before(before, case, measured)
    return tuple(
        Change(
            case=case,
            metric=name,
            old=_median(old.get(name)),
            new=_median(new.metrics.get(name)),
            since_first_pct=_since_first_pct(new, name),
            instructions=measured if name in following else None,
        )
        # A metric that was removed from the table is removed from the file, too, and shown as it goes.
        for name in dict.fromkeys((*METRIC_NAMES, *old))
        if _median(old.get(name)) != _median(new.metrics.get(name))
    )


def _metrics_before(before: Baselines, case: str, measured: str | None) -> Mapping[str, tuple[float, ...]]:
    """What numbers of the instruction set `measured` replace: nothing that was recorded with another one."""
    if case not in before.cases:
        return {}
    accepted = accepted_of(before, case)
    recorded = instruction_sets.instructions(accepted.provenance.settings)
    if measured is None or recorded in (None, measured):
        return accepted.entry.metrics
    if measured in accepted.others:
        return accepted.others[measured].entry.metrics
    following = instruction_sets.following(before.platform)
    return {name: values for name, values in accepted.entry.metrics.items() if name not in following}


def _since_first_pct(entry: Entry, name: str) -> float | None:
    moved = drift_of(entry, name) if name in entry.metrics else None
    return None if moved is None else moved.change_pct


def _median(values: tuple[float, ...] | None) -> float | None:
    return None if values is None else statistics.median(values)
