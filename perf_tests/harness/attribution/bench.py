"""Measures cases of a campaign in the four stacks, each on the card that measured the case before."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from perf_tests.harness.ab.campaign import MAX_PAIRS, PairCampaign
from perf_tests.harness.ab.pairs import PairRunner, SideError
from perf_tests.harness.attribution.attributing import PairJudge
from perf_tests.harness.attribution.exact import CellError
from perf_tests.harness.attribution.findings import Cells
from perf_tests.harness.attribution.stacks import Stacks
from perf_tests.harness.execution import resuming
from perf_tests.harness.execution.campaign import Campaign
from perf_tests.harness.execution.lane import Lane
from perf_tests.harness.execution.launcher import Seen, Stack
from perf_tests.harness.records.attributions import Corner, cell_id
from perf_tests.harness.runs.environments import stack_of
from perf_tests.harness.runs.record import CellProcess, Comparison, Process, Run, Side, Status, status_of
from perf_tests.protocol.errors import StackChangedError, WorkerError
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
    _own: set[str] = field(default_factory=set)
    """The cells of this session, by id."""
    _confirmed: dict[Corner, Environment | None] = field(default_factory=dict)
    """What a worker of this session reported of each stack of which an earlier one has cells."""

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
        """The case in one process of one stack, measured once for all of its metrics, failures included.

        A resumed session keeps what it has, if a worker says that the stack is still the same. Raises
        CellError where the process fails, or is not started, and PerfError where the record cannot be
        written.
        """
        run = self.campaign.run(case_id)
        kept = self.campaign.store.cells.get(cell_id(case_id, corner))
        cell = kept if kept is not None and self._stands(kept, run) else self._measured(run, corner)
        if cell.process is None:
            assert cell.failure is not None, "a cell holds a process or a failure"
            raise CellError(status_of(cell.failure).value, cell.failure.message)
        return cell.process

    def _stands(self, kept: CellProcess, run: Run) -> bool:
        """Whether a process, maybe of the session that this one resumes, is what would be measured now."""
        now = (run.digest, run.injected, self.stacks.python(kept.corner))
        if (kept.digest, kept.injected, kept.python) != now:
            return False
        if _unit(run) not in (None, kept.environment.unit):
            return False
        if kept.id in self._own:
            return True
        if kept.corner not in self._confirmed:
            confirm = partial(self._confirm, run.id, kept.corner)
            self._confirmed[kept.corner] = self.campaign.on_device(_unit(run), confirm)
        live = self._confirmed[kept.corner]
        return live is not None and stack_of(live) == stack_of(kept.environment)

    def _confirm(self, case_id: str, corner: Corner, lane: Lane) -> Environment | None:
        """What a worker of the stack reports today, which builds nothing; None where it does not start."""
        launcher = lane.launcher(self.stack(self.stacks.python(corner), corner))
        try:
            environment = resuming.reported(
                launcher, self.campaign.planned[case_id], f"{resuming.STEM}.{corner}"
            )
        except WorkerError:
            launcher.raise_if_aborted()
            return None
        self._saw(corner, environment)
        return environment

    def _measured(self, run: Run, corner: Corner) -> CellProcess:
        if why := self.refuse(run.id):
            raise CellError(Status.NOT_RUN.value, why)
        cell = self.campaign.on_device(_unit(run), partial(self._alone, run, corner))
        if cell.failure is not None and cell.failure.excuse:  # which another attempt need not meet
            raise CellError(status_of(cell.failure).value, cell.failure.message)
        self._own.add(cell.id)
        store = self.campaign.store
        with store.lock:
            store.cells[cell.id] = cell
            store.write()
        return cell

    def _alone(self, run: Run, corner: Corner, lane: Lane) -> CellProcess:
        """Raises CellError for a worker that has not said which stack it has, or has another than before."""
        runner = self._runner(lane, {Side.CANDIDATE: corner})
        process, failure = None, None
        try:
            # No pair has a log of that number.
            process = runner.alone(self.campaign.planned[run.id], Side.CANDIDATE, MAX_PAIRS)
        except SideError as error:
            if isinstance(error.__cause__, StackChangedError):
                raise CellError(Status.INVALID.value, str(error)) from error
            failure = error.failure
        finally:
            self._saw(corner, runner.environment(Side.CANDIDATE))
        environment = process.environment if process else runner.environment(Side.CANDIDATE)
        if environment is None:
            assert failure is not None, "a process knows its environment"
            raise CellError(status_of(failure).value, failure.message)
        return CellProcess(
            case=run.id,
            digest=run.digest,
            injected=run.injected,
            corner=corner,
            python=self.stacks.python(corner),
            environment=environment,
            process=process,
            failure=failure,
        )

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
