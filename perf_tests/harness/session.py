"""One session without pytest: which cases, measured where, judged against what."""

from __future__ import annotations

import difflib
import fnmatch
import shlex
from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime
from functools import cached_property, partial
from pathlib import Path

import msgspec

from perf_tests.harness import baseline, proof, verdict
from perf_tests.harness.attempt import Planned
from perf_tests.harness.baseline import Baselines, Entry, Provenance
from perf_tests.harness.campaign import Campaign
from perf_tests.harness.errors import UsageError
from perf_tests.harness.ledger import BUILD, Ledger
from perf_tests.harness.options import Options
from perf_tests.harness.records import Run, RunRecord, Status, Verdict
from perf_tests.harness.report import failure
from perf_tests.harness.rundir import prepare_run_directory
from perf_tests.harness.sampling import fixed_processes
from perf_tests.tables.cases import Case
from perf_tests.tables.metrics import METRICS, Group, Metric
from perf_tests.tables.platforms import Platform

METRIC_BY_NAME = {metric.name: metric for metric in METRICS}


class Session:
    """Filled by the collection, then asked case by case."""

    def __init__(self, options: Options, command: tuple[str, ...]) -> None:
        self.options = options
        self.ledger = Ledger()
        self._command = command
        self._planned: dict[str, tuple[Case, Platform]] = {}
        self._baselines: dict[str, Mapping[str, Baselines]] = {}
        self._campaign: Campaign | None = None
        self.problem: str | None = None
        """What kept the record from being written, for the report."""

    # Planning

    def plan(self, case: Case, platform: Platform, group: Group | None) -> None:
        """A selected test will judge `case`: the metrics of `group`, or for None whether it was built.

        Raises BaselineError where the platform's baselines cannot be read.
        """
        self._planned[case.id] = (case, platform)
        if platform.id not in self._baselines:
            self._baselines[platform.id] = baseline.load(self.options.baselines, platform.id)
        names = (BUILD,) if group is None else tuple(m.name for m in self._gated(case.id, group))
        self.ledger.plan(case.id, names)

    def check_plan(self) -> None:
        """Raises UsageError for a fire drill that would break nothing."""
        for drill in self.options.drills:
            if self._planned and not fnmatch.filter(self._planned, drill.glob):
                raise UsageError(
                    f"--perf-inject {drill.spec!r} matches none of the {len(self._planned)} selected cases; "
                    f"nearest: {', '.join(nearest(drill.glob, self._planned))}"
                )

    @property
    def is_planned(self) -> bool:
        """Whether any case was selected."""
        return bool(self._planned)

    # Measuring

    @cached_property
    def out(self) -> Path:
        """The directory of this run, empty when it is first asked for. Raises PerfError if there is none."""
        return prepare_run_directory(self.options.out)

    @property
    def campaign(self) -> Campaign:
        """The campaign of all planned cases. Raises PerfError where the run directory cannot be written."""
        if self._campaign is None:
            cases = [case for case, _ in self._planned.values()]
            known = {case.id: case for case in (*(case.reference for case in cases), *cases)}
            self._campaign = Campaign(
                plan=tuple(
                    Planned(case, platform, self.options.injections(case.id))
                    for case, platform in self._planned.values()
                ),
                out=self.out,
                python=self.options.python,
                command=("-m", self.options.worker_module),
                decide=fixed_processes(self.options.processes),
                max_processes=max(self.options.processes, self.options.max_processes),
                started_at=datetime.now(UTC).isoformat(timespec="seconds"),
                command_line=shlex.join(self._command),
                prepare=partial(proof.prepared, known, self.out),
            )
        return self._campaign

    def measure(self, case_id: str) -> Run:
        """The case's run, measured at the first request."""
        run = self.campaign.run(case_id)
        if run.failure is not None:
            self.ledger.declare(case_id)
        return run

    # Judging

    def is_green(self, run: Run) -> bool:
        """Whether what is known of the run leaves the session green: its failure, not its verdicts."""
        if run.failure is None:
            return True
        case, platform = self._planned[run.id]
        required = case.build.recipe.scheme.id in platform.required_schemes
        return run.status is Status.UNSUPPORTED and not required

    def judge(self, run: Run, group: Group) -> tuple[Verdict, ...]:
        """Verdicts on the gated metrics of `group`, filed in the record and the ledger.

        Of an unproven run, only what needs no proof: counters and fidelity, which name the culprit.
        """
        metrics = [m for m in self._gated(run.id, group) if run.failure is None or not m.proven_only]
        verdicts = tuple(self._judged(metric, run) for metric in metrics)
        self._file(run, verdicts)
        self.ledger.say(run.id, tuple(metric.name for metric in metrics))
        return verdicts

    def say_built(self, run: Run) -> None:
        """`test_build` has asserted the outcome of the run."""
        self.ledger.say(run.id, (BUILD,))

    def explain_all(self, run: Run, judged: Sequence[Verdict]) -> str:
        """The failure text of several verdicts of one case: the first in full, a line for each other."""
        others = [f"  also       {v.metric} {v.status.value}: {v.reason}" for v in judged[1:]]
        return "\n".join([self.explain(run, judged[0]), *others])

    def explain(self, run: Run, judged: Verdict) -> str:
        """The failure text of one verdict."""
        entry, provenance = self._entry(run.id)
        return failure.explain(
            run=run,
            verdict=judged,
            metric=METRIC_BY_NAME[judged.metric],
            entry=entry,
            provenance=provenance,
            environment=run.processes[0].environment if run.processes else None,
            run_path=str(self.options.out),
        )

    def explain_failure(self, run: Run) -> str:
        """The failure text of a case that could not be measured as asked."""
        return failure.explain_failure(run=run, run_path=str(self.options.out))

    def entries(self) -> dict[str, Entry]:
        """Case id -> baseline entry of the planned cases that have one."""
        found = {case_id: self._entry(case_id)[0] for case_id in self._planned}
        return {case_id: entry for case_id, entry in found.items() if entry is not None}

    def _gated(self, case_id: str, group: Group) -> tuple[Metric, ...]:
        return verdict.gated_metrics(*self._planned[case_id], group)

    def _entry(self, case_id: str) -> tuple[Entry | None, Provenance | None]:
        case, platform = self._planned[case_id]
        return baseline.find(self._baselines[platform.id], case)

    def _judged(self, metric: Metric, run: Run) -> Verdict:
        if metric.proven_only and (invalid := verdict.invalidity(run)):
            return Verdict(
                metric=metric.name,
                status=Status.INVALID,
                measured=None,
                baseline=None,
                change_pct=None,
                ci_pct=None,
                limit=None,
                reason=invalid,
            )
        case, platform = self._planned[run.id]
        entry, provenance = self._entry(run.id)
        return verdict.judge(
            metric,
            case=case,
            platform=platform,
            run=run,
            reference=self._reference(run),
            entry=entry,
            provenance=provenance,
            unit=run.processes[0].environment.unit,
        )

    def _reference(self, run: Run) -> Run | None:
        if run.reference is None:
            return None
        return self.campaign.reference(run.id)

    def _file(self, run: Run, verdicts: tuple[Verdict, ...]) -> None:
        status, reason = verdict.overall(msgspec.structs.replace(run, verdicts=(*run.verdicts, *verdicts)))
        self.campaign.file(run.id, verdicts, status, reason)

    # Ending

    @property
    def record(self) -> RunRecord | None:
        """The record so far; None where nothing was measured or asked for."""
        return self._campaign.record if self._campaign else None

    def close(self, *, interrupted: bool) -> RunRecord | None:
        """End all workers, enter what was left unsaid; None where nothing was measured or asked for."""
        if self._campaign is None:
            return None
        self._campaign.set_missing(self.ledger.missing())
        if interrupted:
            self._campaign.interrupt()
        else:
            self._campaign.close()
        return self._campaign.record


def check_selection(options: Options, case_ids: Collection[str]) -> None:
    """Raises UsageError for a `--perf-case` that names none of `case_ids`."""
    for glob in options.case_globs:
        if not fnmatch.filter(case_ids, glob):
            raise UsageError(
                f"--perf-case {glob!r} matches none of the {len(case_ids)} cases; "
                f"nearest: {', '.join(nearest(glob, case_ids))}"
            )


def nearest(wanted: str, names: Collection[str]) -> list[str]:
    """Up to three of `names` that look like `wanted`; the first three if none does."""
    return difflib.get_close_matches(wanted, names, n=3, cutoff=0.4) or list(names)[:3]
