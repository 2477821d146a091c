"""Comparisons of two stacks in a session: pairs until the rule has enough of them, filed in its record."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from perf_tests.harness.ab.pairs import PairRunner, SideError
from perf_tests.harness.ab.schedule import builds_together, schedule_of
from perf_tests.harness.execution.campaign import Campaign
from perf_tests.harness.records.attributions import Corner
from perf_tests.harness.runs.environments import stack_of
from perf_tests.harness.runs.record import (
    REASON_OF_PROGRESS,
    Comparison,
    Pair,
    Progress,
    Schedule,
    Side,
    Status,
)
from perf_tests.protocol.messages import FailureKind

MIN_PAIRS, MAX_PAIRS = 5, 10
"""Fresh pairs before a comparison is first judged, and the most while it is undecided."""

Judge = Callable[[Comparison], Comparison | None]
"""Called after each pair and each failure. Returns the comparison with verdicts, None for one more pair."""
Refuse = Callable[[str], str | None]
"""Called before each pair with the case's id. Returns why there is no further pair, or None."""


class PairCampaign:
    """Compares measured cases of a campaign under two stacks, in the campaign's record."""

    def __init__(self, campaign: Campaign, corners: tuple[Corner, Corner] | None = None) -> None:
        """`corners` are candidate and stable among the four stacks of an attribution; None for the session's
        own stack against the stable one."""
        self._campaign, self._corners = campaign, corners

    def begin(self, case_id: str, against: str, known_peak_mib: float | None, python: str = "") -> Comparison:
        """The comparison of a measured case before its first pair.

        `against` is the interpreter of the stable stack, `python` that of the candidate where it is not the
        session's. A resumed session gets its comparison back, finished or with the pairs that it has, where
        nothing that it depends on has changed. Raises what `Campaign.run` raises.
        """
        run = self._campaign.run(case_id)
        schedule, why = schedule_of(known_peak_mib, run.processes[0].environment.gpu)
        start = Comparison(
            id=run.id,
            digest=run.digest,
            platform=run.platform,
            pipeline=run.pipeline,
            against=against,
            status=Status.INCONCLUSIVE,
            reason=REASON_OF_PROGRESS[Progress.PLANNED],
            injected=run.injected,
            schedule=schedule,
            schedule_reason=why,
            candidate=None if python else run.processes[0].environment,
            python=python,
        )
        earlier = self._campaign.store.comparison(case_id, self._corners)
        if earlier is None or not _asks_the_same(earlier, start):
            return start
        if earlier.verdicts:
            return earlier
        if earlier.schedule is not schedule:
            return start
        return msgspec.structs.replace(
            start, pairs=earlier.pairs, stable=earlier.stable, candidate=earlier.candidate
        )

    def compare(self, start: Comparison, runner: PairRunner, judge: Judge, refuse: Refuse) -> Comparison:
        """Measure pairs until `judge` has enough of them or `refuse` gives a reason to stop.

        The record is written after each pair. A comparison with verdicts is returned as it is, and pairs of
        an earlier session that say nothing are measured again, unless refused. A failing side ends the
        comparison with its failure. Raises PerfError where the record cannot be written.
        """
        if start.verdicts:
            return start
        comparison, judged = start, judge(start) if start.pairs else None
        if judged is not None and (judged.verdicts or refuse(start.id)):
            return self._filed(judged)
        if judged is not None:
            comparison, judged = msgspec.structs.replace(start, pairs=()), None
        while judged is None:
            assert len(comparison.pairs) < MAX_PAIRS, "the rule decides at the last pair"
            if why := refuse(comparison.id):
                judged = msgspec.structs.replace(comparison, reason=f"{_after(comparison)}{why}")
            else:
                is_first = bool(start.pairs) and comparison.pairs == start.pairs
                comparison = self._one_pair(comparison, runner)
                if is_first:
                    comparison = _of_one_stack(comparison)
                judged = judge(comparison)
            self._filed(judged or comparison)
        return judged

    def _one_pair(self, comparison: Comparison, runner: PairRunner) -> Comparison:
        planned = self._campaign.planned[comparison.id]
        together = builds_together(planned, self._campaign.run(comparison.id))
        try:
            pair = runner.measure(planned, len(comparison.pairs), comparison.schedule, together=together)
        except SideError as error:
            return _with_environments(_failed(comparison, error), runner)
        except BaseException:  # Ctrl-C, SIGTERM or a full disk: complete pairs are kept
            reason = f"{_after(comparison)}{REASON_OF_PROGRESS[Progress.INTERRUPTED]}"
            stopped = msgspec.structs.replace(comparison, reason=reason)
            self._put(_with_environments(stopped, runner))
            raise
        with_pair = msgspec.structs.replace(comparison, pairs=(*comparison.pairs, pair))
        return _with_environments(with_pair, runner)

    def _filed(self, comparison: Comparison) -> Comparison:
        self._put(comparison)
        self._campaign.store.write()
        return comparison

    def _put(self, comparison: Comparison) -> None:
        self._campaign.store.put_comparison(comparison, self._corners)


def _asks_the_same(earlier: Comparison, now: Comparison) -> bool:
    names = ("digest", "platform", "against", "python", "injected")
    return earlier.failure is None and all(getattr(earlier, name) == getattr(now, name) for name in names)


def _of_one_stack(comparison: Comparison) -> Comparison:
    """Without the pairs of an earlier session that had another stack or card than the last pair: they are no
    pairs of these."""
    lasts = [_sides(each) for each in comparison.pairs[-1:]]
    return msgspec.structs.replace(
        comparison, pairs=tuple(each for each in comparison.pairs if _sides(each) in lasts)
    )


def _sides(pair: Pair) -> list[tuple[object, ...]]:
    environments = [side.environment for side in (pair.stable, pair.candidate)]
    return [(each.unit, *stack_of(each)) for each in environments]


def _failed(comparison: Comparison, error: SideError) -> Comparison:
    """A comparison that starts again by process where two workers did not fit; otherwise it has failed."""
    if comparison.schedule is Schedule.RESIDENT and error.failure.kind is FailureKind.OOM:
        return msgspec.structs.replace(
            comparison,
            pairs=(),  # earlier ones have another schedule
            schedule=Schedule.BY_PROCESS,
            schedule_reason=f"out of memory with both resident ({error.side}): {error.failure.message}",
        )
    return msgspec.structs.replace(comparison, failure=error.failure, failed_side=error.side)


def _with_environments(comparison: Comparison, runner: PairRunner) -> Comparison:
    return msgspec.structs.replace(
        comparison,
        stable=runner.environment(Side.STABLE) or comparison.stable,
        candidate=runner.environment(Side.CANDIDATE) or comparison.candidate,
    )


def _after(comparison: Comparison) -> str:
    count = len(comparison.pairs)
    return f"after {count} {'pair' if count == 1 else 'pairs'}: " if count else ""
