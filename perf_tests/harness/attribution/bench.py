"""Measures cases of a campaign in the four stacks, each on the card that measured the case before."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from perf_tests.harness.ab.campaign import MAX_PAIRS, PairCampaign
from perf_tests.harness.ab.pairs import PairRunner, SideError
from perf_tests.harness.attribution.attributing import PairJudge
from perf_tests.harness.attribution.exact import CellError
from perf_tests.harness.attribution.findings import Cells
from perf_tests.harness.attribution.stacks import Stacks, contradiction
from perf_tests.harness.execution.campaign import Campaign
from perf_tests.harness.execution.lane import Lane
from perf_tests.harness.execution.launcher import Seen, Stack
from perf_tests.harness.records.attributions import Corner, cell_id
from perf_tests.harness.runs.environments import stack_and_card
from perf_tests.harness.runs.record import CellProcess, Comparison, Process, Run, Side, Status, status_of
from perf_tests.protocol.reports import Environment


@dataclass(kw_only=True, slots=True)
class CampaignBench:
    """The four stacks on the devices of a campaign.

    The faults of a fire drill are in both stacks with the new torch, so that a drill shows the whole way.
    """

    campaign: Campaign
    out: Path
    """The run directory."""
    stacks: Stacks
    stack: Callable[[str, str], Stack]
    """How workers of an interpreter are started, and what their stack is called."""
    peak_mib: Callable[[Run], float | None]
    """The largest known peak of a worker of the case."""
    refuse: Callable[[str], str | None]
    """Why a case gets no further process; None where it does."""
    environments: dict[Corner, Environment] = field(default_factory=dict)
    """What the first worker of each stack reported."""

    def cells(self) -> Cells:
        """The stacks, as far as they are known by now."""
        return Cells(
            pythons={corner: self.stacks.python(corner) for corner in Corner},
            packages={corner: each.packages for corner, each in self.environments.items()},
        )

    def problem(self, corner: Corner) -> str:
        """Why a stack has no interpreter; empty where it has one."""
        return self.stacks.problem(corner)

    def compare(self, case_id: str, candidate: Corner, stable: Corner, judge: PairJudge) -> Comparison:
        """The case under two stacks, in as many pairs as `judge` wants.

        Raises PerfError where the record cannot be written.
        """
        pairs = PairCampaign(self.campaign, (candidate, stable))
        run, sides = self.campaign.run(case_id), {Side.CANDIDATE: candidate, Side.STABLE: stable}
        pythons = self.stacks.python(stable), self.stacks.python(candidate)

        def on(lane: Lane) -> Comparison:
            start = pairs.begin(case_id, pythons[0], self.peak_mib(run), pythons[1])
            return pairs.compare(start, self._runner(lane, sides), judge, self.refuse)

        comparison = self.campaign.on_device(_unit(run), on)
        for corner, environment in ((candidate, comparison.candidate), (stable, comparison.stable)):
            self._saw(corner, environment)
        return comparison

    def alone(self, case_id: str, corner: Corner) -> Process:
        """The case in one process of one stack, measured once for all of its metrics.

        A resumed session keeps what it has. Raises CellError where the process fails, or is not started, and
        PerfError where the record cannot be written.
        """
        run, store = self.campaign.run(case_id), self.campaign.store
        kept = store.cells.get(cell_id(case_id, corner))
        if kept is not None and self._stands(kept, run):
            self._saw(corner, kept.process.environment)
            return kept.process
        if why := self.refuse(case_id):
            raise CellError(Status.NOT_RUN.value, why)
        try:
            process = self.campaign.on_device(_unit(run), lambda lane: self._alone(lane, case_id, corner))
        except SideError as error:
            raise CellError(status_of(error.failure).value, error.failure.message) from error
        cell = CellProcess(
            case=case_id,
            digest=run.digest,
            injected=run.injected,
            corner=corner,
            python=self.stacks.python(corner),
            process=process,
        )
        with store.lock:
            store.cells[cell.id] = cell
            store.write()
        return process

    def _stands(self, kept: CellProcess, run: Run) -> bool:
        """Whether a process, maybe of the session that this one resumes, is what would be measured now."""
        now = (run.digest, run.injected, self.stacks.python(kept.corner))
        environment, seen = kept.process.environment, self.environments.get(kept.corner)
        if (kept.digest, kept.injected, kept.python) != now or _unit(run) not in (None, environment.unit):
            return False
        if seen is not None:
            return stack_and_card(seen) == stack_and_card(environment)
        # Of a stack that no worker of this session has told of, the others tell what it must hold.
        packages = {corner: each.packages for corner, each in self.environments.items()}
        if run.processes:
            packages.setdefault(Corner.NEW, run.processes[-1].environment.packages)
        return contradiction({**packages, kept.corner: environment.packages}) is None

    def _alone(self, lane: Lane, case_id: str, corner: Corner) -> Process:
        runner = self._runner(lane, {Side.CANDIDATE: corner})
        try:
            # No pair has a log of that number.
            return runner.alone(self.campaign.planned[case_id], Side.CANDIDATE, MAX_PAIRS)
        finally:
            self._saw(corner, runner.environment(Side.CANDIDATE))

    def _runner(self, lane: Lane, sides: Mapping[Side, Corner]) -> PairRunner:
        return PairRunner(
            {
                side: lane.launcher(
                    self.stack(self.stacks.python(corner), corner), Seen(self.environments.get(corner))
                )
                for side, corner in sides.items()
            },
            self.out,
            names={side: corner.value for side, corner in sides.items()},
            injected=frozenset(side for side, corner in sides.items() if corner.has_new_torch),
        )

    def _saw(self, corner: Corner, environment: Environment | None) -> None:
        if environment is not None:
            self.environments.setdefault(corner, environment)


def _unit(run: Run) -> str | None:
    """The device that measured the case; None for one that failed before it was on any."""
    return run.processes[0].environment.unit if run.processes else None
