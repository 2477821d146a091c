"""The layout before there was one file a case, <platform>/<pipeline>.json, which only `rewrite` reads."""

from __future__ import annotations

from pathlib import Path

import msgspec

from perf_tests.harness.baselines import defects
from perf_tests.harness.baselines.canonical_json import require_format, require_unique_keys
from perf_tests.harness.baselines.entry import Baselines, Entry, Provenance
from perf_tests.protocol.base import Struct
from perf_tests.protocol.errors import BaselineError

FORMAT_VERSION = 2


class PipelineFile(Struct, frozen=True):
    """One file of that layout."""

    format_version: int
    platform: str
    pipeline: str
    cases: dict[str, Entry]
    provenance: dict[str, Provenance]


def loads(text: str, path: Path) -> Baselines:
    """The baselines in `text`, the content of `path`, which is not opened. Raises BaselineError."""
    require_format(text, path, FORMAT_VERSION)
    require_unique_keys(text, path)
    try:
        found = msgspec.json.decode(text, type=PipelineFile)
    except msgspec.ValidationError as exc:
        raise BaselineError(f"the baseline file {path} does not hold baselines: {exc}") from exc
    baselines = Baselines(
        platform=found.platform, pipeline=found.pipeline, cases=found.cases, provenance=found.provenance
    )
    if (path.parent.name, path.stem) != (found.platform, found.pipeline):
        raise BaselineError(f"the baseline file {path} is for {found.pipeline} on {found.platform}")
    if (why := defects.defect(baselines)) is not None:
        raise BaselineError(f"the baseline file {path} is broken: {why}")
    return baselines


def merged(old: Baselines, new: Baselines | None) -> Baselines:
    """`old`, of a file of that layout, and `new`, of one file a case, together.

    Of a case that both hold, what was recorded later.
    """
    if new is None:
        return old
    provenance = {**old.provenance, **new.provenance}

    def recorded_at(entry: Entry) -> str:
        return provenance[entry.provenance].recorded_at

    later = {
        case: entry
        for case, entry in old.cases.items()
        if case not in new.cases or recorded_at(entry) > recorded_at(new.cases[case])
    }
    return msgspec.structs.replace(new, cases={**new.cases, **later}, provenance=provenance)
