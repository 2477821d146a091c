"""baselines/<platform>/<pipeline>.json <-> Baselines; refuses what it cannot read."""

from __future__ import annotations

import contextlib
import json
import math
import os
from collections.abc import Mapping
from pathlib import Path

import msgspec

from perf_tests.harness.errors import BaselineError
from perf_tests.harness.protocol import Struct
from perf_tests.tables.cases import Case

# 1: first format
FORMAT_VERSION = 1


class Provenance(Struct, frozen=True):
    """Where the numbers of one or more entries come from."""

    recorded_at: str
    """When the run began: ISO 8601, UTC."""
    reason: str
    run_sha256: str
    """Of the run.json, which holds the raw samples."""
    unit: str
    """The card's UUID, or the processor model."""
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
    noise_pct: float
    """The platform's process noise when the entry was recorded, or the spread between the generations of
    its own processes where that is larger."""
    metrics: dict[str, tuple[float, ...]]
    """Metric name -> one statistic per process."""
    seconds: dict[str, float] = msgspec.field(default_factory=dict)
    """Phase -> what a process spent on it: the median of the processes that went through it, to 0.1 s. For
    planning, never judged; empty, and left out of the file, where it was not recorded."""

    @property
    def provisional(self) -> bool:
        """Fewer than 3 processes: gates at its own smallest detectable change, and is listed as such."""
        return self.processes < 3


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
    return {path.stem: read(path) for path in sorted(folder.glob("*.json"))}


def find(baselines: Mapping[str, Baselines], case: Case) -> tuple[Entry | None, Provenance | None]:
    """The entry of `case` and where it comes from; both None where it has none."""
    of_pipeline = baselines.get(case.build.pipeline.id)
    entry = of_pipeline.cases.get(case.id) if of_pipeline else None
    if of_pipeline is None or entry is None:
        return None, None
    return entry, of_pipeline.provenance[entry.provenance]


def path_of(root: Path, platform: str, pipeline: str) -> Path:
    """The file that holds the baselines of `pipeline` on `platform`."""
    return root / platform / f"{pipeline}.json"


def read(path: Path) -> Baselines:
    """The baselines in `path`, which names their platform (folder) and pipeline (stem)."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as exc:
        raise BaselineError(f"the baseline file {path} cannot be read: {exc}") from exc
    return loads(text, path)


def loads(text: str, path: Path) -> Baselines:
    """The baselines written as `text`; `path` is only looked at. Raises BaselineError."""
    _require_format(text, path)
    try:
        baselines = msgspec.json.decode(text, type=Baselines)
    except msgspec.ValidationError as exc:
        raise BaselineError(f"the baseline file {path} does not hold baselines: {exc}") from exc
    for asked, found, what in (
        (path.parent.name, baselines.platform, "platform"),
        (path.stem, baselines.pipeline, "pipeline"),
    ):
        if asked != found:
            raise BaselineError(f"the baseline file {path} says it is of the {what} {found!r}, not {asked!r}")
    defect = _defect(baselines)
    if defect is not None:
        raise BaselineError(f"the baseline file {path} is broken: {defect}")
    return baselines


def dumps(baselines: Baselines) -> str:
    """Canonical JSON: keys sorted, each metric of each case on one line, so that a change of one is a
    change of one line. Raises BaselineError for what `loads` would refuse."""
    defect = _defect(baselines)
    if defect is not None:
        raise BaselineError(
            f"baselines of {baselines.pipeline} on {baselines.platform} cannot be written: {defect}"
        )
    # Through the types once more: 3 becomes 3.0, as it will be when it is read again.
    typed = msgspec.convert(msgspec.to_builtins(baselines), Baselines)
    return _indented(msgspec.to_builtins(typed), "") + "\n"


def write(path: Path, baselines: Baselines) -> None:
    """Replace `path` in one step: whoever reads it sees the old file or the new one."""
    text = dumps(baselines)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(text, encoding="utf-8")
        os.replace(temporary, path)  # noqa: PTH105 - the call that is atomic by its documentation
    except OSError as exc:
        with contextlib.suppress(OSError):  # the first error says more than this one would
            temporary.unlink()
        raise BaselineError(f"the baseline file {path} cannot be written: {exc}") from exc


def _indented(value: object, indent: str) -> str:
    if not isinstance(value, dict) or not value:
        return json.dumps(value, ensure_ascii=False, allow_nan=False)
    deeper = indent + "  "
    lines = (f"{deeper}{json.dumps(key)}: {_indented(value[key], deeper)}" for key in sorted(value))
    return "{\n" + ",\n".join(lines) + f"\n{indent}}}"


class _Format(msgspec.Struct):
    # Alone, so that a later format is named as such and not by the first field that it changed.
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
            f"the baseline file {path} has format {found}, and this version reads {FORMAT_VERSION} only"
        )


def _defect(baselines: Baselines) -> str | None:
    for case, entry in baselines.cases.items():
        if entry.provenance not in baselines.provenance:
            return f"{case} names the provenance {entry.provenance!r}, which is not there"
        if entry.processes < 1 or not (math.isfinite(entry.noise_pct) and entry.noise_pct >= 0):
            return f"{case} has {entry.processes} processes and a noise of {entry.noise_pct} %"
        if not entry.metrics:
            return f"{case} has no metrics"
        for metric, values in entry.metrics.items():
            if not 1 <= len(values) <= entry.processes:
                return f"{metric} of {case} has {len(values)} values from {entry.processes} processes"
            if not all(math.isfinite(value) for value in values):
                return f"{metric} of {case} holds a number that is not finite"
    return _seconds_defect(baselines)


def _seconds_defect(baselines: Baselines) -> str | None:
    for case, entry in baselines.cases.items():
        for phase, spent_s in entry.seconds.items():
            if not (math.isfinite(spent_s) and spent_s >= 0):
                return f"{case} spent {spent_s} seconds on {phase}"
    return None
