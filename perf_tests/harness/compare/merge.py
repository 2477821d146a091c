"""The records of the shards of one selection in, one record of all of them out; pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import msgspec

from perf_tests.harness.rebaseline.candidates import CASES
from perf_tests.harness.records.evidence import Evidence
from perf_tests.harness.records.fidelity import Fidelity
from perf_tests.harness.runs import environments
from perf_tests.harness.runs.plan import BUILD, Part, Plan, PlannedCase
from perf_tests.harness.runs.record import (
    FORMAT_VERSION,
    Comparison,
    Pair,
    Process,
    Progress,
    Run,
    RunRecord,
    Status,
)
from perf_tests.protocol.errors import UsageError
from perf_tests.protocol.reports import Arrays, Capture
from perf_tests.tables.platforms import PLATFORMS

GPU_PLATFORMS = frozenset(platform.id for platform in PLATFORMS if platform.gpu is not None)
MAX_NAMED = 3
"""Cases that an error names."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PartialRun:
    """The run of one shard of a selection."""

    path: Path
    """Its directory, as it was asked for."""
    record: RunRecord
    plan: Plan
    number: int
    """From 1."""
    count: int
    sha256: str
    """Of the file that holds its record."""

    @property
    def folder(self) -> str:
        """Where its files lie in each folder of the merged directory."""
        return f"part-{self.number}"

    def __str__(self) -> str:
        return f"{self.path} ({self.number}/{self.count})"


def shard_of(path: Path, record: RunRecord, sha256: str) -> PartialRun:
    """The run of a shard in the directory `path`. Raises UsageError for one that is no shard."""
    plan = record.plan
    if plan is None:
        raise UsageError(
            f"{path} does not say what it was to measure: it was written by a checkout from before there was "
            "anything to merge; measure it again"
        )
    if plan.shard is None:
        kind = "merged already" if plan.parts else "a whole run"
        raise UsageError(f"{path} is {kind}, not a part of one: give the runs of --perf-shard=1/n to n/n")
    number, count = plan.shard
    return PartialRun(path=path, record=record, plan=plan, number=number, count=count, sha256=sha256)


# Do they belong together?


def check(shards: Sequence[PartialRun]) -> None:
    """Raise UsageError unless `shards` are those of one selection, measured by one commit on one stack: each
    planned case in exactly one of them."""
    first = shards[0]
    for other in shards[1:]:
        _check_alike(first, other)
        _check_machines(first, other)
    for planned in first.plan.cases:
        known = CASES.get(planned.id)
        if known is None or known.case.digest != planned.digest:
            raise UsageError(
                f"{first} planned {planned.id}, which is {'another case' if known else 'no case'} in this "
                f"checkout: merge with the one that measured it, commit {first.plan.commit}"
            )
    _check_places(shards)


def _check_alike(first: PartialRun, other: PartialRun) -> None:
    asked = "only shards of one selection can be merged"
    if other.count != first.count:
        raise UsageError(f"{first} and {other} are not shards of one selection: give all parts of one i/n")
    for each in (first, other):
        if each.plan.commit is None:
            raise UsageError(
                f"{each} does not say which commit measured it: measure in a checkout, where git can be run"
            )
    if first.plan.commit != other.plan.commit:
        raise UsageError(
            f"{first} was measured by commit {first.plan.commit}, {other} by {other.plan.commit}: measure "
            "all parts in checkouts of one commit, with the same changes or none"
        )
    before, now = _digests(first), _digests(other)
    if changes := environments.differences(before, now):
        more = f" and {len(changes) - MAX_NAMED} more" if len(changes) > MAX_NAMED else ""
        raise UsageError(
            f"{asked}; from {first} to {other}, digests of planned cases differ: "
            f"{', '.join(changes[:MAX_NAMED])}{more}; measure all parts with the same -m, -k and "
            "--perf-case, on machines of one kind"
        )
    if first.plan.noisy_metrics != other.plan.noisy_metrics:
        raise UsageError(
            f"{asked}; {first} shares the error level among {first.plan.noisy_metrics} noisy metrics, "
            f"{other} among {other.plan.noisy_metrics}: measure all parts with the same tests of the suite"
        )


def _check_machines(first: PartialRun, other: PartialRun) -> None:
    if len(kinds := sorted(_gpus(first) | _gpus(other))) > 1:
        raise UsageError(
            f"{first} and {other} were measured on {' and '.join(kinds)}: measure all parts on "
            "machines of one kind"
        )
    if changes := _stack_differences(first.record, other.record):
        raise UsageError(
            f"the stack changed from {first} to {other}: {', '.join(changes)}; measure all parts on one stack"
        )


def _gpus(shard: PartialRun) -> set[str]:
    """The platforms with a GPU among those of its cases."""
    return {run.platform for run in shard.record.cases} & GPU_PLATFORMS


def _digests(shard: PartialRun) -> dict[str, str]:
    return {planned.id: planned.digest[:12] for planned in shard.plan.cases}


def _stack_differences(one: RunRecord, other: RunRecord) -> list[str]:
    if one.environment is None or other.environment is None:
        return []  # in one of them no worker was ready, and so nothing was measured
    return environments.differences(
        {**one.environment.packages, "python": one.environment.python},
        {**other.environment.packages, "python": other.environment.python},
    )


def _check_places(shards: Sequence[PartialRun]) -> None:
    takers: dict[str, list[PartialRun]] = {planned.id: [] for planned in shards[0].plan.cases}
    for shard in shards:
        taken = [planned.id for planned in shard.plan.cases if planned.owed is not None]
        for case_id in taken:
            takers[case_id].append(shard)
        if foreign := sorted({run.id for run in shard.record.cases}.difference(taken)):
            raise UsageError(
                f"{shard} holds {_cases(foreign)} that its last session did not select: measure that part "
                "again, in a directory of its own"
            )
    if twice := [case_id for case_id, found in takers.items() if len(found) > 1]:
        both = " and ".join(str(each) for each in takers[twice[0]])
        raise UsageError(f"{both} both took {_cases(twice)}: give each of the parts once")
    if nowhere := [case_id for case_id, found in takers.items() if not found]:
        numbers = {shard.number for shard in shards}
        count = shards[0].count
        absent = [f"{number}/{count}" for number in range(1, count + 1) if number not in numbers]
        lacking = f"; {', '.join(absent)} {'is' if len(absent) == 1 else 'are'} missing" if absent else ""
        raise UsageError(
            f"no part took {_cases(nowhere)}, of {len(takers)} planned{lacking}: give the run of every part, "
            "all dealt out by the same baselines"
        )


def _cases(case_ids: Sequence[str]) -> str:
    names = ", ".join(case_ids[:MAX_NAMED])
    more = f" and {len(case_ids) - MAX_NAMED} more" if len(case_ids) > MAX_NAMED else ""
    return f"{len(case_ids)} {'case' if len(case_ids) == 1 else 'cases'} ({names}{more})"


# Joining


def merged(shards: Sequence[PartialRun]) -> RunRecord:
    """One record of all `shards`, for which `check` raises nothing, in the order of the matrix.

    The verdicts are those of the shards. What a shard owes and its record does not hold is missing, also
    where the session was killed before it could say so. Files are referred to as `files_of` places them.
    """
    ordered = sorted(shards, key=lambda shard: shard.number)
    order = {case_id: position for position, case_id in enumerate(CASES)}
    runs = [_placed(run, shard) for shard in ordered for run in shard.record.cases]
    compared = [_compared(each, shard.folder) for shard in ordered for each in shard.record.comparisons]
    return RunRecord(
        format_version=FORMAT_VERSION,
        created_at=min(shard.record.created_at for shard in ordered),
        command=ordered[0].record.command,
        environment=next((s.record.environment for s in ordered if s.record.environment), None),
        cases=tuple(sorted(runs, key=lambda run: order[run.id])),
        references=tuple(_placed(run, shard) for shard in ordered for run in shard.record.references),
        missing=tuple(sorted({each for shard in ordered for each in _missing(shard)})),
        comparisons=tuple(sorted(compared, key=lambda each: order[each.id])),
        plan=_plan(ordered, order),
        diagonals=tuple(
            msgspec.structs.replace(each, comparison=_compared(each.comparison, shard.folder))
            for shard in ordered
            for each in shard.record.diagonals
        ),
        cells=tuple(
            msgspec.structs.replace(each, process=each.process and _process(each.process, shard.folder))
            for shard in ordered
            for each in shard.record.cells
        ),
        attributions=tuple(each for shard in ordered for each in shard.record.attributions),
        evidence=tuple(_located(each, shard.folder) for shard in ordered for each in shard.record.evidence),
    )


def _plan(shards: Sequence[PartialRun], order: Mapping[str, int]) -> Plan:
    taken = [planned for shard in shards for planned in shard.plan.cases if planned.owed is not None]
    return Plan(
        cases=tuple(sorted(taken, key=lambda planned: order[planned.id])),
        noisy_metrics=shards[0].plan.noisy_metrics,
        commit=shards[0].plan.commit,
        parts=tuple(
            Part(
                shard=(shard.number, shard.count),
                created_at=shard.record.created_at,
                command=shard.record.command,
                sha256=shard.sha256,
            )
            for shard in shards
        ),
    )


def _missing(shard: PartialRun) -> Iterator[str]:
    """`case: metric` for each that the shard owes: without a verdict, or said to lack one."""
    runs = {run.id: run for run in shard.record.cases}
    yield from shard.record.missing
    for planned in shard.plan.cases:
        for name in _unsettled(planned, runs.get(planned.id)):
            yield f"{planned.id}: {name}"


def _unsettled(planned: PlannedCase, run: Run | None) -> set[str]:
    owed = set(planned.owed or ())
    if run is None:
        return owed
    if run.failure is not None or run.status is Status.NOT_RUN:
        return set()  # the status stands for all of its metrics
    built = {BUILD} if run.progress in (Progress.MEASURED, Progress.JUDGED) else set()
    return owed - built - {verdict.metric for verdict in run.verdicts}


# Where the files of a shard are


def placed(path: str, folder: str) -> str:
    """The path of a shard's file in the merged directory: `logs/x` is `logs/FOLDER/x`; empty stays empty."""
    if not path:
        return path
    first, *rest = PurePosixPath(path).parts
    return str(PurePosixPath(first, folder, *rest))


def _placed(run: Run, shard: PartialRun) -> Run:
    processes = tuple(_process(process, shard.folder) for process in run.processes)
    return msgspec.structs.replace(run, processes=processes, part=shard.number)


def _located(evidence: Evidence, folder: str) -> Evidence:
    return msgspec.structs.replace(
        evidence,
        script=placed(evidence.script, folder),
        traces={side: placed(file, folder) for side, file in evidence.traces.items()},
        snapshot=placed(evidence.snapshot, folder),
    )


def _compared(comparison: Comparison, folder: str) -> Comparison:
    pairs = tuple(
        Pair(stable=_process(pair.stable, folder), candidate=_process(pair.candidate, folder))
        for pair in comparison.pairs
    )
    return msgspec.structs.replace(comparison, pairs=pairs)


def _process(process: Process, folder: str) -> Process:
    recorded = process.recorded
    return msgspec.structs.replace(
        process,
        log=placed(process.log, folder),
        captures=tuple(_capture(each, folder) for each in process.captures),
        arrays=process.arrays and _arrays(process.arrays, folder),
        fidelity=process.fidelity and _fidelity(process.fidelity, folder),
        noise=process.noise and _fidelity(process.noise, folder),
        recorded=recorded
        and msgspec.structs.replace(
            recorded,
            arrays=_arrays(recorded.arrays, folder),
            picture=recorded.picture and _capture(recorded.picture, folder),
        ),
    )


def _capture(capture: Capture, folder: str) -> Capture:
    return msgspec.structs.replace(
        capture, array=placed(capture.array, folder), image=placed(capture.image, folder)
    )


def _arrays(arrays: Arrays, folder: str) -> Arrays:
    return msgspec.structs.replace(arrays, file=placed(arrays.file, folder))


def _fidelity(fidelity: Fidelity, folder: str) -> Fidelity:
    arrays = tuple(placed(each, folder) for each in fidelity.reference_arrays)
    return msgspec.structs.replace(fidelity, reference_arrays=arrays)
