"""What no accepted number can be: values that are missing, not finite or absurd, or contradict each other."""

from __future__ import annotations

import math

import msgspec

from perf_tests.harness.baselines import instruction_sets
from perf_tests.harness.baselines.entry import Baselines, Entry
from perf_tests.harness.baselines.instruction_sets import OfInstructions
from perf_tests.tables.metrics.plausible import is_plausible, is_plausible_in
from perf_tests.tables.metrics.rows import METRIC_BY_NAME, NOISY, PAIRED
from perf_tests.tables.pipelines.spec import PROMPTS


def defect(baselines: Baselines) -> str | None:
    """What is wrong with the numbers of `baselines`, in words; None where nothing is."""
    follows = bool(instruction_sets.following(baselines.platform))
    recorded = {
        key: instruction_sets.instructions(each.settings) if follows else None
        for key, each in baselines.provenance.items()
    }
    for case, entry in baselines.cases.items():
        if entry.provenance not in recorded:
            return f"{case} refers to the provenance {entry.provenance!r}, which does not exist"
        own, others = recorded[entry.provenance], entry.other_instructions
        found = instruction_sets.defect(case, own, others, recorded) or _entry_defect(case, entry)
        if found is not None:
            return found
    return _seconds_defect(baselines)


def _entry_defect(case: str, entry: Entry) -> str | None:
    counts = {"processes": entry.processes, "samples": entry.samples}
    for what, count in {**counts, "processes of its reference": entry.reference_processes}.items():
        if count is not None and count < 1:
            return f"{case} has {count} {what}"
    sources: tuple[Entry | OfInstructions, ...] = (entry, *entry.other_instructions.values())
    for each in sources:
        if not each.metrics:
            return f"{case} has no metrics"
        for metric, values in each.metrics.items():
            fewest, most = _counts(metric, each.processes)
            if not fewest <= len(values) <= most:
                return f"{metric} of {case} has {len(values)} values from {each.processes} processes"
    return _numbers_defect(case, entry)


def _counts(metric: str, processes: int) -> tuple[int, int]:
    """The fewest and the most values of `metric` that so many processes give."""
    row = METRIC_BY_NAME.get(metric)
    if metric in PAIRED:  # one value per prompt and seed, however many processes there are
        return 1, PROMPTS
    if row is None or row.some_processes or not row.reader.reads_every_process:
        return 1, processes
    return processes, processes


def _numbers_defect(case: str, entry: Entry) -> str | None:
    compared_as_ratios = NOISY | entry.first.keys()
    others = (pair for each in entry.other_instructions.values() for pair in each.metrics.items())
    for metric, values in (*entry.metrics.items(), *entry.first.items(), *others):
        if not all(math.isfinite(value) for value in values):
            return f"{metric} of {case} holds a number that is not finite"
        if absurd := [value for value in values if not is_plausible(metric, value)]:
            return f"{metric} of {case} holds {absurd[0]:g}, which nothing measured can be"
        if metric in compared_as_ratios and min(values, default=0.0) <= 0:
            return f"{metric} of {case} holds {values}; a relative change needs positive values"
    return _layers_defect(case, entry)


def _layers_defect(case: str, entry: Entry) -> str | None:
    for name, error in entry.layers.items():
        if not all(math.isfinite(value) for value in msgspec.structs.astuple(error) if value is not None):
            return f"the layer {name} of {case} holds a number that is not finite"
        if not is_plausible_in("dB", error.sqnr_db):
            return f"the layer {name} of {case} holds {error.sqnr_db:g} dB, which nothing measured can be"
    return None


def _seconds_defect(baselines: Baselines) -> str | None:
    for case, entry in baselines.cases.items():
        for phase, spent_s in entry.seconds.items():
            if not (math.isfinite(spent_s) and spent_s >= 0):
                return f"{case} spent {spent_s} seconds on {phase}"
    return None
