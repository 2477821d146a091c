"""baselines/<platform>/<pipeline>.json <-> Baselines, noise.json <-> Noise; refuses what it cannot read."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from perf_tests.harness.baselines import instruction_sets
from perf_tests.harness.baselines.canonical_json import indented, require_unique_keys
from perf_tests.harness.baselines.instruction_sets import OfInstructions
from perf_tests.harness.baselines.transaction import unfinished
from perf_tests.harness.stats.critical_values import MIN_DOF
from perf_tests.protocol.base import Struct
from perf_tests.protocol.errors import BaselineError
from perf_tests.protocol.files import read_regular, replace_atomically
from perf_tests.protocol.reports import LayerError
from perf_tests.tables.cases import Case
from perf_tests.tables.metrics.plausible import MOST_NOISE_PCT, is_plausible, is_plausible_in
from perf_tests.tables.metrics.rows import METRIC_BY_NAME, NOISY, PAIRED
from perf_tests.tables.metrics.spec import INSTRUCTION_SET, Metric
from perf_tests.tables.pipelines.spec import PROMPTS
from perf_tests.tables.platforms import Noise

# 2: noise belongs to the platform, not to an entry; the first reference; the processes of the bf16 reference
# 1: first format, no longer read
FORMAT_VERSION = 2
NOISE = "noise.json"
"""Stands in the folder of a platform: metric -> noise, pooled over the processes of all its pipelines."""


class Provenance(Struct, frozen=True):
    """Where the numbers of one or more entries come from."""

    recorded_at: str
    """When the run began: ISO 8601, UTC."""
    reason: str
    run_sha256: str
    """Of the run.json, which holds the raw samples."""
    unit: str
    """The UUID of the GPU, or the model of the processor."""
    gpu: str | None
    power_limit_w: float | None
    driver: str | None
    python: str
    packages: dict[str, str]
    settings: dict[str, str]


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
        return self.processes < 3


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
    """One file: the accepted numbers of one pipeline on one platform."""

    format_version: int
    platform: str
    pipeline: str
    cases: dict[str, Entry]
    provenance: dict[str, Provenance]


def load(root: Path, platform: str) -> Mapping[str, Baselines]:
    """Pipeline id -> its baselines on `platform`; empty where the platform has no folder.

    Raises BaselineError for the first file that cannot be trusted.
    """
    folder = root / platform
    paths = {*folder.glob("*.json"), *(path for path in unfinished(root) if path.parent == folder)}
    return {path.stem: read(path) for path in sorted(paths) if path.name != NOISE}


def find(baselines: Mapping[str, Baselines], case: Case) -> Accepted | None:
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


def path_of(root: Path, platform: str, pipeline: str) -> Path:
    """The file that holds the baselines of `pipeline` on `platform`."""
    return root / platform / f"{pipeline}.json"


def noise_path(root: Path, platform: str) -> Path:
    """The file that holds the noise of `platform`."""
    return root / platform / NOISE


def read(path: Path) -> Baselines:
    """The baselines in `path`, whose folder names their platform and whose stem their pipeline.

    Raises BaselineError.
    """
    return loads(_text(path), path)


def read_noise(path: Path) -> Mapping[str, Noise]:
    """The noise in `path`. Raises BaselineError."""
    text = _text(path)
    require_unique_keys(text, path)
    try:
        noise = msgspec.json.decode(text, type=dict[str, Noise])
    except msgspec.DecodeError as exc:
        raise BaselineError(f"the noise file {path} does not hold noise: {exc}") from exc
    for metric, each in noise.items():
        if each.dof < MIN_DOF or not 0 < each.sd_pct <= MOST_NOISE_PCT:
            raise BaselineError(
                f"the noise file {path} is broken: {metric} has a noise of {each.sd_pct} % with {each.dof} "
                "degrees of freedom"
            )
    return noise


def loads(text: str, path: Path) -> Baselines:
    """The baselines in `text`, the content of `path`, which is not opened. Raises BaselineError."""
    _require_format(text, path)
    require_unique_keys(text, path)
    try:
        baselines = msgspec.json.decode(text, type=Baselines)
    except msgspec.ValidationError as exc:
        raise BaselineError(f"the baseline file {path} does not hold baselines: {exc}") from exc
    for asked, found, what in (
        (path.parent.name, baselines.platform, "platform"),
        (path.stem, baselines.pipeline, "pipeline"),
    ):
        if asked != found:
            raise BaselineError(f"the baseline file {path} is for the {what} {found!r}, not {asked!r}")
    defect = _defect(baselines)
    if defect is not None:
        raise BaselineError(f"the baseline file {path} is broken: {defect}")
    return baselines


def dumps(baselines: Baselines) -> str:
    """Canonical JSON: keys sorted and each metric of each case on one line, so that diffs stay small.

    Raises BaselineError for anything that `loads` would refuse.
    """
    defect = _defect(baselines)
    if defect is not None:
        raise BaselineError(
            f"baselines of {baselines.pipeline} on {baselines.platform} cannot be written: {defect}"
        )
    # Convert once more: an int becomes the float that it will be when it is read again.
    typed = msgspec.convert(msgspec.to_builtins(baselines), Baselines)
    return indented(msgspec.to_builtins(typed), "") + "\n"


def dumps_noise(noise: Mapping[str, Noise]) -> str:
    """Canonical JSON of `noise`."""
    return indented(msgspec.to_builtins(dict(noise)), "") + "\n"


def write(path: Path, baselines: Baselines) -> None:
    """Replace `path` atomically: readers see the old file or the new one. Raises BaselineError."""
    _replace(path, dumps(baselines))


def write_noise(path: Path, noise: Mapping[str, Noise]) -> None:
    """Replace `path`, which holds the noise of a platform, atomically. Raises BaselineError."""
    _replace(path, dumps_noise(noise))


def _text(path: Path) -> str:
    if (text := unfinished(path.parents[1]).get(path)) is not None:
        return text
    try:
        return read_regular(path).decode()
    except (OSError, UnicodeDecodeError) as exc:
        raise BaselineError(f"the baseline file {path} cannot be read: {exc}") from exc


def _replace(path: Path, text: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_atomically(path, text.encode())
    except OSError as exc:
        raise BaselineError(f"the baseline file {path} cannot be written: {exc}") from exc


class _Format(msgspec.Struct):
    # Read on its own, so that the error for another format names it, not the first field that differs.
    format_version: int


def _require_format(text: str, path: Path) -> None:
    try:
        found = msgspec.json.decode(text, type=_Format).format_version
    except msgspec.ValidationError as exc:
        raise BaselineError(f"the baseline file {path} does not hold baselines: {exc}") from exc
    except msgspec.DecodeError as exc:
        raise BaselineError(f"the baseline file {path} is not JSON: {exc}") from exc
    if found != FORMAT_VERSION:
        raise BaselineError(
            f"the baseline file {path} has format {found}, and this checkout reads only {FORMAT_VERSION}: "
            "use the checkout that wrote it, or record its cases again"
        )


def _defect(baselines: Baselines) -> str | None:
    follows = bool(instruction_sets.following(baselines.platform))
    recorded = {
        key: instruction_sets.instructions(each.settings) if follows else None
        for key, each in baselines.provenance.items()
    }
    for case, entry in baselines.cases.items():
        if entry.provenance not in recorded:
            return f"{case} refers to the provenance {entry.provenance!r}, which does not exist"
        own, others = recorded[entry.provenance], entry.other_instructions
        defect = instruction_sets.defect(case, own, others, recorded) or _entry_defect(case, entry)
        if defect is not None:
            return defect
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
