"""Records what may explain red cases, in workers of their own, once everything of the session is timed."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import msgspec

from perf_tests.harness.ab.campaign import MAX_PAIRS
from perf_tests.harness.ab.pairs import PairRunner, SideError
from perf_tests.harness.attribution.clusters import Suspect
from perf_tests.harness.execution.campaign import Campaign
from perf_tests.harness.execution.lane import Lane
from perf_tests.harness.profiles.matching import step_change
from perf_tests.harness.profiles.wanted import Wanted
from perf_tests.harness.records.evidence import Evidence
from perf_tests.harness.reproducing import measured
from perf_tests.harness.runs.directory import PROFILES, REPRO
from perf_tests.harness.runs.record import Side, status_of
from perf_tests.protocol.errors import PerfError
from perf_tests.protocol.messages import Phase
from perf_tests.protocol.profiles import KernelTime, Profile, Profiled, Snapshot, Snapshotted

LIMIT_MB = 8.0
"""Of each trace and snapshot: those of three cases leave room for the rest of an upload."""
INDEX = MAX_PAIRS
"""Of the workers' logs: no pair has it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Gatherer:
    """Records the evidence on red cases of one session."""

    campaign: Campaign
    out: Path
    """The run directory, as an absolute path."""
    runner: Callable[[Lane], PairRunner]
    """Starts workers of the candidate, and of the stable stack where the session has one."""
    lacks: Callable[[float], str | None]
    """Why nothing is begun that takes so many seconds; None where it may be."""

    def gather(self, found: Iterable[Wanted]) -> None:
        """Record what is wanted of each case, and file it at once; what a resumed session has is kept.

        What fails is a sentence of the record. Raises PerfError where the record cannot be written.
        """
        store = self.campaign.store
        known = {each.id: each for each in store.evidence}
        for each in found:
            case_id = each.suspect.run.id
            if case_id not in known or _is_incomplete(known[case_id], each):
                known[case_id] = self._of_any(each)
                store.evidence = tuple(known.values())
                store.write()

    def _of_any(self, wanted: Wanted) -> Evidence:
        try:
            return self._of(wanted)
        except Exception as error:  # noqa: BLE001 - the verdicts are given, and nothing here is worth them
            why = f"{type(error).__name__}: {error}"
            return _without(Evidence(id=wanted.suspect.run.id), wanted, why)

    def _of(self, wanted: Wanted) -> Evidence:
        evidence = self._with_script(wanted)
        if not (wanted.profile or wanted.snapshot):
            return evidence
        if why := self.lacks(_seconds(wanted)):
            return _without(evidence, wanted, why)
        suspect = wanted.suspect
        unit = suspect.run.processes[0].environment.unit
        return self.campaign.on_device(unit, lambda lane: self._recorded(evidence, wanted, self.runner(lane)))

    def _with_script(self, wanted: Wanted) -> Evidence:
        suspect = wanted.suspect
        evidence = Evidence(
            id=suspect.run.id, profile_problem=wanted.no_profile, snapshot_problem=wanted.no_snapshot
        )
        file = f"{REPRO}/{suspect.run.id}.py"
        try:
            measured.write(suspect.case, suspect.run, self.out / file)
        except PerfError as error:
            return msgspec.structs.replace(evidence, script_problem=str(error))
        return msgspec.structs.replace(evidence, script=file)

    def _recorded(self, evidence: Evidence, wanted: Wanted, runner: PairRunner) -> Evidence:
        sides = (Side.STABLE, Side.CANDIDATE) if wanted.profile else (Side.CANDIDATE,)
        kernels: dict[Side, tuple[KernelTime, ...]] = {}
        why = ""
        for side in sides:
            try:
                for known in self._of_side(evidence, wanted, runner, side, kernels):
                    evidence = known
            except SideError as error:
                runner.launchers[side].raise_if_aborted()
                why = f"{side}: {status_of(error.failure).value}: {error.failure.message}"
                break
        if all(kernels.get(side) for side in (Side.STABLE, Side.CANDIDATE)):
            step = step_change(kernels[Side.STABLE], kernels[Side.CANDIDATE])
            evidence = msgspec.structs.replace(evidence, step=step)
        return _without(evidence, wanted, why) if why else evidence

    def _of_side(
        self,
        evidence: Evidence,
        wanted: Wanted,
        runner: PairRunner,
        side: Side,
        kernels: dict[Side, tuple[KernelTime, ...]],
    ) -> Iterator[Evidence]:
        """The evidence after each part: what comes next may end the worker."""
        case_id = evidence.id
        with runner.warmed_up(self.campaign.planned[case_id], side, INDEX) as replicate:
            if wanted.profile:
                trace = f"{PROFILES}/{case_id}.{side}.json.gz"
                asked = Profile(trace=str(self.out / trace), limit_mb=LIMIT_MB)
                profiled = replicate.ask(asked, Profiled, Phase.PROFILE)
                kernels[side] = profiled.kernels
                evidence = _with_trace(evidence, side, trace, profiled)
                yield evidence
            if wanted.snapshot and side is Side.CANDIDATE:
                file = f"{PROFILES}/{case_id}.memory.pickle.gz"
                request = Snapshot(file=str(self.out / file), limit_mb=LIMIT_MB)
                yield _with_snapshot(evidence, file, replicate.ask(request, Snapshotted, Phase.PROFILE))


def _with_trace(evidence: Evidence, side: Side, trace: str, profiled: Profiled) -> Evidence:
    said = (evidence.profile_problem, f"{side}: {profiled.problem}" if profiled.problem else "")
    kept: Mapping[str, str] = {} if profiled.trace is None else {side.value: trace}
    return msgspec.structs.replace(
        evidence,
        traces={**evidence.traces, **kept},
        profile_problem="; ".join(filter(None, said)),
    )


def _with_snapshot(evidence: Evidence, file: str, taken: Snapshotted) -> Evidence:
    return msgspec.structs.replace(
        evidence,
        snapshot="" if taken.file is None else file,
        largest=taken.largest,
        before_mib=taken.before_mib,
        peak_mib=taken.peak_mib,
        snapshot_problem=taken.problem,
    )


def _without(evidence: Evidence, wanted: Wanted, why: str) -> Evidence:
    """The evidence, with why what was wanted and is not in it is missing."""
    lacks_profile = wanted.profile and evidence.step is None
    lacks_snapshot = wanted.snapshot and not (evidence.snapshot or evidence.snapshot_problem)
    return msgspec.structs.replace(
        evidence,
        profile_problem=why if lacks_profile else evidence.profile_problem,
        snapshot_problem=why if lacks_snapshot else evidence.snapshot_problem,
    )


def _is_incomplete(known: Evidence, wanted: Wanted) -> bool:
    """Whether an earlier session has not recorded what is wanted."""
    return (wanted.profile and known.step is None) or (wanted.snapshot and not known.snapshot)


def _seconds(wanted: Wanted) -> float:
    """What the workers take, about: as long as the last ones of the case, which were timed as well."""
    suspect: Suspect = wanted.suspect
    comparison = suspect.comparison
    if wanted.profile and comparison is not None and comparison.pairs:
        pair = comparison.pairs[-1]
        return math.fsum((*pair.stable.build.seconds.values(), *pair.candidate.build.seconds.values()))
    return suspect.seconds
