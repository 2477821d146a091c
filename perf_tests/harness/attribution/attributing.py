"""Finds out where red metrics come from: asks a bench for what it takes, one cluster after another."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from perf_tests.harness.attribution import diagonals, findings, shares, stacks
from perf_tests.harness.attribution.clusters import MAX_REPRESENTATIVES, Cluster, Suspect
from perf_tests.harness.attribution.diagonals import IsClear, PairQuestion
from perf_tests.harness.attribution.exact import BROKEN, CellError, exact_scale, is_same, value_in
from perf_tests.harness.attribution.findings import MIXED, PERCENT, Cells, Findings
from perf_tests.harness.attribution.shares import StackChange
from perf_tests.harness.records.attributions import Attribution, Blame, Corner
from perf_tests.harness.runs.record import Comparison, Process, Side, Status, status_of

NOT_INSTALLED = "not installed"

PairJudge = Callable[[Comparison], Comparison | None]


class Bench(Protocol):
    """What measures a case in the stacks of a session."""

    def cells(self) -> Cells:
        """The stacks, as far as they are known by now."""

    def problem(self, corner: Corner) -> str:
        """Why a stack has no interpreter; empty where it has one."""

    def compare(self, case_id: str, candidate: Corner, stable: Corner, judge: PairJudge) -> Comparison:
        """The case under two stacks, in as many pairs as `judge` wants."""

    def alone(self, case_id: str, corner: Corner) -> Process:
        """The case in one process of one stack. Raises CellError where there is none."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Attributor:
    """Attributes the clusters of one session."""

    bench: Bench
    question: Callable[[Suspect], PairQuestion]
    twin: Callable[[Suspect], StackChange | None]
    """How much the bf16 twin has moved, where the same session has compared it under the same two stacks."""

    def attribute(self, cluster: Cluster) -> Attribution:
        """Where the cluster comes from, measured as far as need be. Raises what the bench raises."""
        first, found = cluster.measured or cluster.suspects[0], Findings()
        if cluster.measured is None and first.is_confirmed:
            found.why = f"{MAX_REPRESENTATIVES} other cases were measured in this session, which is the most"
        elif first.is_time:
            self._time(first, found)
        else:
            self._exact(first, found)
        cells = self.bench.cells()
        measured = {corner: cells.packages.get(corner, {}) for corner in found.asked}
        problem = stacks.contradiction({corner: each for corner, each in measured.items() if each})
        if problem is not None:
            found.blame, found.why = Blame.UNKNOWN, problem
        scale = PERCENT if first.is_time else exact_scale(first.metric, found)
        return findings.attribution(cluster, found, cells, scale)

    # Times

    def _time(self, suspect: Suspect, found: Findings) -> None:
        compared, comparison = suspect.compared, suspect.comparison
        if compared is None or comparison is None or compared.status is Status.INCONCLUSIVE:
            reason = (
                compared.reason if compared else comparison.reason if comparison else "it was not compared"
            )
            found.why = f"the comparison with the good stack says nothing: {reason}"
            return
        question = self.question(suspect)
        found.asked |= {Corner.NEW, Corner.GOOD}
        whole = found.whole = diagonals.change_of(comparison, suspect.metric, question.noise)
        if not suspect.is_confirmed:
            found.blame = Blame.NOT_REPRODUCED
            return
        found.twin = self.twin(suspect)
        if found.twin is not None and shares.excludes_torchao(whole, found.twin):
            found.blame = Blame.TORCH
            moved = PERCENT.amount(found.twin).value
            found.why = f"its bf16 twin, which has no torchao, has moved by {moved:+.1f} %, too"
            return
        self._diagonal(suspect, question, whole, found)

    def _diagonal(
        self, suspect: Suspect, question: PairQuestion, whole: StackChange, found: Findings
    ) -> None:
        if any(self.bench.problem(corner) for corner in MIXED):
            self._partly(suspect, question, whole, found)
            return
        mixed = self._pairs(suspect, question, MIXED, partial(shares.is_clear, whole), found)
        if mixed is None:
            if found.failed:
                self._partly(suspect, question, whole, found)
            return
        found.mixed = mixed
        found.blame = shares.blame(whole, mixed, None)
        if found.blame is Blame.BOTH:
            is_clear = partial(shares.is_clear_alone, whole, mixed)
            corners = (Corner.NEW_TORCH, Corner.GOOD)
            if alone := self._pairs(suspect, question, corners, is_clear, found):
                found.alone[Corner.NEW_TORCH] = alone
                found.blame = shares.blame(whole, mixed, alone)

    def _partly(self, suspect: Suspect, question: PairQuestion, whole: StackChange, found: Findings) -> None:
        """What the mixed stacks that there are explain alone, of which one or both are missing."""
        found.failed |= {
            corner: (NOT_INSTALLED, problem) for corner in MIXED if (problem := self.bench.problem(corner))
        }
        found.blame = Blame.PARTLY
        for corner in MIXED:
            if corner not in found.failed:
                is_clear = partial(shares.is_clear, whole)
                alone = self._pairs(suspect, question, (corner, Corner.GOOD), is_clear, found)
                if alone is not None:
                    found.alone[corner] = alone

    def _pairs(
        self,
        suspect: Suspect,
        question: PairQuestion,
        corners: tuple[Corner, Corner],
        is_clear: IsClear,
        found: Findings,
    ) -> StackChange | None:
        judge = partial(diagonals.judge, question, is_clear)
        comparison = self.bench.compare(suspect.run.id, *corners, judge)
        if comparison.pairs:
            found.asked |= set(corners)
        if comparison.failure is not None:
            corner = corners[0 if comparison.failed_side is Side.CANDIDATE else 1]
            found.failed[corner] = (status_of(comparison.failure).value, comparison.failure.message)
            return None
        if not comparison.verdicts:
            found.why = f"{corners[0]} against {corners[1]}: {comparison.status.value}: {comparison.reason}"
            return None
        return diagonals.change_of(comparison, suspect.metric, question.noise)

    # What is exact

    def _exact(self, suspect: Suspect, found: Findings) -> None:
        values = found.values
        for corner in (Corner.NEW, Corner.GOOD):
            self._cell(suspect, corner, found)
            if corner in found.failed:
                status, reason = found.failed[corner]
                found.why = f"the {corner} stack cannot be measured: {status}: {reason}"
                return
        good, new = values[Corner.GOOD], values[Corner.NEW]
        worse = 1 if new >= good else -1
        whole = found.whole = StackChange(value=worse * (new - good))
        if is_same(suspect, good, new):
            found.blame = Blame.NOT_REPRODUCED
            return
        for corner in MIXED:
            self._cell(suspect, corner, found)
        found.alone = {
            corner: StackChange(value=worse * (values[corner] - good)) for corner in MIXED if corner in values
        }
        if len(found.alone) < len(MIXED):
            found.blame = Blame.PARTLY
            return
        new_torch, new_torchao = (found.alone[corner] for corner in MIXED)
        found.mixed = new_torch.plus(new_torchao, -1)
        found.blame = shares.blame(whole, found.mixed, new_torch)

    def _cell(self, suspect: Suspect, corner: Corner, found: Findings) -> None:
        if problem := self.bench.problem(corner):
            found.failed[corner] = (NOT_INSTALLED, problem)
            return
        try:
            found.values[corner] = self._value(suspect, corner)
        except CellError as error:
            if not (suspect.is_failure and error.status == suspect.run.status.value):
                found.failed[corner] = (error.status, str(error))
                return
            found.values[corner] = BROKEN
        found.asked.add(corner)

    def _value(self, suspect: Suspect, corner: Corner) -> float:
        if corner is Corner.NEW:  # which the session has measured
            return BROKEN if suspect.is_failure else value_in(suspect, suspect.run.processes)
        return value_in(suspect, (self.bench.alone(suspect.run.id, corner),))


def twin_of(
    suspect: Suspect, comparisons: Mapping[str, Comparison], question: PairQuestion
) -> StackChange | None:
    """How much the bf16 twin of a suspect has moved; None without one, or where pairs said nothing of it."""
    twin = comparisons.get(suspect.run.reference or "")
    verdicts = () if twin is None else twin.verdicts
    said = {each.metric for each in verdicts if each.status is not Status.INCONCLUSIVE}
    if twin is None or suspect.metric.name not in said:
        return None
    return diagonals.change_of(twin, suspect.metric, question.noise)
