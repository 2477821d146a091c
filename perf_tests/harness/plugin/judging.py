"""The verdicts of a session: which are owed, how they are reached, and the texts of those that are red."""

from __future__ import annotations

from collections.abc import Callable, Sequence, Set
from datetime import UTC, datetime
from itertools import chain

import msgspec

from perf_tests.harness.baselines.entry import Accepted, Entry
from perf_tests.harness.execution.sampling import Answer
from perf_tests.harness.fidelity import heatmaps
from perf_tests.harness.plugin.ledger import Ledger
from perf_tests.harness.plugin.options import Options
from perf_tests.harness.plugin.selection import PlatformBaselines, Selection
from perf_tests.harness.records.attributions import Attribution
from perf_tests.harness.records.evidence import Evidence
from perf_tests.harness.records.process_ends import SamplingEnd
from perf_tests.harness.report import ab_comparison as ab_report
from perf_tests.harness.report import failure
from perf_tests.harness.report.evidence import lines as evidence_report
from perf_tests.harness.runs import validity
from perf_tests.harness.runs.plan import BUILD
from perf_tests.harness.runs.projection import least_samples
from perf_tests.harness.runs.record import Comparison, Run, RunRecord, Status, Verdict
from perf_tests.harness.stats import precision
from perf_tests.harness.stats.sequential_bounds import metric_level
from perf_tests.harness.verdicts.acknowledging import acknowledged
from perf_tests.harness.verdicts.case_status import is_green_without_verdicts, leading, overall
from perf_tests.harness.verdicts.gates import as_judged, gated_metrics
from perf_tests.harness.verdicts.judge import judge_metric
from perf_tests.harness.verdicts.noisy import Significance
from perf_tests.protocol.reports import Sample
from perf_tests.tables.cases import Case
from perf_tests.tables.metrics.rows import ASKING, METRIC_BY_NAME, NOISY
from perf_tests.tables.metrics.spec import Group, Metric
from perf_tests.tables.platforms import Platform

FindReference = Callable[[Run], Run | None]
"""The run that a run is compared with, measured if need be; None for one that is compared with nothing."""


class CaseJudge:
    """Judges the runs of the selected cases, and keeps the ledger of the verdicts that are owed."""

    def __init__(
        self,
        options: Options,
        selection: Selection,
        baselines: PlatformBaselines,
        find_reference: FindReference,
    ) -> None:
        self.ledger = Ledger()
        self._options = options
        self._selection = selection
        self._baselines = baselines
        self._find_reference = find_reference
        self._drawn: dict[str, heatmaps.Drawing | None] = {}
        """Case id -> its heat maps."""

    def owe(self, case_id: str, group: Group | None, *, elsewhere: bool = False) -> None:
        """A selected test, in another shard where that is `elsewhere`, will judge the metrics of `group`, or
        for None whether the case was built."""
        names = (BUILD,) if group is None else tuple(metric.name for metric in self._gated(case_id, group))
        self.ledger.owe(case_id, names, elsewhere=elsewhere)

    # How many processes and samples

    @property
    def max_processes(self) -> int:
        """How many fresh processes a case may get at most."""
        return max(self._options.processes, self._options.max_processes)

    def decide(self, run: Run, /) -> Answer:
        """Ask for more processes as long as they would decide one of the verdicts that are owed."""
        if len(run.processes) < self._options.processes:
            return Answer.MORE
        owed = self.ledger.owed_on(run.id) & ASKING  # none of a reference that was not selected
        is_undecided = any(self._verdict(METRIC_BY_NAME[name], run).wants_more for name in sorted(owed))
        return Answer.MORE if is_undecided else Answer.ENOUGH

    def end_sampling(
        self, case: Case, platform: Platform, samples: Sequence[Sample], /
    ) -> SamplingEnd | None:
        """Why a process takes no further sample; None while a precise metric is not yet known well."""
        noise = self._baselines.noise(platform)
        precise = (metric.name for metric in gated_metrics(case, platform) if metric.precise)
        noise_pct = {name: noise[name].sd_pct for name in precise if name in noise}
        least = least_samples(case, platform)
        return precision.sampling_end(samples, noise_pct, least, enough=platform.samples)

    # The error level

    @property
    def noisy_metrics(self) -> int:
        """How many pairs (case, noisy gated metric) the selected tests owe a verdict on, in all shards."""
        return sum(
            as_judged(METRIC_BY_NAME[name], self._selection.whole[case_id][0]).is_noisy
            for case_id, name in chain(self.ledger.owed, self.ledger.elsewhere)
            if name in NOISY
        )

    @property
    def level(self) -> float:
        """The probability that unchanged code turns any single one of these pairs red is at most this."""
        return metric_level(max(1, self.noisy_metrics))

    # Verdicts

    def verdicts(self, run: Run, group: Group) -> tuple[Verdict, ...]:
        """Verdicts on the gated metrics of `group`.

        A known regression is looked up, except in a fire drill. An unproven run is judged only by what needs
        no verification, counters and fidelity, which name the culprit; what it does not tell is not missing,
        but a consequence.
        """
        metrics = self._gated(run.id, group)
        if run.failure is None:
            platform, today = self._selection.cases[run.id][1], datetime.now(UTC).date()
            known = {} if run.injected else self._baselines.acknowledged(platform)
            return tuple(
                acknowledged(self._verdict(metric, run), metric, known.get((run.id, metric.name)), today)
                for metric in metrics
            )
        verdicts = (self._verdict(metric, run) for metric in metrics if not metric.needs_verification)
        return tuple(each for each in verdicts if each.status is not Status.INCONCLUSIVE)

    def is_green(self, run: Run) -> bool:
        """Whether measuring `run` ended in a way that leaves the session green; its verdicts do not count."""
        case, platform = self._selection.cases[run.id]
        # What has a baseline was supported when that was accepted.
        accepted = self._accepted(run.id) is not None
        is_required = accepted or case.build.recipe.scheme.id in platform.required_schemes
        return is_green_without_verdicts(run, is_required=is_required)

    def is_all_green(self, record: RunRecord) -> bool:
        """Whether every selected case in `record` is, and every verdict on one; cases that only a resumed run
        holds do not count."""
        runs = [run for run in record.cases if run.id in self._selection.cases]
        verdicts = [verdict for run in runs for verdict in run.verdicts]
        return all(map(self.is_green, runs)) and all(verdict.status.is_green for verdict in verdicts)

    def entries(self) -> dict[str, Entry]:
        """Case id -> baseline entry of the selected cases that have one."""
        found = {case_id: self._accepted(case_id) for case_id in self._selection.cases}
        return {case_id: accepted.entry for case_id, accepted in found.items() if accepted is not None}

    # Heat maps

    def draw(self, run: Run, /) -> None:
        """Draw how the outputs of `run` differ from its reference's, while its arrays are there, where a
        verdict on that is red or lacks a baseline."""
        if not run.processes or not can_be_judged(run):
            return
        owed = (METRIC_BY_NAME[name] for name in sorted(self.ledger.owed_on(run.id) - {BUILD}))
        about_outputs = (metric for metric in owed if metric.reader.compares_outputs)
        if any(heatmaps.is_shown_by(self._verdict(metric, run), metric) for metric in about_outputs):
            self._drawn[run.id] = heatmaps.drawn(run, self._options.out)

    def _heat_maps(self, run: Run, judged: Verdict, metric: Metric) -> heatmaps.Drawing | None:
        if not heatmaps.explain(judged, metric):
            return None
        if run.id not in self._drawn:
            self._drawn[run.id] = heatmaps.drawn(run, self._options.out)
        return self._drawn[run.id]

    # Failure texts

    def explain(
        self,
        run: Run,
        judged: Sequence[Verdict],
        comparison: Comparison | None,
        attributions: Sequence[Attribution] = (),
        evidence: Sequence[Evidence] = (),
    ) -> str:
        """The failure text of several verdicts on one case: the leading one in full, one line for each other.

        `comparison` is the case's A/B with another stack; None where there was none. `attributions` and
        `evidence` are those of the session, once they are known.
        """
        first, *rest = leading(judged)
        others = [f"  also       {v.metric} {v.status.value}: {v.reason}" for v in rest]
        whose = ab_report.whose(run.id, METRIC_BY_NAME[first.metric], attributions)
        known = evidence_report.lines(evidence, run.id, str(self._options.out))
        text = self._explain_one(run, first, comparison, attributions)
        return "\n".join([text, *whose, *known, *others])

    def _explain_one(
        self, run: Run, judged: Verdict, comparison: Comparison | None, attributions: Sequence[Attribution]
    ) -> str:
        case, _ = self._selection.cases[run.id]
        metric = as_judged(METRIC_BY_NAME[judged.metric], case)
        text = failure.explain(
            run=run,
            verdict=judged,
            metric=metric,
            accepted=self._accepted(run.id),
            environment=run.processes[0].environment if run.processes else None,
            heat_maps=self._heat_maps(run, judged, metric),
            run_path=str(self._options.out),
            is_answered=ab_report.is_answered(run.id, metric, comparison, attributions),
        )
        compared = ab_report.explanation(judged, metric, comparison) if comparison else ()
        return "\n".join([text, *compared])

    # The control

    def control(self, record: RunRecord) -> validity.ControlChange | None:
        """How the control kernels of `record` compare with those of the baselines; None where no selected
        case ran on a GPU."""
        on_gpu = {name: platform for name, (_, platform) in self._selection.cases.items() if platform.gpu}
        runs = [run for run in record.cases if run.id in on_gpu]
        if not runs:
            return None
        units = {process.environment.unit for run in runs for process in run.processes}
        baselines = [accepted for run in runs if (accepted := self._accepted(run.id)) is not None]
        before: dict[str, list[float]] = {}
        for accepted in baselines:
            for name, values in accepted.entry.metrics.items():
                before.setdefault(name, []).extend(values)
        on_another_card = any({accepted.provenance.unit} != units for accepted in baselines)
        across_cards_pct = max(on_gpu[run.id].unit_tolerance_pct for run in runs)
        tolerance_pct = across_cards_pct if on_another_card else validity.CONTROL_TOLERANCE_PCT
        return validity.control(validity.control_values(runs), before, tolerance_pct)

    # One metric

    def _gated(self, case_id: str, group: Group) -> tuple[Metric, ...]:
        return gated_metrics(*self._selection.whole[case_id], group)

    def _accepted(self, case_id: str) -> Accepted | None:
        return self._baselines.find(*self._selection.cases[case_id])

    def _verdict(self, metric: Metric, run: Run) -> Verdict:
        case, platform = self._selection.cases[run.id]
        return judge_metric(
            metric,
            case=case,
            platform=platform,
            run=run,
            reference=self._find_reference(run),
            accepted=self._accepted(run.id),
            unit=run.processes[0].environment.unit,
            significance=Significance(
                noise=self._baselines.noise(platform), level=self.level, max_processes=self.max_processes
            ),
        )


def groups_of(metrics: Set[str]) -> tuple[Group, ...]:
    """The groups that the metrics of these names belong to, each once."""
    return tuple(dict.fromkeys(METRIC_BY_NAME[name].group for name in sorted(metrics)))


def can_be_judged(run: Run) -> bool:
    """Whether `run` has anything to judge: an unproven one has counters and pictures, one that failed in
    another way or was not started has neither."""
    failed = run.failure is not None and run.status is not Status.UNPROVEN
    return not failed and run.status is not Status.NOT_RUN


def outcome(run: Run, verdicts: Sequence[Verdict]) -> tuple[Status, str]:
    """The status of a whole case and why, once `verdicts` have joined or replaced those it has."""
    judged = {each.metric: each for each in (*run.verdicts, *verdicts)}
    return overall(msgspec.structs.replace(run, verdicts=tuple(judged.values())))
