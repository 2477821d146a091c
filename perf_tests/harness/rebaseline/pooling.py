"""Several run records in, one out: the processes of a case that were measured on the same card and stack."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import msgspec

from perf_tests.harness.rebaseline import eligibility
from perf_tests.harness.rebaseline.candidates import RunFile, differences
from perf_tests.harness.runs import environments
from perf_tests.harness.runs.record import Process, Run, RunRecord


@dataclass(frozen=True, kw_only=True, slots=True)
class Pool:
    """One record made of several, and what of them it does not hold."""

    record: RunRecord
    origins: Mapping[str, tuple[RunFile, ...]]
    """Case id -> the records whose processes it holds, in the order in which they were given."""
    left_out: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Case id -> what of it does not pool with the rest, and why: one sentence each."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Offer:
    """A case in one of the records."""

    file: RunFile
    run: Run

    @property
    def name(self) -> str:
        return f"{self.run.id} of {self.file.path}"


@dataclass(frozen=True, kw_only=True, slots=True)
class _Pooled:
    """A case of all records."""

    run: Run
    files: tuple[RunFile, ...]
    left_out: tuple[str, ...]


def pool(files: Sequence[RunFile]) -> Pool:
    """The cases of all `files`, each with the processes that were measured on one card with one stack.

    Of a case on several cards or stacks, the one with the most processes is taken, and of equals the first.
    A process that stands in two records counts once. A single record is taken as it is.
    """
    if len(files) == 1:
        return Pool(record=files[0].record, origins={run.id: (files[0],) for run in files[0].record.cases})
    offers: dict[str, list[_Offer]] = {}
    for file in files:
        for run in file.record.cases:
            offers.setdefault(run.id, []).append(_Offer(file=file, run=run))
    pooled = {case: _pooled(each) for case, each in offers.items()}
    used = [file for file in files if any(file in each.files for each in pooled.values())]
    cases = tuple(each.run for each in pooled.values())
    return Pool(
        record=msgspec.structs.replace(files[0].record, cases=cases, references=_references(cases, used)),
        origins={case: each.files for case, each in pooled.items()},
        left_out={case: each.left_out for case, each in pooled.items()},
    )


def _pooled(offers: Sequence[_Offer]) -> _Pooled:
    objections = {
        position: eligibility.objection_to_run(each.run, each.file.record, None)
        for position, each in enumerate(offers)
    }
    usable = [each for position, each in enumerate(offers) if objections[position] is None]
    # Where none is, the first stands for all, and is refused with its reason as if it were alone.
    first = usable[0] if usable else offers[0]
    refused = tuple(
        f"{each.name} is left out: {objections[position]}"
        for position, each in enumerate(offers)
        if objections[position] is not None and each is not first
    )
    if not usable:
        return _Pooled(run=first.run, files=(first.file,), left_out=refused)
    alike = _largest(usable)
    run, doubled = _joined(alike)
    return _Pooled(
        run=run,
        files=tuple(each.file for each in alike),
        left_out=(*refused, *_unlike(alike, usable), *doubled),
    )


def _largest(offers: Sequence[_Offer]) -> list[_Offer]:
    """Those on the card and stack of most processes; of equals, on that of the first."""
    by_stack: list[list[_Offer]] = []
    for offer in offers:
        alike = next((each for each in by_stack if not _differences(each[0].run, offer.run)), None)
        if alike is None:
            by_stack.append([offer])
        else:
            alike.append(offer)
    return max(by_stack, key=lambda each: sum(len(offer.run.processes) for offer in each))


def _unlike(taken: Sequence[_Offer], offers: Iterable[_Offer]) -> tuple[str, ...]:
    first = taken[0]
    return tuple(
        f"{offer.name} does not pool with {first.file.path}: {'; '.join(found)}"
        for offer in offers
        if (found := _differences(first.run, offer.run))
    )


def _joined(offers: Sequence[_Offer]) -> tuple[Run, tuple[str, ...]]:
    """One run of all their processes, and a sentence for each offer that holds some of an earlier one."""
    processes: list[Process] = []
    doubled: list[str] = []
    for offer in offers:
        new = _new_processes(processes, offer.run)
        if len(new) < len(offer.run.processes):
            count = len(offer.run.processes) - len(new)
            held = "1 process" if count == 1 else f"{count} processes"
            doubled.append(f"{offer.name} holds {held} of a run that was given before: counted once")
        processes += new
    run = msgspec.structs.replace(offers[0].run, processes=tuple(processes), part=None)
    return run, tuple(doubled)


def _new_processes(known: Iterable[Process], run: Run) -> list[Process]:
    measured = [_measured(each) for each in known]
    return [each for each in run.processes if _measured(each) not in measured]


def _measured(process: Process) -> Process:
    """`process` without what names files, which a merge moves."""
    return msgspec.structs.replace(
        process, captures=(), recorded=None, arrays=None, fidelity=None, noise=None, log=""
    )


def _references(cases: Iterable[Run], files: Iterable[RunFile]) -> tuple[Run, ...]:
    """The references of `cases`, each joined over all `files` on each card and stack."""
    wanted = {run.reference for run in cases}
    joined: list[Run] = []
    for file in files:
        for run in (*file.record.references, *file.record.cases):
            if run.id not in wanted or run.failure is not None or not run.processes:
                continue
            alike = [
                at for at, each in enumerate(joined) if each.id == run.id and not _differences(each, run)
            ]
            if not alike:
                joined.append(msgspec.structs.replace(run, part=None))
                continue
            known = joined[alike[0]]
            processes = (*known.processes, *_new_processes(known.processes, run))
            joined[alike[0]] = msgspec.structs.replace(known, processes=processes)
    return tuple(joined)


def _differences(one: Run, other: Run) -> list[str]:
    """What keeps the processes of two runs of a case from being pooled: `name of the one -> of the other`."""
    digests = ({"digest": run.digest} for run in (one, other))
    return [*environments.differences(*digests), *differences(one, other)]
