"""One session without pytest: which cases, measured where, judged against what."""

from __future__ import annotations

import difflib
import fnmatch
import math
import shlex
import shutil
from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime
from functools import cached_property, partial
from pathlib import Path

import msgspec

from perf_tests.harness.baselines import files
from perf_tests.harness.baselines.files import NOISY, Accepted, Baselines, Entry
from perf_tests.harness.compare import published
from perf_tests.harness.execution.ab_pairs import MAX_PAIRS, PAIRS, PairCampaign, PairRunner
from perf_tests.harness.execution.launcher import Launcher, Planned
from perf_tests.harness.execution.sampling import Answer
from perf_tests.harness.fidelity import heatmaps
from perf_tests.harness.planning import cost_model, schedule, sharding
from perf_tests.harness.planning.budget import Budget
from perf_tests.harness.planning.cost_model import KnownCosts
from perf_tests.harness.planning.sharding import Selected
from perf_tests.harness.plugin.ledger import BUILD, Ledger
from perf_tests.harness.plugin.options import Options
from perf_tests.harness.report import ab_comparison as against_report
from perf_tests.harness.report import failure
from perf_tests.harness.runs import validity
from perf_tests.harness.runs.directory import prepare_run_directory, resume_run_directory
from perf_tests.harness.runs.record import Comparison, Run, RunRecord, SamplingEnd, Side, Status, Verdict
from perf_tests.harness.stats import observations
from perf_tests.harness.stats.sequential_bounds import metric_level
from perf_tests.harness.verdicts import ab_comparison, judge, verification
from perf_tests.harness.verdicts.judge import Significance
from perf_tests.protocol.errors import UsageError
from perf_tests.protocol.reports import Sample
from perf_tests.tables.cases import Case
from perf_tests.tables.matrix import MATRIX
from perf_tests.tables.metrics import METRICS, Group, Metric
from perf_tests.tables.platforms import Noise, Platform

METRIC_BY_NAME = {metric.name: metric for metric in METRICS}


class Session:
    """Filled by the collection, then asked case by case."""

    def __init__(self, options: Options, command: tuple[str, ...], unit: str | None = None) -> None:
        """`unit` is the UUID of this machine's GPU; None without one."""
        self.options = options
        self.unit = unit
        self.ledger = Ledger()
        self._command = command
        self._planned: dict[str, tuple[Case, Platform]] = {}
        self._exhaustive: set[str] = set()
        self._baselines: dict[str, Mapping[str, Baselines]] = {}
        self._noise: dict[str, Mapping[str, Noise]] = {}
        self._campaign: PairCampaign | None = None
        self.problem: str | None = None
        """What kept the record from being written, for the report."""

    # Planning

    def plan(self, case: Case, platform: Platform, group: Group | None, *, exhaustive: bool = False) -> None:
        """A selected test will judge `case`: the metrics of `group`, or for None whether it was built.

        An `exhaustive` case is proved and generated once, and nothing that takes time is judged. Raises
        BaselineError where the platform's baselines cannot be read.
        """
        self._planned[case.id] = (case, platform)
        if exhaustive:
            self._exhaustive.add(case.id)
        self._baselines_of(platform)
        names = (BUILD,) if group is None else tuple(m.name for m in self._gated(case.id, group))
        self.ledger.plan(case.id, names)

    def _baselines_of(self, platform: Platform) -> Mapping[str, Baselines]:
        if platform.id not in self._baselines:
            self._baselines[platform.id] = files.load(self.options.baselines, platform.id)
            self._noise[platform.id] = files.load_noise(self.options.baselines, platform)
        return self._baselines[platform.id]

    def check_plan(self) -> None:
        """Raises UsageError for a fire drill that would break nothing, and for a comparison without another
        interpreter, or without anything to compare."""
        self._check_against()
        for drill in self.options.drills:
            if self._planned and not fnmatch.filter(self._planned, drill.glob):
                raise UsageError(
                    f"--perf-inject {drill.spec!r} matches none of the {len(self._planned)} selected cases; "
                    f"nearest: {', '.join(nearest(drill.glob, self._planned))}"
                )

    def expected(self, selected: Sequence[Selected], once: Collection[str]) -> schedule.Forecast:
        """What the `selected` cases, and what they are compared with, are expected to take; those of `once`
        belong to the cross product."""
        return schedule.forecast(selected, self._known(selected), self.options.processes, once)

    def accuracy(self, selected: Sequence[Selected], once: Collection[str]) -> tuple[schedule.Accuracy, ...]:
        """How well that was foreseen, now that it was measured; empty where nothing was."""
        record = self.record
        return () if record is None else schedule.accuracy(self.expected(selected, once), record)

    def shard(self, selected: Sequence[Selected], once: Collection[str]) -> frozenset[str]:
        """The ids of those of `selected` which belong to the shard of the options."""
        assert self.options.shard is not None, "only asked with --perf-shard"
        items = schedule.shard_items(selected, self._known(selected), self.options.processes, once)
        return sharding.shard(items, self.options.shard)

    def _known(self, selected: Sequence[Selected]) -> dict[str, KnownCosts]:
        published_s = published.latencies_s(self.options.baselines / "published")
        every_case = [row.case(self.options.weights) for row in MATRIX]
        return {
            platform.id: KnownCosts(
                records=cost_model.recorded_cases(self._baselines_of(platform), every_case),
                published_s=published_s,
            )
            for platform in {platform.id: platform for _, platform in selected}.values()
        }

    @property
    def is_planned(self) -> bool:
        """Whether any case was selected."""
        return bool(self._planned)

    @property
    def is_on_gpu(self) -> bool:
        """Whether any of them is measured on a GPU."""
        return any(platform.gpu is not None for _, platform in self._planned.values())

    # Measuring

    @cached_property
    def _directory(self) -> tuple[Path, RunRecord | None]:
        if self.options.resume:
            return resume_run_directory(self.options.out)
        return prepare_run_directory(self.options.out), None

    @property
    def out(self) -> Path:
        """The directory of this run: empty when it is first asked for, or as the session that is resumed
        left it. Raises PerfError if there is none."""
        return self._directory[0]

    @property
    def campaign(self) -> PairCampaign:
        """The campaign of all planned cases. Raises PerfError where the run directory cannot be written."""
        if self._campaign is None:
            cases = [case for case, _ in self._planned.values()]
            known = {case.id: case for case in (*(case.reference for case in cases), *cases)}
            out, resumed = self._directory
            self._campaign = PairCampaign(
                plan=tuple(
                    Planned(case, platform, self.options.injections(case.id), case.id in self._exhaustive)
                    for case, platform in self._planned.values()
                ),
                out=out,
                python=self.options.python,
                command=("-m", self.options.worker_module),
                decide=self._decide,
                max_processes=self._max_processes,
                end_sampling=self._end_sampling,
                started_at=datetime.now(UTC).isoformat(timespec="seconds"),
                command_line=shlex.join(self._command),
                prepare=partial(verification.prepared, known, out),
                admit=self._budget.refusal,
                artifacts=self.options.compile_cache and self.options.compile_cache.absolute(),
                plans=self.options.autoquant_plans and self.options.autoquant_plans.absolute(),
                resumed=resumed,
                unit=self.unit,
            )
            self._campaign.keep(resumed.comparisons if resumed else ())
        return self._campaign

    def measure(self, case_id: str) -> Run:
        """The case's run, measured at the first request."""
        run = self.campaign.run(case_id)
        if run.failure is not None or run.status is Status.NOT_RUN:
            self.ledger.declare(case_id)
        return run

    @cached_property
    def _budget(self) -> Budget:
        if self.options.budget_s is None:
            return Budget(math.inf, {})
        rows = self.expected(tuple(self._planned.values()), self._exhaustive).rows
        return Budget(
            self.options.budget_s,
            {row.case.id: math.fsum(row.seconds.values()) for row in rows if not row.implicit},
        )

    @property
    def _max_processes(self) -> int:
        return max(self.options.processes, self.options.max_processes)

    def _decide(self, run: Run, /) -> Answer:
        """More processes as long as they would decide one of the verdicts that the session owes."""
        if len(run.processes) < self.options.processes:
            return Answer.MORE
        owed = self.ledger.owed(run.id) & NOISY  # none of a reference that was not selected
        is_undecided = any(self._judged(METRIC_BY_NAME[name], run).wants_more for name in sorted(owed))
        return Answer.MORE if is_undecided else Answer.ENOUGH

    def _end_sampling(
        self, case: Case, platform: Platform, samples: Sequence[Sample], /
    ) -> SamplingEnd | None:
        noise = self._noise[platform.id]
        precise = (metric.name for metric in judge.gated_metrics(case, platform) if metric.precise)
        noise_pct = {name: noise[name].sd_pct for name in precise if name in noise}
        return observations.sampling_end(samples, noise_pct, platform.samples)

    # Judging

    @property
    def noisy_metrics(self) -> int:
        """How many pairs (case, noisy gated metric) the session owes the verdict of a test."""
        by_limit = {
            (case_id, metric.name)
            for case_id, (case, platform) in self._planned.items()
            for metric in judge.gated_metrics(case, platform)
            if not metric.noisy
        }
        return sum(metric in NOISY for _, metric in self.ledger.planned - by_limit)

    @property
    def level(self) -> float:
        """Probability that unchanged code turns one of them red: at most this."""
        return metric_level(max(1, self.noisy_metrics))

    def is_green(self, run: Run) -> bool:
        """Whether what is known of the run leaves the session green: its failure, not its verdicts."""
        if run.failure is None:
            return run.status is not Status.NOT_RUN
        case, platform = self._planned[run.id]
        required = case.build.recipe.scheme.id in platform.required_schemes
        return run.status is Status.UNSUPPORTED and not required

    def is_all_green(self, record: RunRecord) -> bool:
        """Whether no case of this session failed; what a resumed record holds besides is not its business."""
        return all(self.is_green(run) for run in record.cases if run.id in self._planned)

    def judge(self, run: Run, group: Group) -> tuple[Verdict, ...]:
        """Verdicts on the gated metrics of `group`, filed in the record and the ledger.

        Of an unproven run, only what needs no proof: counters and fidelity, which name the culprit.
        """
        metrics = [m for m in self._gated(run.id, group) if run.failure is None or not m.proven_only]
        verdicts = self._compared(run, tuple(self._judged(metric, run) for metric in metrics))
        self._file(run, verdicts)
        self.ledger.say(run.id, tuple(metric.name for metric in metrics))
        return verdicts

    def say_built(self, run: Run) -> None:
        """`test_build` has asserted the outcome of the run, which is all there is to say of some."""
        self.ledger.say(run.id, (BUILD,))
        proved = run.id in self._exhaustive and run.failure is None
        if proved and self.ledger.owed(run.id) == {BUILD}:
            self.campaign.file(run.id, (), Status.PASS, "")

    def explain_all(self, run: Run, judged: Sequence[Verdict]) -> str:
        """The failure text of several verdicts of one case: the first in full, a line for each other."""
        others = [f"  also       {v.metric} {v.status.value}: {v.reason}" for v in judged[1:]]
        return "\n".join([self.explain(run, judged[0]), *others])

    def explain(self, run: Run, judged: Verdict) -> str:
        """The failure text of one verdict."""
        case, _ = self._planned[run.id]
        metric = judge.as_judged(METRIC_BY_NAME[judged.metric], case.build.recipe.scheme)
        text = failure.explain(
            run=run,
            verdict=judged,
            metric=metric,
            accepted=self._accepted(run.id),
            environment=run.processes[0].environment if run.processes else None,
            heat_maps=heatmaps.explaining(judged, metric, run, self.options.out),
            run_path=str(self.options.out),
        )
        comparison = self._campaign and self._campaign.comparison(run.id)
        compared = against_report.explanation(judged, metric, comparison) if comparison else ()
        return "\n".join([text, *compared])

    def explain_failure(self, run: Run) -> str:
        """The failure text of a case that could not be measured as asked."""
        return failure.explain_failure(run=run, run_path=str(self.options.out))

    def entries(self) -> dict[str, Entry]:
        """Case id -> baseline entry of the planned cases that have one."""
        found = {case_id: self._accepted(case_id) for case_id in self._planned}
        return {case_id: accepted.entry for case_id, accepted in found.items() if accepted is not None}

    def control(self) -> validity.ControlChange | None:
        """The control case of this session beside that of the baselines; None where it was not run."""
        on_gpu = {case_id: platform for case_id, (_, platform) in self._planned.items() if platform.gpu}
        runs = [run for run in self.record.cases if run.id in on_gpu] if self.record else []
        if not runs:
            return None
        units = {process.environment.unit for run in runs for process in run.processes}
        found = [accepted for run in runs if (accepted := self._accepted(run.id)) is not None]
        before: dict[str, list[float]] = {}
        for accepted in found:
            for name, values in accepted.entry.metrics.items():
                before.setdefault(name, []).extend(values)
        elsewhere = any({accepted.provenance.unit} != units for accepted in found)
        wide_pct = max(on_gpu[run.id].unit_tolerance_pct for run in runs)
        tolerance_pct = wide_pct if elsewhere else validity.CONTROL_TOLERANCE_PCT
        return validity.control(validity.control_values(runs), before, tolerance_pct)

    def _gated(self, case_id: str, group: Group) -> tuple[Metric, ...]:
        gated = judge.gated_metrics(*self._planned[case_id], group)
        # With compile caches from files nothing need compile cold: the report says so, once.
        return tuple(m for m in gated if not (m.cold_only and self.options.compile_cache))

    def _accepted(self, case_id: str) -> Accepted | None:
        case, platform = self._planned[case_id]
        return files.find(self._baselines[platform.id], case)

    def _judged(self, metric: Metric, run: Run) -> Verdict:
        case, platform = self._planned[run.id]
        return judge.judge(
            metric,
            case=case,
            platform=platform,
            run=run,
            reference=self._reference(run),
            accepted=self._accepted(run.id),
            unit=run.processes[0].environment.unit,
            significance=Significance(
                noise=self._noise[platform.id], level=self.level, max_processes=self._max_processes
            ),
        )

    def _reference(self, run: Run) -> Run | None:
        if run.reference is None:
            return None
        return self.campaign.reference(run.id)

    def _file(self, run: Run, verdicts: tuple[Verdict, ...]) -> None:
        filed = {each.metric: each for each in (*run.verdicts, *verdicts)}
        status, reason = judge.overall(msgspec.structs.replace(run, verdicts=tuple(filed.values())))
        self.campaign.file(run.id, verdicts, status, reason)

    # Comparing with another stack

    def _check_against(self) -> None:
        python = self.options.against
        if python is None or not self._planned:
            return
        if shutil.which(python) is None:
            raise UsageError(
                f"--perf-against {python}: there is no such interpreter; give the python of an environment "
                "that holds a stable stack"
            )
        if not self._times:
            raise UsageError(
                f"--perf-against: none of the {len(self._planned)} selected cases has a noisy time that "
                "gates on its platform; select cases of a GPU"
            )

    @cached_property
    def _times(self) -> int:
        """Of all planned cases, those that may be compared."""
        return sum(len(ab_comparison.times_of(case, platform)) for case, platform in self._planned.values())

    def _compared(self, run: Run, verdicts: tuple[Verdict, ...]) -> tuple[Verdict, ...]:
        """Regressions confirmed, or not, by the stable stack; times without a baseline judged by it."""
        judged = [(each, METRIC_BY_NAME[each.metric]) for each in verdicts]
        if self.options.against is None or not any(ab_comparison.is_asked(*each) for each in judged):
            return verdicts
        comparison = self._compare(run, self.options.against)
        return tuple(ab_comparison.applied(each, metric, comparison) for each, metric in judged)

    def _compare(self, run: Run, python: str) -> Comparison:
        case, platform = self._planned[run.id]
        accepted = self._accepted(run.id)
        noise = self._noise[platform.id]
        level = ab_comparison.level(self._times)
        rules = {
            time.name: ab_comparison.rule_of(noise[time.name], level, MAX_PAIRS)
            for time in ab_comparison.times_of(case, platform)
        }
        question = ab_comparison.Question(case=case, rules=rules, least_pairs=PAIRS)
        peak_mib = ab_comparison.known_peak_mib(run, accepted.entry.metrics if accepted else {})
        return self.campaign.compare(
            self.campaign.begin(run.id, python, peak_mib),
            self._pair_runner(python),
            partial(ab_comparison.judge, question),
            self._budget.refusal,
        )

    def _pair_runner(self, python: str) -> PairRunner:
        start = partial(
            Launcher,
            self.out,
            command=("-m", self.options.worker_module),
            plans=self.options.autoquant_plans and self.options.autoquant_plans.absolute(),
        )
        known = self.campaign.record.environment
        return PairRunner(
            {
                Side.STABLE: start(python=python),
                Side.CANDIDATE: start(python=self.options.python, environment=known),
            },
            self.out,
        )

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
                f"--perf-case {glob!r} matches none of the {len(case_ids)} cases and known issues; "
                f"nearest: {', '.join(nearest(glob, case_ids))}"
            )


def nearest(wanted: str, names: Collection[str]) -> list[str]:
    """Up to three of `names` that look like `wanted`; the first three if none does."""
    return difflib.get_close_matches(wanted, names, n=3, cutoff=0.4) or list(names)[:3]
