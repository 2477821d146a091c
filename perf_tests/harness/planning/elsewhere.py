"""What a case takes that only another GPU has recorded: as there, scaled by what both have measured; pure."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from perf_tests.harness.baselines.entry import Entry
from perf_tests.harness.planning.relatives import KnownCosts, RecordedCase
from perf_tests.harness.planning.stages import stages_of
from perf_tests.protocol.messages import Phase
from perf_tests.tables.cases import Case
from perf_tests.tables.metrics.spec import ANSWER, STAGES, TRAIN_STEP

OF_DEVICE = (Phase.GENERATE, Phase.FIDELITY, Phase.INSPECT)
"""Phases that the device decides; the host does most of the others."""


def recorded_elsewhere(case: Case, known: KnownCosts) -> RecordedCase | None:
    """The record of `case` on another GPU, as if it had been made on this one.

    Its generations are as many times as long as those of the nearest case that both have recorded. None where
    this GPU has recorded `case` itself, and where no GPU has both.
    """
    if any(each.case == case for each in known.records):
        return None
    recorded = [found for records in known.elsewhere if case.id in (found := _by_id(records))]
    for here in known.nearest_first(case):
        for of_gpu in recorded:
            there = of_gpu.get(here.case.id)
            longer = None if there is None else _longer(here, there)
            if longer is not None:
                return _scaled(of_gpu[case.id], longer)
    return None


def _by_id(records: tuple[RecordedCase, ...]) -> Mapping[str, RecordedCase]:
    return {each.case.id: each for each in records}


def _longer(here: RecordedCase, there: RecordedCase) -> float | None:
    """How many times as long a generation of one case takes here; None where a record does not say."""
    mine, theirs = stages_of(here.entry), stages_of(there.entry)
    if mine is None or theirs is None:
        return None
    return mine.latency_s(here.case.steps) / theirs.latency_s(there.case.steps)


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
    return RecordedCase(case=record.case, entry=scaled)
