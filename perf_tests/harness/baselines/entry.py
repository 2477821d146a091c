"""What was accepted: the numbers of a case, where they are from, and all of them of one pipeline; no I/O."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field

import msgspec

from perf_tests.harness.baselines import instruction_sets
from perf_tests.harness.baselines.instruction_sets import OfInstructions
from perf_tests.protocol.base import Struct
from perf_tests.protocol.reports import LayerError
from perf_tests.tables.cases import Case
from perf_tests.tables.metrics.spec import INSTRUCTION_SET, Metric

SETTLED = 3
"""Processes that a settled baseline rests on, at least."""


class Provenance(Struct, frozen=True, omit_defaults=True):
    """Where the numbers of one or more entries come from."""

    recorded_at: str
    """When the run began: ISO 8601, UTC."""
    reason: str
    run_sha256: str
    """Of the run.json, which holds the raw samples; of the first, where several were pooled."""
    unit: str
    """The UUID of the GPU, or the model of the processor."""
    gpu: str | None
    power_limit_w: float | None
    driver: str | None
    python: str
    packages: dict[str, str]
    settings: dict[str, str]
    pooled_sha256: tuple[str, ...] = ()
    """Of every further run.json whose processes were pooled."""


class Entry(Struct, frozen=True, omit_defaults=True):
    """The accepted numbers of one case."""

    digest: str
    provenance: str
    """Key of `Baselines.provenance`."""
    processes: int
    metrics: dict[str, tuple[float, ...]]
    """Metric name -> one statistic per process."""
    reference_processes: int | None = None
    """How many processes of the bf16 reference the ratios were formed with; None without a reference, or
    where the count was not recorded."""
    samples: int | None = None
    """Timed generations per process (median); None where they were not recorded."""
    first: dict[str, tuple[float, ...]] = msgspec.field(default_factory=dict)
    """Metric name -> the first accepted statistics. Accepting later ones does not replace them, so that drift
    in small accepted steps shows."""
    first_reason: str = ""
    """Why the first reference was replaced; empty where it is still the one that was accepted first."""
    layers: dict[str, LayerError] = msgspec.field(default_factory=dict)
    """Qualified name -> error of each quantized layer of the transformer, in the first process."""
    seconds: dict[str, float] = msgspec.field(default_factory=dict)
    """Phase -> seconds, the median of the processes that went through it, to 0.1 s. Used for planning, never
    judged; empty, and left out of the file, where it was not recorded."""
    other_instructions: dict[str, OfInstructions] = msgspec.field(default_factory=dict)
    """Instruction set -> what was accepted on processors of it; without that of the entry's provenance."""

    @property
    def provisional(self) -> bool:
        """Whether it rests on fewer than 3 processes: it detects only larger changes, and reports say so."""
        return self.processes < SETTLED


@dataclass(frozen=True, kw_only=True, slots=True)
class Accepted:
    """The accepted numbers of one case, and where they come from."""

    entry: Entry
    provenance: Provenance
    others: Mapping[str, Accepted] = field(default_factory=dict)
    """Instruction set -> the same with what was accepted on processors of it."""

    def fitting(self, metric: Metric, settings: Mapping[str, str]) -> Accepted:
        """What `metric` is compared with where a process has these settings: what was accepted for the same
        instruction set, if the metric follows it and was recorded with it; else this."""
        wanted = instruction_sets.instructions(settings) if INSTRUCTION_SET in metric.same_settings else None
        found = None if wanted is None else self.others.get(wanted)
        return self if found is None or metric.name not in found.entry.metrics else found


class Baselines(Struct, frozen=True):
    """The accepted numbers of one pipeline on one platform."""

    platform: str
    pipeline: str
    cases: dict[str, Entry]
    provenance: dict[str, Provenance]


def key_of(provenance: Provenance) -> str:
    """The key of a provenance in `Baselines.provenance`: a digest of all of it."""
    canonical = json.dumps(msgspec.to_builtins(provenance), sort_keys=True)
    return hashlib.sha256(canonical.encode()).hexdigest()[:12]


def find_accepted(baselines: Mapping[str, Baselines], case: Case) -> Accepted | None:
    """What was accepted for `case`; None where it has no entry."""
    of_pipeline = baselines.get(case.build.pipeline.id)
    if of_pipeline is None or case.id not in of_pipeline.cases:
        return None
    return accepted_of(of_pipeline, case.id)


def accepted_of(baselines: Baselines, case_id: str) -> Accepted:
    """What was accepted for a case of `baselines`, on processors of every instruction set."""
    entry = baselines.cases[case_id]
    following = instruction_sets.following(baselines.platform)
    everywhere = {name: values for name, values in entry.metrics.items() if name not in following}
    others = {
        name: Accepted(
            entry=msgspec.structs.replace(
                entry, metrics={**everywhere, **each.metrics}, processes=each.processes
            ),
            provenance=baselines.provenance[each.provenance],
        )
        for name, each in entry.other_instructions.items()
    }
    return Accepted(entry=entry, provenance=baselines.provenance[entry.provenance], others=others)
