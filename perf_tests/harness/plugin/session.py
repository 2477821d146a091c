"""One session without pytest: wires what is measured, what is judged and the A/B against another stack."""

from __future__ import annotations

import shlex
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager, ExitStack, suppress
from datetime import UTC, datetime
from functools import cached_property, partial
from pathlib import Path

from perf_tests.harness.execution import resuming
from perf_tests.harness.execution.campaign import Asides, Campaign
from perf_tests.harness.execution.lane import Callbacks
from perf_tests.harness.execution.launcher import AbortedError, Stack
from perf_tests.harness.execution.sampling import SamplingRules
from perf_tests.harness.fidelity.picture_pool import PicturePool
from perf_tests.harness.lanes.cards import LaneCard
from perf_tests.harness.planning.budget import Budget
from perf_tests.harness.plugin.ab_session import AbSession
from perf_tests.harness.plugin.judging import CaseJudge, can_be_judged, groups_of, outcome
from perf_tests.harness.plugin.options import REPOSITORY, Options
from perf_tests.harness.plugin.selection import Forecaster, PlatformBaselines, Selection
from perf_tests.harness.processes import checkout
from perf_tests.harness.processes.fork_server import FORKING
from perf_tests.harness.processes.watch import Step, Watch, unwatched
from perf_tests.harness.processes.worker_process import COMMAND
from perf_tests.harness.report.progress import Display, PhaseLines, TimeLeft
from perf_tests.harness.retention import earlier_runs
from perf_tests.harness.runs.directory import PAGE, RunDirectory, prepare_run_directory, resume_run_directory
from perf_tests.harness.runs.plan import BUILD, Plan, PlannedCase
from perf_tests.harness.runs.record import Run, RunRecord, Status, Verdict
from perf_tests.harness.runs.store import SessionStart
from perf_tests.harness.telling import night as findings
from perf_tests.harness.verdicts import verification
from perf_tests.protocol.errors import PerfError, UsageError
from perf_tests.tables.cases import Case
from perf_tests.tables.metrics.rows import NOISY
from perf_tests.tables.metrics.spec import Group
from perf_tests.tables.platforms import Platform

UNWRITABLE = "the run directory cannot be written"


class PerfSession:
    """Filled by the collection, then asked case by case."""

    def __init__(
        self,
        options: Options,
        command: tuple[str, ...],
        unit: str | None = None,
        cards: tuple[LaneCard, ...] = (),
    ) -> None:
        """`unit` is the UUID of this machine's GPU; None without one. `cards` are those to measure on at the
        same time; empty for that GPU alone, and for the CPU.

        Raises BaselineError for baselines that cannot be read.
        """
        self.options = options
        self.unit = unit
        self.cards = cards
        self.selection = Selection()
        self._command = command
        self.resuming_command = _resuming(command, already=options.resume)
        """How to keep what is measured, and to measure the rest."""
        self.baselines = PlatformBaselines(options.baselines)
        if options.records:  # tests are marked by them, which is too late for an error in one sentence
            self.baselines.read_all()
        self.forecaster = Forecaster(options, self.baselines)
        self.judging = CaseJudge(options, self.selection, self.baselines, partial(_reference, self))
        self._ab = AbSession(options, self.selection, self.baselines, self.watch)
        self._campaign: Campaign | None = None
        self.display: Display | None = None
        """Where signs of life appear; None for nowhere."""
        self._watch: Watch = unwatched
        self._held = ExitStack()
        self._pictures = PicturePool()
        self._held.callback(self._pictures.close)
        self.kept: tuple[Run, ...] = ()
        """The selected cases that a resumed session had measured."""
        self.removed: tuple[Path, ...] = ()
        """The oldest of the runs that made room for later ones, which were removed."""
        self.left_out: set[str] = set()
        """Ids of the cases that were deselected because nobody has ever recorded them."""
        self.problem: str | None = None
        """What kept the run directory from being written; None where nothing did."""
        self.without_page: str | None = None
        """Why there is no page about the run; None where there is one, or nothing was measured."""

    # Selecting

    def select(
        self,
        case: Case,
        platform: Platform,
        group: Group | None,
        *,
        verified_only: bool = False,
        elsewhere: bool = False,
    ) -> None:
        """A selected test will judge `case`: the metrics of `group`, or for None whether it was built.

        A `verified_only` case is verified and generated once, and nothing that takes time is judged. What
        another shard judges, `elsewhere`, only counts in the error level. Raises BaselineError where the
        platform's baselines cannot be read.
        """
        self.selection.add(case, platform, verified_only=verified_only, elsewhere=elsewhere)
        self.baselines.of(platform)
        self.baselines.noise(platform)
        self.baselines.acknowledged(platform)
        self.judging.owe(case.id, group, elsewhere=elsewhere)

    def check(self) -> None:
        """Raise UsageError for a fire drill that would break nothing, for an A/B that cannot be made, and for
        cases of the CPU among those that several cards are to measure."""
        if self.cards and (on_cpu := self.selection.on_cpu):
            raise UsageError(
                f"--perf-gpus: {len(on_cpu)} of {len(self.selection.cases)} selected cases are measured on "
                f"the CPU, {on_cpu[0]} for one; select those of the GPU, as with -m h100, or leave it out"
            )
        self._ab.check()
        self.selection.check_drills(self.options.drills)

    def check_resumed(self) -> None:
        """Raise PerfError where the record to be resumed cannot be, for one of another stack among others."""
        if not self.options.resume:
            return
        directory = self._directory
        if directory.resumed is not None:
            planned = self.selection.planned(self.options)
            stack = _stack(self.options, self.watch)
            resuming.check_stack(directory.resumed, planned, stack, directory.path)

    # Measuring

    @cached_property
    def _directory(self) -> RunDirectory:
        take = resume_run_directory if self.options.resume else prepare_run_directory
        directory = take(self.options.out)
        self._held.callback(directory.release)
        self.removed = earlier_runs.remove_old(directory.path)
        return directory

    @cached_property
    def _budget(self) -> Budget:
        return self.forecaster.budget(self.selection)

    @property
    def campaign(self) -> Campaign:
        """The campaign of all selected cases. Raises PerfError where the run directory cannot be written."""
        if self._campaign is None:
            self._campaign = self._open_campaign()
            self._campaign.clear_up()
            self.kept = resuming.kept_cases(self._campaign.record, self.selection.cases)
            if self.display is not None:
                self._watch = _watch_on(self.display, self, self._campaign)
        return self._campaign

    def _open_campaign(self) -> Campaign:
        cases = [case for case, _ in self.selection.cases.values()]
        known = {case.id: case for case in (*(case.reference for case in cases), *cases)}
        directory = self._directory
        return Campaign(
            self.selection.planned(self.options),
            directory.path,
            _stack(self.options, self.watch),
            SamplingRules(
                decide=self.judging.decide,
                max_processes=self.judging.max_processes,
                end_sampling=self.judging.end_sampling,
            ),
            SessionStart(
                started_at=datetime.now(UTC).isoformat(timespec="seconds"),
                command_line=shlex.join(self._command),
                unit=self.unit,
                further_units=tuple(card.unit for card in self.cards[1:]),
                resumed=directory.resumed,
                plan=_plan(self.judging, self.selection, self.options, directory.resumed),
            ),
            Callbacks(
                prepare=partial(verification.prepare, known, directory.path, self._pictures.map),
                admit=self._budget.refusal,
                draw=self.judging.draw,
                follow_up=self._compare_ahead if self.options.against else None,
            ),
            self.forecaster.several(self.selection, self.cards, directory.resumed),
        )

    def watch(self, step: Step) -> AbstractContextManager[None]:
        """Tell of one phase of one worker while it runs."""
        return self._watch(step)

    def _compare_ahead(self, run: Run) -> None:
        """Make the A/B that verdicts on `run` will ask for, while its card is free for it."""
        if run.failure is not None or run.status is Status.NOT_RUN:
            return
        for group in groups_of(self.judging.ledger.owed_on(run.id) & NOISY):
            self._compared(run, self.judging.verdicts(run, group))

    def measure(self, case_id: str) -> Run:
        """The case's run, measured at the first request."""
        run = self.campaign.run(case_id)
        if run.failure is not None or run.status is Status.NOT_RUN:
            self.judging.ledger.excuse(case_id)
        return run

    # Judging

    def judge(self, run: Run, group: Group) -> tuple[Verdict, ...]:
        """Verdicts on the gated metrics of `group`, filed in the record and the ledger."""
        verdicts = self._compared(run, self.judging.verdicts(run, group))
        self.campaign.file(run.id, verdicts, *outcome(run, verdicts))
        self.judging.ledger.settle(run.id, tuple(each.metric for each in verdicts))
        return verdicts

    def _compared(self, run: Run, judged: tuple[Verdict, ...]) -> tuple[Verdict, ...]:
        """The verdicts, once another stack was measured for those that ask for it."""
        return self._ab.apply(run, judged, self.campaign, self._directory.path, self._budget.refusal)

    def settle_build(self, run: Run) -> None:
        """`test_build` has asserted the outcome of the run, which is all there is to say of some cases."""
        ledger = self.judging.ledger
        ledger.settle(run.id, (BUILD,))
        is_verified = run.id in self.selection.verified_only and run.failure is None
        if is_verified and ledger.owed_on(run.id) == {BUILD}:
            self.campaign.file(run.id, (), Status.PASS, "")

    def explain(self, run: Run, judged: Sequence[Verdict]) -> str:
        """The failure text of the red verdicts of one case."""
        return self.judging.explain(run, judged, self.campaign.store.comparisons.get(run.id))

    # Ending

    @property
    def asides(self) -> Asides:
        """What measuring has to tell beside the record."""
        return self._campaign.asides if self._campaign else Asides()

    @property
    def record(self) -> RunRecord | None:
        """The record so far; None where nothing was measured or asked for."""
        return self._campaign.record if self._campaign else None

    def close(self, *, cut_short: bool) -> RunRecord | None:
        """End all workers, judge what tests that did not run have left measured but not judged, and note what
        was left unsaid; None where nothing was measured or asked for."""
        with self._held:
            if self._campaign is None:
                return None
            if cut_short:
                self._campaign.abort()
                _judge_measured(self, self._campaign)
            self._campaign.set_missing(self.judging.ledger.missing())
            self._campaign.close()
            record, folder = self._campaign.record, self._directory.path
            findings.write(folder, record, self.baselines.recorded_at(self.selection))
            self.without_page = _page_problem(self.options, record, folder)
            return record

    def release(self) -> None:
        """Let other sessions have the run directory, as `close` does. Idempotent."""
        self._held.close()


def _judge_measured(session: PerfSession, campaign: Campaign) -> None:
    """Give the verdicts that are still owed on measured cases: cards run ahead of the tests, and one test
    module may have measured what the next one judges. What calls for further measurements stays owed."""
    for case_id in sorted(campaign.done):
        run = session.measure(case_id)
        session.settle_build(run)
        owed = session.judging.ledger.open_on(case_id) if can_be_judged(run) else set()
        for group in groups_of(owed):
            with suppress(AbortedError):
                session.judge(run, group)


def explain_red(session: PerfSession) -> None:
    """With `--perf-stacks` find out which package made red what is red, and record what may explain it, now
    that every test has run. In that order: the evidence takes what is left of the budget."""
    if session._campaign is None:
        return
    try:
        session._ab.attribute(session._campaign, session._directory.path, session._budget.refusal)
        session._ab.gather(session._campaign, session._directory.path, session._budget.lacks)
    except PerfError as error:
        session.problem = str(error)


def _reference(session: PerfSession, run: Run) -> Run | None:
    if run.reference is None:
        return None
    return session.campaign.reference(run.id, run.processes[0].environment.unit if run.processes else None)


def _watch_on(display: Display, session: PerfSession, campaign: Campaign) -> Watch:
    left = TimeLeft(
        expected_s=session.forecaster.expected_s(session.selection),
        lanes=len(session.cards) or 1,
        started=time.monotonic(),
        done_before=campaign.done,
    )
    names = lane_names(session.cards)
    return PhaseLines(display, len(session.selection.cases), lambda: campaign.done, left, names)


def lane_names(cards: Sequence[LaneCard]) -> dict[str, str]:
    """UUID -> what each of several cards is called in the terminal."""
    return {card.unit: f"gpu {index}" for index, card in enumerate(cards)}


def _plan(judging: CaseJudge, selection: Selection, options: Options, resumed: RunRecord | None) -> Plan:
    owed, shard = judging.ledger.owed_by_case(), options.shard
    return Plan(
        cases=tuple(
            PlannedCase(
                id=case_id,
                digest=case.digest,
                owed=owed.get(case_id, ()) if case_id in selection.cases else None,
            )
            for case_id, (case, _) in selection.whole.items()
        ),
        noisy_metrics=judging.noisy_metrics,
        commit=checkout.commits(resumed.plan.commit if resumed and resumed.plan else None, REPOSITORY),
        shard=(shard.index, shard.count) if shard else None,
    )


def _stack(options: Options, watch: Watch) -> Stack:
    return Stack(
        python=options.python,
        command=options.worker_command,
        forking=FORKING if options.worker_command == COMMAND else None,
        artifacts=options.compile_cache and options.compile_cache.absolute(),
        plans=options.autoquant_plans and options.autoquant_plans.absolute(),
        watch=watch,
    )


def _page_problem(options: Options, record: RunRecord, directory: Path) -> str | None:
    """Why the page cannot be written; None where it was."""
    from perf_tests.harness.page import report_file  # what it takes is not needed before the end

    return report_file.problem_of_writing(options.out, record, options.baselines, directory / PAGE)


def _resuming(command: tuple[str, ...], *, already: bool) -> str:
    return shlex.join(("pytest", *command, *(() if already else ("--perf-resume",))))
