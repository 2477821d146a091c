"""What a session will cost, in the order of running; and, after it has run, how good that forecast was.

Seconds are host seconds while a worker holds the device, without those for starting and ending the worker.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from perf_tests.harness.planning.cost_model import BUILDING, CostBasis, expected_cost, generations
from perf_tests.harness.planning.relatives import KnownCosts
from perf_tests.harness.planning.sharding import BuildGroup, Selected, ShardItem, build_groups
from perf_tests.harness.runs.record import Run, RunRecord
from perf_tests.protocol.messages import Phase
from perf_tests.tables.cases import Case
from perf_tests.tables.platforms import Platform

DESCRIBING = (Phase.FIDELITY, Phase.INSPECT)
"""What a case goes through unless it is only verified, or an fp32 twin, of which only the time is used."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CaseCost:
    """What a case is expected to take in all its processes."""

    case: Case
    platform: Platform
    processes: int
    implicit: bool
    """Whether it is measured only because others are compared with it."""
    seconds: Mapping[Phase, float]
    missing: tuple[Phase, ...]
    """Phases that it will go through, but of which no record says how long they take."""
    basis: CostBasis
    source: str | None
    """Id of the case that the time to generate is taken from; None where it is unknown."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Forecast:
    """What a session is expected to take."""

    processes: int
    """Of each case."""
    costs: tuple[CaseCost, ...]
    """In the order of running."""

    @property
    def total_s(self) -> float:
        """The sum of everything that is known."""
        return math.fsum(seconds for cost in self.costs for seconds in cost.seconds.values())


@dataclass(frozen=True, kw_only=True, slots=True)
class Accuracy:
    """The expected seconds of one case next to those it took."""

    case: str
    implicit: bool
    expected_s: float | None
    """None where nothing was known."""
    spent_s: float

    @property
    def ratio(self) -> float | None:
        """Expected / spent: 1.2 is a forecast 20 % too high; None where there is nothing to compare."""
        return None if self.expected_s is None or self.spent_s == 0 else self.expected_s / self.spent_s


def forecast(
    selected: Sequence[Selected],
    known: Mapping[str, KnownCosts],
    processes: int,
    verified_only: Collection[str] = (),
) -> Forecast:
    """What the selected cases and everything they are compared with take, in the order of running.

    `known` is by platform id, `processes` is for each case. `verified_only` holds ids of cases that are only
    verified: they generate once and are not compared with anything.
    """
    groups = build_groups(selected, verified_only)
    twins = _twin_costs(groups, processes, known, verified_only)
    costs: list[CaseCost] = []
    for group in groups:
        for case in group.cases:
            if twin := twins.pop(_twin_key(case, group.platform), None):
                costs.append(twin)
        costs.extend(_costs(group, known.get(group.platform.id, KnownCosts()), processes, verified_only))
    return Forecast(processes=processes, costs=tuple(_with_cold_start(costs)))


def _with_cold_start(costs: Iterable[CaseCost]) -> Iterator[CaseCost]:
    """The first worker on each platform reads the stack and its data from disk, later ones from memory."""
    started: set[str] = set()
    for cost in costs:
        load_s = cost.seconds.get(Phase.LOAD)
        if cost.platform.id in started or load_s is None:
            yield cost
        else:
            started.add(cost.platform.id)
            yield replace(cost, seconds={**cost.seconds, Phase.LOAD: load_s + cost.platform.cold_start_s})


def shard_items(
    selected: Sequence[Selected],
    known: Mapping[str, KnownCosts],
    processes: int,
    verified_only: Collection[str] = (),
) -> tuple[ShardItem, ...]:
    """The selected cases by build, each build with what a session of it alone would take.

    A reference counts in each item that needs it, since every shard that needs one measures it. `known`,
    `processes` and `verified_only` are those of `forecast`.
    """
    return tuple(
        ShardItem(
            cases=tuple(case.id for case in group.selected),
            seconds=_total_s(
                forecast([(case, group.platform) for case in group.selected], known, processes, verified_only)
            ),
        )
        for group in build_groups(selected, verified_only)
        if group.selected
    )


def accuracy(expected: Forecast, record: RunRecord) -> tuple[Accuracy, ...]:
    """Expected and spent seconds of each case of the forecast that was measured completely."""
    runs = {(run.id, True): run for run in record.references} | {(run.id, False): run for run in record.cases}
    found = ((cost, runs.get((cost.case.id, cost.implicit))) for cost in expected.costs)
    return tuple(
        Accuracy(
            case=cost.case.id,
            implicit=cost.implicit,
            expected_s=None if cost.basis is CostBasis.UNKNOWN else math.fsum(cost.seconds.values()),
            spent_s=_spent_s(run),
        )
        for cost, run in found
        if run is not None and _is_complete(run, cost.processes)
    )


def _is_complete(run: Run, processes: int) -> bool:
    return run.failure is None and len(run.processes) >= processes


def _spent_s(run: Run) -> float:
    return math.fsum(seconds for process in run.processes for seconds in process.build.seconds.values())


def _total_s(expected: Forecast) -> float | None:
    if any(cost.basis is CostBasis.UNKNOWN for cost in expected.costs):
        return None
    return expected.total_s


def _costs(
    group: BuildGroup, known: KnownCosts, processes: int, verified_only: Collection[str]
) -> Iterator[CaseCost]:
    for place, case in enumerate(group.cases):
        cost = expected_cost(case, group.platform, known, 1 if case.id in verified_only else None)
        # The first case in a worker pays for the build of all.
        first = BUILDING if place == 0 else (Phase.SWITCH_WORKLOAD,)
        spent = {phase: seconds * processes for phase, seconds in cost.seconds.items()}
        if cost.compile_again_s is not None:
            spent[Phase.COMPILE] = cost.seconds[Phase.COMPILE] + cost.compile_again_s * (processes - 1)
        phases = (*first, Phase.COMPILE, Phase.GENERATE)
        if case.id not in verified_only:
            # Training compares its steps with those in bf16.
            compares = case.is_compared or case.is_training
            phases = (*phases, *(DESCRIBING if compares else (Phase.INSPECT,)))
        if case.built_twin is not None:
            phases = (*phases, Phase.BUILT_TWIN)
        yield CaseCost(
            case=case,
            platform=group.platform,
            processes=processes,
            implicit=case.id in group.implicit,
            seconds={phase: spent[phase] for phase in phases if phase in spent},
            missing=tuple(phase for phase in phases if phase not in spent),
            basis=cost.basis,
            source=cost.source,
        )


def _twin_costs(
    found: Iterable[BuildGroup],
    processes: int,
    known: Mapping[str, KnownCosts],
    verified_only: Collection[str],
) -> dict[tuple[str, str], CaseCost]:
    """For each fp32 twin the cost of its one worker, which is interleaved with all processes of its cases."""
    cases_of: dict[tuple[str, str], list[Selected]] = {}
    for group in found:
        for case in group.cases if group.platform.interleave_twin else ():
            if case.id not in verified_only and case.id not in group.implicit:
                cases_of.setdefault(_twin_key(case, group.platform), []).append((case, group.platform))
    return {
        key: _twin_cost(*cases[0], len(cases) * processes, known.get(cases[0][1].id, KnownCosts()))
        for key, cases in cases_of.items()
    }


def _twin_key(case: Case, platform: Platform) -> tuple[str, str]:
    return (case.fp32_twin.id, platform.id)


def _twin_cost(case: Case, platform: Platform, processes: int, known: KnownCosts) -> CaseCost:
    twin = case.fp32_twin
    alone = next(
        _costs(BuildGroup(platform=platform, cases=(twin,), implicit=frozenset((twin.id,))), known, 1, ())
    )
    times = generations(twin, platform.samples * processes) / generations(twin, platform.samples)
    seconds = {
        phase: spent * times if phase is Phase.GENERATE else spent
        for phase, spent in alone.seconds.items()
        if phase not in DESCRIBING
    }
    return replace(
        alone, seconds=seconds, missing=tuple(phase for phase in alone.missing if phase not in DESCRIBING)
    )
