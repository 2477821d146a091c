"""The records of other GPUs as those of this one, scaled by what both have measured; pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import msgspec

from perf_tests.harness.baselines.entry import Entry
from perf_tests.harness.planning.relatives import KnownCosts, RecordedCase
from perf_tests.harness.planning.stages import stages_of
from perf_tests.protocol.messages import Phase
from perf_tests.tables.cases import Case
from perf_tests.tables.metrics.spec import ANSWER, STAGES, TRAIN_STEP

OF_DEVICE = (Phase.GENERATE, Phase.FIDELITY, Phase.INSPECT)
"""Phases that the device decides; the host does most of the others."""


def with_others(known: KnownCosts, others: Iterable[Sequence[RecordedCase]]) -> KnownCosts:
    """`known` with a record, scaled to its GPU, of each case that only other GPUs have recorded.

    `others` are the records of each of these. Generations count as many times as long as those of the nearest
    case that both GPUs have recorded; a record of a GPU without one is left out.
    """
    gpus = [{each.case.id: each for each in records} for records in others]
    here = {each.case.id for each in known.records}
    missing = {each.case.id: each.case for gpu in gpus for each in gpu.values() if each.case.id not in here}
    found = (_nearest(case, known, gpus) for case in missing.values())
    return replace(known, records=(*known.records, *(each for each in found if each is not None)))


def _nearest(
    case: Case, known: KnownCosts, gpus: Sequence[Mapping[str, RecordedCase]]
) -> RecordedCase | None:
    """The record of `case` by the GPU that shares the nearest other one; None where no GPU shares any."""
    of_case = [gpu for gpu in gpus if case.id in gpu]
    for mine in known.nearest_first(case):
        for gpu in of_case:
            theirs = gpu.get(mine.case.id)
            longer = None if theirs is None else _longer(mine, theirs)
            if longer is not None:
                return _scaled(gpu[case.id], longer)
    return None


def _longer(mine: RecordedCase, theirs: RecordedCase) -> float | None:
    """How many times as long a generation of one case takes here; None where a record does not say."""
    here, there = stages_of(mine.entry), stages_of(theirs.entry)
    if here is None or there is None:
        return None
    return here.latency_s(mine.case.steps) / there.latency_s(theirs.case.steps)


def _scaled(record: RecordedCase, longer: float) -> RecordedCase:
    entry = record.entry
    times = {
        name: tuple(value_ms * longer for value_ms in entry.metrics[name])
        for name in (*STAGES, TRAIN_STEP, ANSWER)
        if name in entry.metrics
    }
    seconds = {
        phase: spent_s * (longer if phase in OF_DEVICE else 1.0) for phase, spent_s in entry.seconds.items()
    }
    scaled: Entry = msgspec.structs.replace(entry, metrics={**entry.metrics, **times}, seconds=seconds)
    return RecordedCase(case=record.case, entry=scaled, is_elsewhere=True)
