"""The A/B of a session: which verdicts another stack is measured for, and what becomes of them."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from functools import cached_property, partial
from pathlib import Path

from perf_tests.harness.ab.campaign import MAX_PAIRS, MIN_PAIRS, PairCampaign
from perf_tests.harness.ab.pairs import PairRunner
from perf_tests.harness.attribution import clusters
from perf_tests.harness.attribution.attributing import Attributor, twin_of
from perf_tests.harness.attribution.bench import CampaignBench
from perf_tests.harness.attribution.clusters import Suspect
from perf_tests.harness.attribution.diagonals import PairQuestion
from perf_tests.harness.attribution.stacks import Stacks
from perf_tests.harness.execution.campaign import Campaign
from perf_tests.harness.execution.lane import Lane
from perf_tests.harness.execution.launcher import Seen, Stack
from perf_tests.harness.plugin.options import Options
from perf_tests.harness.plugin.selection import PlatformBaselines, Selection
from perf_tests.harness.processes.watch import Watch, in_stack
from perf_tests.harness.profiles.gathering import Gatherer
from perf_tests.harness.profiles.wanted import wanted
from perf_tests.harness.records.attributions import Corner
from perf_tests.harness.runs.record import Comparison, Run, RunRecord, Side, Verdict
from perf_tests.harness.stats.pairs import pair_test
from perf_tests.harness.verdicts import ab_clauses, ab_comparison
from perf_tests.protocol.errors import UsageError
from perf_tests.tables.cases import Case
from perf_tests.tables.metrics.rows import METRIC_BY_NAME
from perf_tests.tables.metrics.spec import STEP, Metric
from perf_tests.tables.platforms import Noise, Platform

Refuse = Callable[[str], str | None]
"""Why the case gets no further pair; None where it does."""


class AbSession:
    """Measures the stable stack of `--perf-against` interleaved with the candidate, for the verdicts that
    call for it; without the option it leaves every verdict as it is."""

    def __init__(
        self, options: Options, selection: Selection, baselines: PlatformBaselines, watch: Watch
    ) -> None:
        self._watch = watch
        self._options = options
        self._selection = selection
        self._baselines = baselines
        self._compared: dict[str, Comparison] = {}

    def check(self) -> None:
        """Raise UsageError for an interpreter that does not exist, and without a time to compare."""
        python = self._options.against
        if python is None or not self._selection.cases:
            return
        if shutil.which(python) is None:
            raise UsageError(
                f"--perf-against {python}: there is no such interpreter; give the python of an environment "
                "that holds a stable stack"
            )
        if not self._time_count and self._options.stacks is None:  # exact metrics are attributed, too
            raise UsageError(
                f"--perf-against: none of the {len(self._selection.whole)} selected cases has a noisy time "
                "that gates on its platform; select cases of a GPU"
            )

    def apply(
        self, run: Run, verdicts: tuple[Verdict, ...], campaign: Campaign, out: Path, refuse: Refuse
    ) -> tuple[Verdict, ...]:
        """Regressed times confirmed, or not, by the stable stack; times without a baseline judged by it.

        The pairs are measured in `out` and filed in `campaign`; `refuse` is asked before each of them.
        Raises PerfError where the run directory cannot be written.
        """
        judged = [(each, METRIC_BY_NAME[each.metric]) for each in verdicts]
        if self._options.against is None or not any(ab_comparison.is_asked(*each) for each in judged):
            return verdicts
        if run.id not in self._compared:
            unit = run.processes[0].environment.unit
            compare = partial(self._compare, run, self._options.against, campaign, out, refuse)
            self._compared[run.id] = campaign.on_device(unit, compare)
        comparison = self._compared[run.id]
        return tuple(ab_clauses.applied(each, metric, comparison) for each, metric in judged)

    def attribute(self, campaign: Campaign, out: Path, refuse: Refuse) -> None:
        """Find out which package made the red metrics of the session red, and file that in `campaign`.

        Each is filed as soon as it is known. Raises PerfError where the run directory cannot be written.
        """
        if self._options.stacks is None:
            return
        record, cases = campaign.record, {name: case for name, (case, _) in self._selection.cases.items()}
        comparisons = {each.id: each for each in record.comparisons}
        bench = self._bench(self._options.stacks, record, campaign, out, refuse)
        attributor = Attributor(
            bench=bench,
            question=self._pair_question,
            twin=lambda suspect: twin_of(suspect, comparisons, self._pair_question(suspect)),
        )
        campaign.store.attributions = ()
        for cluster in clusters.clusters(clusters.suspects(record.cases, cases, comparisons)):
            campaign.store.attributions += (attributor.attribute(cluster),)
            campaign.store.write()

    def gather(self, campaign: Campaign, out: Path, lacks: Callable[[float], str | None]) -> None:
        """Record what may explain confirmed red times and red peaks, and file that in `campaign`.

        Nothing is begun for which `lacks` says that there is no time. Raises PerfError where the run
        directory cannot be written.
        """
        cases = {name: case for name, (case, _) in self._selection.cases.items()}
        comparisons = {each.id: each for each in campaign.record.comparisons}
        suspects = clusters.suspects(campaign.record.cases, cases, comparisons)
        gatherer = Gatherer(
            campaign=campaign,
            out=out,
            runner=partial(self._pair_runner, self._options.against, campaign, out),
            lacks=lacks,
        )
        gatherer.gather(wanted(suspects))

    def _bench(
        self, stacks: Stacks, record: RunRecord, campaign: Campaign, out: Path, refuse: Refuse
    ) -> CampaignBench:
        known = {Corner.NEW: record.environment, Corner.GOOD: None}
        for comparison in record.comparisons:
            known[Corner.GOOD] = known[Corner.GOOD] or comparison.stable
        return CampaignBench(
            campaign=campaign,
            out=out,
            stacks=stacks,
            stack=self._stack,
            peak_mib=self._peak_mib,
            refuse=refuse,
            environments={corner: each for corner, each in known.items() if each is not None},
        )

    def _pair_question(self, suspect: Suspect) -> PairQuestion:
        case, platform = self._selection.cases[suspect.run.id]
        return PairQuestion(
            case=case,
            time=suspect.metric,
            noise=self._noise(suspect.metric, platform),
            least_pairs=MIN_PAIRS,
            most_pairs=MAX_PAIRS,
        )

    def _peak_mib(self, run: Run) -> float | None:
        accepted = self._baselines.find(*self._selection.cases[run.id])
        return ab_comparison.known_peak_mib(run, accepted.entry.metrics if accepted else {})

    def _stack(self, python: str, name: str) -> Stack:
        plans = self._options.autoquant_plans
        command = self._options.worker_command
        watch = in_stack(self._watch, name, MAX_PAIRS)
        return Stack(python=python, command=command, watch=watch, plans=plans and plans.absolute())

    @cached_property
    def _time_count(self) -> int:
        """How many times of all selected cases may be compared, in all shards."""
        cases = self._selection.whole.values()
        return sum(len(ab_comparison.times_of(case, platform)) for case, platform in cases)

    def _compare(
        self, run: Run, python: str, campaign: Campaign, out: Path, refuse: Refuse, lane: Lane
    ) -> Comparison:
        case, platform = self._selection.cases[run.id]
        pairs = PairCampaign(campaign)
        return pairs.compare(
            pairs.begin(run.id, python, self._peak_mib(run)),
            self._pair_runner(python, campaign, out, lane),
            partial(ab_comparison.judge_comparison, self._question(case, platform)),
            refuse,
        )

    def _question(self, case: Case, platform: Platform) -> ab_comparison.Question:
        level = ab_comparison.level(self._time_count)
        tests = {
            time.name: pair_test(self._noise(time, platform), level, MAX_PAIRS)
            for time in ab_comparison.times_of(case, platform)
        }
        return ab_comparison.Question(case=case, tests=tests, least_pairs=MIN_PAIRS)

    def _noise(self, time: Metric, platform: Platform) -> Noise:
        """How far processes lie apart in a time: in that of the device, at most as in the wall clock's."""
        noise = self._baselines.noise(platform)
        return noise.get(time.name, noise[STEP])

    def _pair_runner(self, python: str | None, campaign: Campaign, out: Path, lane: Lane) -> PairRunner:
        """Of the session's stack, and beside it that of the interpreter `python`, if there is one."""
        stable = {} if python is None else {Side.STABLE: lane.launcher(self._stack(python, Side.STABLE))}
        own = self._stack(self._options.python, Side.CANDIDATE if stable else "")
        candidate = lane.launcher(own, Seen(campaign.store.environment))
        return PairRunner({**stable, Side.CANDIDATE: candidate}, out)
