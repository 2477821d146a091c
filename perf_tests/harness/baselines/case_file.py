"""The file of one case, <platform>/<pipeline>/<case>.json, and the figures beside it; text in, numbers out.

A case file holds what a reviewer reads. What nobody reads one by one (each quantized layer, the seconds of
each phase) stands in figures/, under a digest that the case file names. The case file is sealed: what was
edited by hand is refused, so that no command can pass on numbers that nobody measured.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

import msgspec

from perf_tests.harness.baselines import defects
from perf_tests.harness.baselines.canonical_json import indented, require_format, require_unique_keys
from perf_tests.harness.baselines.entry import Baselines, Entry, Provenance, key_of
from perf_tests.harness.baselines.instruction_sets import OfInstructions
from perf_tests.protocol.base import Struct
from perf_tests.protocol.errors import BaselineError
from perf_tests.protocol.reports import LayerError

# 3: one file a case, with its seal, and figures beside it
# 2: one file a pipeline; noise belongs to the platform, not to an entry (`pipeline_file`)
# 1: first format, no longer read
FORMAT_VERSION = 3
DIGITS = 16
"""Of the digests that name figures and seal case files: against accidents, not against forgery."""
RESTORE = "restore it from the last commit, or remove it and record the case again"

Stored = dict[str, float | tuple[float, ...]]
"""Metric -> one statistic per process; a single number where all processes had the same."""


class Figures(Struct, frozen=True, omit_defaults=True):
    """What of an entry nobody reviews number by number; the fields are those of `Entry`."""

    layers: dict[str, LayerError] = msgspec.field(default_factory=dict)
    samples: int | None = None
    seconds: dict[str, float] = msgspec.field(default_factory=dict)


class StoredInstructions(Struct, frozen=True):
    """What was accepted on processors of another instruction set, as it is stored."""

    metrics: Stored
    processes: int
    provenance: Provenance


class CaseFile(Struct, frozen=True, omit_defaults=True):
    """One case on one platform, as it is stored; the fields without a sentence are those of `Entry`."""

    format_version: int
    platform: str
    pipeline: str
    case: str
    digest: str
    figures: str
    """The digest of its figures, and the name of their file."""
    metrics: Stored
    processes: int
    provenance: Provenance
    reference_processes: int | None = None
    first: dict[str, tuple[float, ...]] = msgspec.field(default_factory=dict)
    first_reason: str = ""
    other_instructions: dict[str, StoredInstructions] = msgspec.field(default_factory=dict)
    seal: str = ""
    """The digest of all other fields."""


_File = TypeVar("_File", CaseFile, Figures)


def dumps(baselines: Baselines, case: str) -> tuple[str, str]:
    """The text of the file of `case`, and that of its figures: canonical JSON, sorted, a metric on each line.

    Raises BaselineError for anything that `loads` would refuse.
    """
    entry = baselines.cases[case]
    figures = Figures(layers=entry.layers, samples=entry.samples, seconds=entry.seconds)
    figures_text = _canonical(figures)
    file = CaseFile(
        format_version=FORMAT_VERSION,
        platform=baselines.platform,
        pipeline=baselines.pipeline,
        case=case,
        digest=entry.digest,
        figures=digest_of(figures_text),
        metrics=_stored(entry.metrics, entry.processes),
        processes=entry.processes,
        provenance=baselines.provenance[entry.provenance],
        reference_processes=entry.reference_processes,
        first=entry.first,
        first_reason=entry.first_reason,
        other_instructions={
            name: StoredInstructions(
                metrics=_stored(each.metrics, each.processes),
                processes=each.processes,
                provenance=baselines.provenance[each.provenance],
            )
            for name, each in entry.other_instructions.items()
        },
    )
    return _canonical(msgspec.structs.replace(file, seal=_seal(_typed(file)))), figures_text


def loads(text: str, path: Path, figures_of: Callable[[str], str]) -> Baselines:
    """The baselines of one case: `text` is the content of its file `path`, which is not opened.

    `figures_of` gives the text of the figures of a digest. Raises BaselineError.
    """
    require_format(text, path, FORMAT_VERSION)
    require_unique_keys(text, path)
    try:
        file = msgspec.json.decode(text, type=CaseFile)
    except msgspec.ValidationError as exc:
        raise BaselineError(f"the baseline file {path} does not hold baselines: {exc}") from exc
    for asked, found, what in (
        (path.parents[1].name, file.platform, "platform"),
        (path.parent.name, file.pipeline, "pipeline"),
        (path.stem, file.case, "case"),
    ):
        if asked != found:
            raise BaselineError(f"the baseline file {path} is for the {what} {found!r}, not {asked!r}")
    if file.seal != _seal(file):
        raise BaselineError(
            f"the baseline file {path} was edited: its seal is {file.seal or 'missing'}, and that of what it "
            f"holds {_seal(file)}: {RESTORE}"
        )
    baselines = _baselines(file, _figures(file, path, figures_of))
    if (why := defects.defect(baselines)) is not None:
        raise BaselineError(f"the baseline file {path} is broken: {why}")
    return baselines


def digest_of(text: str) -> str:
    """What figures are named after: the first digits of the sha256 of their text."""
    return hashlib.sha256(text.encode()).hexdigest()[:DIGITS]


def _figures(file: CaseFile, path: Path, figures_of: Callable[[str], str]) -> Figures:
    text = figures_of(file.figures)
    if digest_of(text) != file.figures:
        raise BaselineError(f"the figures {file.figures} of the baseline file {path} were edited: {RESTORE}")
    try:
        return msgspec.json.decode(text, type=Figures)
    except msgspec.DecodeError as exc:
        raise BaselineError(f"the figures {file.figures} of {path} are none: {exc}") from exc


def _baselines(file: CaseFile, figures: Figures) -> Baselines:
    sources = [file.provenance, *(each.provenance for each in file.other_instructions.values())]
    entry = Entry(
        digest=file.digest,
        provenance=key_of(file.provenance),
        processes=file.processes,
        metrics=_each_process(file.metrics, file.processes),
        reference_processes=file.reference_processes,
        samples=figures.samples,
        first=file.first,
        first_reason=file.first_reason,
        layers=figures.layers,
        seconds=figures.seconds,
        other_instructions={
            name: OfInstructions(
                provenance=key_of(each.provenance),
                processes=each.processes,
                metrics=_each_process(each.metrics, each.processes),
            )
            for name, each in file.other_instructions.items()
        },
    )
    return Baselines(
        platform=file.platform,
        pipeline=file.pipeline,
        cases={file.case: entry},
        provenance={key_of(each): each for each in sources},
    )


def _stored(metrics: Mapping[str, tuple[float, ...]], processes: int) -> Stored:
    return {
        name: float(values[0]) if len(values) == processes and len(set(values)) == 1 else values
        for name, values in metrics.items()
    }


def _each_process(metrics: Stored, processes: int) -> dict[str, tuple[float, ...]]:
    return {
        name: values if isinstance(values, tuple) else (values,) * max(processes, 0)
        for name, values in metrics.items()
    }


def _canonical(value: _File) -> str:
    return indented(msgspec.to_builtins(_typed(value)), "") + "\n"


def _typed(value: _File) -> _File:
    """The same once it is read again: an int in place of a float has become one."""
    return msgspec.convert(msgspec.to_builtins(value), type(value))


def _seal(file: CaseFile) -> str:
    content = msgspec.to_builtins(msgspec.structs.replace(file, seal=""))
    return digest_of(json.dumps(content, sort_keys=True))
