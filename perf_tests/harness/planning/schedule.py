"""What a session will cost, in the order of running; and, once it ran, how well that was foreseen.

Seconds are host seconds while a worker holds the device; starting and ending it are not in them.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from perf_tests.harness.planning.cost_model import CostBasis, KnownCosts, expected_cost, generations
from perf_tests.harness.planning.sharding import BuildGroup, Selected, ShardItem, build_groups
from perf_tests.harness.runs.record import Run, RunRecord
from perf_tests.protocol.messages import Phase
from perf_tests.tables.cases import Case
from perf_tests.tables.platforms import Platform

BUILD_PHASES = (Phase.IMPORT, Phase.LOAD, Phase.QUANTIZE)
"""What the first case in a worker pays for all of them; the others pay `Phase.TURN`."""
NO_TWINS = frozenset({Phase.FIDELITY})
"""What the fp32 twin is not asked for: nothing but its time is used."""


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
    """Phases that it will go through, of which no record tells how long they take."""
    basis: CostBasis
    source: str | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Forecast:
    """What a session is expected to take."""

    processes: int
    """Of each case."""
    rows: tuple[CaseCost, ...]
    """In the order of running."""

    @property
    def total_s(self) -> float:
        """The sum of all that is known."""
        return math.fsum(seconds for row in self.rows for seconds in row.seconds.values())


@dataclass(frozen=True, kw_only=True, slots=True)
class Accuracy:
    """One case: expected and spent."""

    case: str
    implicit: bool
    expected_s: float | None
    """None where nothing was known."""
    spent_s: float

    @property
    def ratio(self) -> float | None:
        """Expected / spent: 1.2 is 20 % too much; None where there is nothing to compare."""
        return None if self.expected_s is None or self.spent_s == 0 else self.expected_s / self.spent_s


def forecast(
    selected: Sequence[Selected],
    known: Mapping[str, KnownCosts],
    processes: int,
    once: Collection[str] = (),
) -> Forecast:
    """What the selected cases and everything that they are compared with take, in the order of running.

    `known` is by platform id, `processes` is for each case; `once` are ids of cases that are only proved:
    they generate once, and are compared with nothing.
    """
    found = build_groups(selected, once)
    twins = _twins(found, processes, known, once)
    rows: list[CaseCost] = []
    for group in found:
        for case in group.cases:
            if twin := twins.pop(_twin_key(case, group.platform), None):
                rows.append(twin)
        rows.extend(_rows(group, known.get(group.platform.id, KnownCosts()), processes, once))
    return Forecast(processes=processes, rows=tuple(_with_cold_start(rows)))


def _with_cold_start(rows: Iterable[CaseCost]) -> Iterator[CaseCost]:
    """The first worker on each platform reads the stack and its data from disk, later ones from memory."""
    started: set[str] = set()
    for row in rows:
        load_s = row.seconds.get(Phase.LOAD)
        if row.platform.id in started or load_s is None:
            yield row
        else:
            started.add(row.platform.id)
            yield replace(row, seconds={**row.seconds, Phase.LOAD: load_s + row.platform.cold_start_s})


def shard_items(
    selected: Sequence[Selected],
    known: Mapping[str, KnownCosts],
    processes: int,
    once: Collection[str] = (),
) -> tuple[ShardItem, ...]:
    """The selected cases by build, and what a session of that build alone would take.

    References count in each unit, since every shard that needs one measures it.
    """
    return tuple(
        ShardItem(
            cases=tuple(case.id for case in group.selected),
            seconds=_total_s(
                forecast([(case, group.platform) for case in group.selected], known, processes, once)
            ),
        )
        for group in build_groups(selected, once)
        if group.selected
    )


def accuracy(planned: Forecast, record: RunRecord) -> tuple[Accuracy, ...]:
    """Expected beside spent for each row of the plan that was measured to its end."""
    runs = {(run.id, True): run for run in record.references} | {(run.id, False): run for run in record.cases}
    found = ((row, runs.get((row.case.id, row.implicit))) for row in planned.rows)
    return tuple(
        Accuracy(
            case=row.case.id,
            implicit=row.implicit,
            expected_s=None if row.basis is CostBasis.UNKNOWN else math.fsum(row.seconds.values()),
            spent_s=_spent_s(run),
        )
        for row, run in found
        if run is not None and _is_complete(run, row.processes)
    )


def _is_complete(run: Run, processes: int) -> bool:
    return run.failure is None and len(run.processes) >= processes


def _spent_s(run: Run) -> float:
    return math.fsum(seconds for process in run.processes for seconds in process.build.seconds.values())


def _total_s(planned: Forecast) -> float | None:
    if any(row.basis is CostBasis.UNKNOWN for row in planned.rows):
        return None
    return planned.total_s


def _rows(group: BuildGroup, known: KnownCosts, processes: int, once: Collection[str]) -> Iterator[CaseCost]:
    for place, case in enumerate(group.cases):
        cost = expected_cost(case, group.platform, known, 1 if case.id in once else None)
        first = BUILD_PHASES if place == 0 else (Phase.SWITCH_WORKLOAD,)
        spent = {phase: seconds * processes for phase, seconds in cost.seconds.items()}
        if cost.compile_again_s is not None:
            spent[Phase.COMPILE] = cost.seconds[Phase.COMPILE] + cost.compile_again_s * (processes - 1)
        phases = (*first, Phase.COMPILE, Phase.GENERATE)
        if case.id not in once:
            phases = (*phases, Phase.FIDELITY)
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


def _twins(
    found: Iterable[BuildGroup], processes: int, known: Mapping[str, KnownCosts], once: Collection[str]
) -> dict[tuple[str, str], CaseCost]:
    """One row for each fp32 twin: a single worker that generates beside all processes of all its cases."""
    beside: dict[tuple[str, str], list[Selected]] = {}
    for group in found:
        for case in group.cases if group.platform.interleave_twin else ():
            if case.id not in once:
                beside.setdefault(_twin_key(case, group.platform), []).append((case, group.platform))
    return {
        key: _twin(*cases[0], len(cases) * processes, known.get(cases[0][1].id, KnownCosts()))
        for key, cases in beside.items()
    }


def _twin_key(case: Case, platform: Platform) -> tuple[str, str]:
    return (case.fp32_twin.id, platform.id)


def _twin(case: Case, platform: Platform, beside: int, known: KnownCosts) -> CaseCost:
    twin = case.fp32_twin
    alone = next(
        _rows(BuildGroup(platform=platform, cases=(twin,), implicit=frozenset((twin.id,))), known, 1, ())
    )
    times = generations(twin, platform.samples * beside) / generations(twin, platform.samples)
    seconds = {
        phase: spent * times if phase is Phase.GENERATE else spent
        for phase, spent in alone.seconds.items()
        if phase not in NO_TWINS
    }
    return replace(
        alone, seconds=seconds, missing=tuple(phase for phase in alone.missing if phase not in NO_TWINS)
    )
