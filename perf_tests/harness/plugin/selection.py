"""What a session is to measure: its cases, what they will cost, and which of them a shard takes."""

from __future__ import annotations

import difflib
import fnmatch
import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from perf_tests.harness.baselines import acknowledged, files, register
from perf_tests.harness.baselines.acknowledged import Acknowledged
from perf_tests.harness.baselines.entry import Accepted, Baselines, find_accepted
from perf_tests.harness.compare import published
from perf_tests.harness.execution.campaign import Several
from perf_tests.harness.execution.planned import Planned
from perf_tests.harness.execution.replicate import TUNED
from perf_tests.harness.lanes.cards import LaneCard
from perf_tests.harness.lanes.job_queue import Job
from perf_tests.harness.planning import recording, relatives, schedule, sharding
from perf_tests.harness.planning.budget import Budget
from perf_tests.harness.planning.cost_model import CostBasis
from perf_tests.harness.planning.elsewhere import with_others
from perf_tests.harness.planning.relatives import KnownCosts, RecordedCase
from perf_tests.harness.plugin.options import Drill, Options
from perf_tests.harness.rebaseline import store
from perf_tests.harness.runs.record import RunRecord
from perf_tests.harness.verdicts.gates import is_verified_only
from perf_tests.protocol.errors import UsageError
from perf_tests.tables.cases import Case
from perf_tests.tables.matrix import MATRIX
from perf_tests.tables.platforms import PLATFORMS, Noise, Platform
from perf_tests.tables.tiers import why_unrecorded


@dataclass(slots=True)
class Selection:
    """Cases, each with the platform it is filed under, in the order in which they were selected."""

    cases: dict[str, tuple[Case, Platform]] = field(default_factory=dict)
    """By case id."""
    whole: dict[str, tuple[Case, Platform]] = field(default_factory=dict)
    """By case id: `cases`, and those that other shards of the same selection take."""
    verified_only: set[str] = field(default_factory=set)
    """Ids of the cases of the cross product, and of those on a CPU with a built twin: verified and generated
    once; nothing that takes time is judged."""

    def add(
        self, case: Case, platform: Platform, *, verified_only: bool = False, elsewhere: bool = False
    ) -> None:
        """Select `case`, measured on `platform`; to add a case twice changes nothing.

        A case of another shard, which is measured `elsewhere`, only joins `whole`.
        """
        self.whole[case.id] = (case, platform)
        if elsewhere:
            return
        self.cases[case.id] = (case, platform)
        if verified_only or is_verified_only(case, platform):
            self.verified_only.add(case.id)

    @property
    def is_on_gpu(self) -> bool:
        """Whether any case is measured on a GPU."""
        return any(platform.gpu is not None for _, platform in self.cases.values())

    @property
    def on_cpu(self) -> tuple[str, ...]:
        """Ids of the cases that are not measured on a GPU."""
        return tuple(case_id for case_id, (_, platform) in self.cases.items() if platform.gpu is None)

    def planned(self, options: Options) -> tuple[Planned, ...]:
        """The cases as a campaign measures them, with the faults that `options` inject."""
        return tuple(
            Planned(case, platform, options.injections(case.id), case.id in self.verified_only)
            for case, platform in self.cases.values()
        )

    def check_drills(self, drills: Iterable[Drill]) -> None:
        """Raise UsageError for a fire drill that matches no case, in no shard, and so would break nothing."""
        for drill in drills:
            if self.whole and not fnmatch.filter(self.whole, drill.glob):
                raise UsageError(
                    f"--perf-inject {drill.spec!r} matches none of the {len(self.whole)} selected cases; "
                    f"nearest: {', '.join(nearest(drill.glob, self.whole))}"
                )


class PlatformBaselines:
    """The baselines and the noise of each platform, read from one folder when they are first asked for.

    The registers are read at once: tests are marked by them, which is too early for an error in one sentence.
    """

    def __init__(self, root: Path) -> None:
        """Raises BaselineError for a register that cannot be read."""
        self._root = root
        self._baselines: dict[str, Mapping[str, Baselines]] = {}
        self._noise: dict[str, Mapping[str, Noise]] = {}
        self._acknowledged: dict[str, Acknowledged] = {}
        self._registers = {each: register.read(root, each) for each in register.REGISTERED}

    def of(self, platform: Platform) -> Mapping[str, Baselines]:
        """Pipeline id -> its baselines on `platform`. Raises BaselineError where a file cannot be trusted."""
        if platform.id not in self._baselines:
            self._baselines[platform.id] = files.load(self._root, platform.id)
        return self._baselines[platform.id]

    def noise(self, platform: Platform) -> Mapping[str, Noise]:
        """Noisy metric -> how much fresh processes scatter on `platform`. Raises BaselineError where a file
        cannot be trusted."""
        if platform.id not in self._noise:
            self._noise[platform.id] = store.noise_in_force(self._root, platform)
        return self._noise[platform.id]

    def acknowledged(self, platform: Platform) -> Acknowledged:
        """The regressions that are known on `platform`. Raises BaselineError where its file cannot be
        trusted."""
        if platform.id not in self._acknowledged:
            self._acknowledged[platform.id] = acknowledged.read(self._root, platform.id)
        return self._acknowledged[platform.id]

    def is_unrecorded(self, case_id: str, platform: Platform) -> bool:
        """Whether the case was never recorded on `platform`, for a reason that is known."""
        recorded = self._registers.get(platform.id)
        return (
            recorded is not None and case_id not in recorded and why_unrecorded(case_id, platform) is not None
        )

    def read_all(self) -> None:
        """Read the baselines of every platform. Raises BaselineError where a file cannot be trusted."""
        for platform in PLATFORMS:
            self.of(platform)

    def is_unsettled(self, case: Case, platform: Platform) -> bool:
        """Whether `case`, of a GPU, has no baseline of three processes or more, or one of another digest."""
        found = self.find(case, platform)
        settled = found is not None and not found.entry.provisional and found.entry.digest == case.digest
        return platform.gpu is not None and not settled

    def find(self, case: Case, platform: Platform) -> Accepted | None:
        """What was accepted for `case` on `platform`; None where it has no baseline."""
        return find_accepted(self.of(platform), case)

    def recorded_at(self, selection: Selection) -> dict[str, str]:
        """Case id -> when the baseline of a selected case was recorded; without those that have none."""
        found = {case.id: self.find(case, platform) for case, platform in selection.cases.values()}
        return {case_id: each.provenance.recorded_at for case_id, each in found.items() if each is not None}


class Forecaster:
    """Tells beforehand how many seconds a selection takes, from baselines and published latencies."""

    def __init__(self, options: Options, baselines: PlatformBaselines) -> None:
        self._options = options
        self._baselines = baselines

    def forecast(self, selection: Selection) -> schedule.Forecast:
        """What the selected cases, and the references they are compared with, are expected to take."""
        return self._forecast(selection, is_tuned=_has_choices(self._options.compile_cache))

    def _forecast(self, selection: Selection, *, is_tuned: bool) -> schedule.Forecast:
        # What was chosen may be for another torch, which a budget must not rest on; and hosts whose folders
        # differ must share out the cases in the same way.
        known = {name: replace(each, is_tuned=is_tuned) for name, each in self._known(selection).items()}
        cases = tuple(selection.cases.values())
        return schedule.forecast(cases, known, self._options.processes, selection.verified_only)

    def accuracy(self, selection: Selection, record: RunRecord) -> tuple[schedule.Accuracy, ...]:
        """The forecast of each case that `record` holds next to the seconds it took."""
        return schedule.accuracy(self.forecast(selection), record)

    def shard(self, selection: Selection) -> frozenset[str]:
        """The ids of the selected cases in the shard of the options, which must name one."""
        assert self._options.shard is not None, "only asked with --perf-shard"
        cases = tuple(selection.cases.values())
        items = schedule.shard_items(
            cases, self._known(selection), self._options.processes, selection.verified_only
        )
        return sharding.shard(items, self._options.shard)

    def several(
        self, selection: Selection, cards: tuple[LaneCard, ...], resumed: RunRecord | None
    ) -> Several | None:
        """What `cards` are to measure at the same time; None without any.

        A case that the `resumed` session began goes on where its first processes ran.
        """
        if not cards:
            return None
        runs = resumed.cases if resumed else ()
        begun = {run.id: run.processes[0].environment.unit for run in runs if run.processes}
        units = frozenset(card.unit for card in cards)
        return Several(cards=cards, jobs=self._jobs(selection, begun, units))

    def _jobs(
        self, selection: Selection, begun: Mapping[str, str], units: Collection[str]
    ) -> tuple[Job, ...]:
        """Each case on the card of its baseline where that is one of `units`, or where it was `begun`."""
        cases = tuple(selection.cases.values())
        accepted = {case.id: self._baselines.find(case, platform) for case, platform in cases}
        homes = {case_id: each.provenance.unit for case_id, each in accepted.items() if each is not None}
        # Cases that were recorded elsewhere, on different cards, still share a worker.
        here = {case_id: unit for case_id, unit in {**homes, **begun}.items() if unit in units}
        items = schedule.shard_items(
            cases, self._known(selection), self._options.processes, selection.verified_only
        )
        places = self.recording_order(selection) if self._options.records else None
        return sharding.jobs(items, {case.id: case for case, _ in cases}, here, places)

    def recording_order(self, selection: Selection) -> dict[str, int]:
        """Case id -> its place where rows are recorded that lack processes."""
        latencies_s = published.latencies_s(self._options.baselines / "published")
        known = [
            case_id for case_id in selection.cases if published.PUBLISHED_IDS.get(case_id) in latencies_s
        ]
        return recording.order(selection.cases, self.expected_s(selection), known)

    def budget(self, selection: Selection) -> Budget:
        """The budget of the options, which begins to run now; unlimited without one."""
        if self._options.budget_s is None:
            return Budget(math.inf, {})
        costs = self._forecast(selection, is_tuned=False).costs
        expected_s = {cost.case.id: math.fsum(cost.seconds.values()) for cost in costs}
        reference_of = {
            case.id: case.reference.id for case, _ in selection.cases.values() if not case.is_reference
        }
        return Budget(self._options.budget_s, expected_s, reference_of=reference_of)

    def expected_s(self, selection: Selection) -> dict[str, float]:
        """Case id -> the seconds that a selected case will probably take, with its share of the references.

        A case that nothing is known about counts as the mean of the others; empty where nothing is known.
        """
        costs = self.forecast(selection).costs
        known_s = {
            cost.case.id: math.fsum(cost.seconds.values())
            for cost in costs
            if not cost.implicit and cost.basis is not CostBasis.UNKNOWN
        }
        own_s = math.fsum(known_s.values())
        if not own_s:
            return {}
        shared_s = math.fsum(second for cost in costs if cost.implicit for second in cost.seconds.values())
        usual_s, share = own_s / len(known_s), 1 + shared_s / own_s
        return {case_id: known_s.get(case_id, usual_s) * share for case_id in selection.cases}

    def _known(self, selection: Selection) -> dict[str, KnownCosts]:
        published_s = published.latencies_s(self._options.baselines / "published")
        platforms = {platform.id: platform for _, platform in selection.cases.values()}
        return {
            platform.id: with_others(
                KnownCosts(records=self._records(platform), published_s=published_s),
                [self._records(other) for other in _other_gpus(platform)],
            )
            for platform in platforms.values()
        }

    def _records(self, platform: Platform) -> tuple[RecordedCase, ...]:
        every_case = (row.case(self._options.weights) for row in MATRIX)
        return relatives.recorded_cases(self._baselines.of(platform), every_case)


def _other_gpus(platform: Platform) -> tuple[Platform, ...]:
    """The GPUs beside `platform`; none for a CPU, whose times say nothing about theirs."""
    if platform.gpu is None:
        return ()
    return tuple(each for each in PLATFORMS if each.gpu is not None and each is not platform)


def _has_choices(compile_cache: Path | None) -> bool:
    """Whether a folder of compile caches holds what was chosen by timing."""
    folder = compile_cache and compile_cache / TUNED
    return folder is not None and folder.is_dir() and any(folder.glob("[!.]*"))


def check_globs(globs: Iterable[str], names: Collection[str]) -> None:
    """Raise UsageError for a `--perf-case` that matches none of `names`."""
    for glob in globs:
        if not fnmatch.filter(names, glob):
            raise UsageError(
                f"--perf-case {glob!r} matches none of the {len(names)} cases and known issues; "
                f"nearest: {', '.join(nearest(glob, names))}"
            )


def nearest(wanted: str, names: Collection[str]) -> list[str]:
    """Up to three of `names` that resemble `wanted`; the first three if none does."""
    return difflib.get_close_matches(wanted, names, n=3, cutoff=0.4) or list(names)[:3]
