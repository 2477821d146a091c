"""A run in, a candidate for the baselines out: its numbers, their provenance, and its first reference."""

from __future__ import annotations

import hashlib
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from perf_tests.harness.baselines.entry import Baselines, Entry, Provenance
from perf_tests.harness.runs import environments
from perf_tests.harness.runs.record import Run, RunRecord
from perf_tests.harness.runs.record_file import read_stored
from perf_tests.harness.stats import observations, sequential_bounds
from perf_tests.harness.verdicts.gates import as_judged, gated_metrics, shown_metrics
from perf_tests.protocol.reports import Environment, LayerError
from perf_tests.tables.cases import Case, Weights
from perf_tests.tables.matrix import MATRIX
from perf_tests.tables.metrics.rows import METRIC_BY_NAME
from perf_tests.tables.platforms import PLATFORM_BY_ID, Platform


@dataclass(frozen=True, kw_only=True, slots=True)
class MatrixCase:
    """A case of the matrix and the ids of the platforms in its row."""

    case: Case
    platforms: tuple[str, ...]


CASES = {
    case.id: MatrixCase(case=case, platforms=tuple(platform.id for platform in row.platforms))
    for row in MATRIX
    for case in (row.case(weights) for weights in Weights)
}
METRIC_NAMES = tuple(METRIC_BY_NAME)


@dataclass(frozen=True, kw_only=True, slots=True)
class RunFile:
    """A run record together with where it is and the digest of its file."""

    path: Path
    """As it was asked for."""
    record: RunRecord
    sha256: str


def read_run(path: Path) -> RunFile:
    """The record in `path`, a run.json or the folder that contains it. Raises RecordError."""
    stored = read_stored(path)
    return RunFile(path=path, record=stored.record, sha256=hashlib.sha256(stored.content).hexdigest())


def reference_of(run: Run, record: RunRecord) -> Run | None:
    """The run that `record` compares `run` with; None where it has no reference, and where the record has
    none of the same card and stack."""
    # A bf16 case that was itself selected may be listed among the cases only.
    found = [other for other in (*record.references, *record.cases) if other.id == run.reference]
    # A session on several cards measures a reference on each card that needs it.
    here = [other for other in found if other.processes and run.processes and not differences(other, run)]
    # And so does each part of a merged run; parts may have been measured on one card in turn.
    of_its_part = [other for other in here if other.part == run.part]
    empty = [other for other in found if not (other.processes and run.processes)]
    return next(iter([*of_its_part, *here, *empty]), None)


def differences(one: Run, other: Run) -> list[str]:
    """How the cards and stacks of two runs with processes differ: `name in the one -> in the other`."""
    return environments.differences(*(_described(run.processes[0].environment) for run in (one, other)))


def _described(environment: Environment) -> dict[str, str | None]:
    gpu = environment.gpu
    return {
        "card": environment.unit,
        "driver": gpu.driver if gpu else None,
        "power limit": f"{gpu.power_limit_w:g} W" if gpu else None,
        "python": environment.python,
        **environment.packages,
        **environment.settings,
    }


def entry_of(run: Run, record: RunRecord, provenance: str) -> Entry:
    """The numbers of `run`, a case of `record`, as a baseline entry without a first reference.

    `provenance` is the key that the entry refers to its provenance by.
    """
    case, platform = CASES[run.id].case, PLATFORM_BY_ID[run.platform]
    reference = reference_of(run, record)
    observed = {
        metric.name: observations.observe(metric, run, reference).values
        for metric in (*gated_metrics(case, platform), *shown_metrics(case, platform))
        if metric.has_baseline
    }
    return Entry(
        digest=run.digest,
        provenance=provenance,
        processes=len(run.processes),
        reference_processes=len(reference.processes) or None if reference else None,
        samples=_samples(run),
        metrics={name: values for name, values in observed.items() if values},
        layers=_layers(run),
        seconds=_seconds(run),
    )


def _samples(run: Run) -> int | None:
    counts = [len(process.samples) for process in run.processes]
    return round(statistics.median(counts)) or None if counts else None


def _layers(run: Run) -> dict[str, LayerError]:
    """The layers of the first process, which answers like all others, rounded for the reader of the file."""
    layers = run.processes[0].build.layers if run.processes else {}
    return {name: _rounded(error) for name, error in layers.items()}


def _rounded(error: LayerError) -> LayerError:
    values = msgspec.structs.asdict(error)
    rounded = {name: round(value, 6) for name, value in values.items() if value is not None}
    return msgspec.structs.replace(error, **rounded)


def _seconds(run: Run) -> dict[str, float]:
    spent: dict[str, list[float]] = {}
    for process in run.processes:
        for phase, seconds in process.build.seconds.items():
            spent.setdefault(phase, []).append(seconds)
    return {phase: round(statistics.median(each), 1) for phase, each in spent.items()}


def provenance_of(run: Run, sources: Sequence[RunFile], reason: str) -> Provenance:
    """Where the numbers of `run`, whose processes are those of `sources`, come from."""
    first, *others = sources
    environment = run.processes[0].environment
    gpu = environment.gpu
    return Provenance(
        recorded_at=first.record.created_at,
        reason=reason.strip(),
        run_sha256=first.sha256,
        pooled_sha256=tuple(each.sha256 for each in others),
        unit=environment.unit,
        gpu=gpu.name if gpu else None,
        power_limit_w=gpu.power_limit_w if gpu else None,
        driver=gpu.driver if gpu else None,
        python=environment.python,
        packages=environment.packages,
        settings=environment.settings,
    )


# The first reference


def with_first(baselines: Baselines, platform: Platform) -> Baselines:
    """`baselines` with a first reference in every entry of a known case."""
    cases = {
        case: msgspec.structs.replace(entry, first=first_reference(entry, platform, CASES[case].case, entry))
        if case in CASES
        else entry
        for case, entry in baselines.cases.items()
    }
    return msgspec.structs.replace(baselines, cases=cases)


def first_reference(
    new: Entry, platform: Platform, case: Case, kept: Entry | None
) -> dict[str, tuple[float, ...]]:
    """The first reference of `new`: what `kept` has, otherwise its accepted numbers; without both, its own.

    It holds the metrics that gate `case` on `platform` and have a drift limit.
    """
    known = {**kept.metrics, **kept.first} if kept else {}
    return {
        metric.name: known.get(metric.name, new.metrics[metric.name])
        for metric in gated_metrics(case, platform)
        if metric.drift_limit_pct is not None and metric.name in new.metrics
    }


def drift_of(entry: Entry, name: str) -> sequential_bounds.Drift | None:
    """What the accepted steps of the metric `name` add up to; None where drift is not limited."""
    metric = METRIC_BY_NAME.get(name)
    if metric is None or metric.drift_limit_pct is None or name not in entry.first:
        return None
    return sequential_bounds.drift(
        entry.first[name], entry.metrics[name], metric.better, metric.drift_limit_pct
    )


# Noise


def shows_noise(case_id: str, name: str) -> bool:
    """Whether the noisy metric `name` of the case scatters as its platform does, and so shows its noise."""
    known = CASES.get(case_id)  # None: the matrix no longer has the case, which was steady
    return known is None or as_judged(METRIC_BY_NAME[name], known.case).is_noisy
