"""baselines/<platform>/acknowledged.json: regressions that are known, and until when they are put up with.

An entry names one metric of one case, the value up to which it may go, the issue and who looks after it. It
changes no baseline: once the metric is green again, the entry must go, and what gets worse is red again.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from datetime import date
from pathlib import Path

import msgspec

from perf_tests.harness.baselines import transaction
from perf_tests.harness.baselines.canonical_json import require_format, require_unique_keys
from perf_tests.protocol.base import Struct
from perf_tests.protocol.errors import BaselineError
from perf_tests.tables.metrics.rows import METRIC_BY_NAME
from perf_tests.tables.metrics.spec import Metric, Rule

ACKNOWLEDGED = "acknowledged.json"
"""Stands in the folder of a platform."""
FORMAT_VERSION = 1
ISSUE = re.compile(r"https://[\w.-]+/[\w./#?=&-]+")
OWNER = re.compile(r"@[\w-]{1,39}")


class Acknowledgement(Struct):
    """One regression that is known."""

    case: str
    metric: str
    limit: float
    """The value beyond which it is red again, in the metric's units."""
    issue: str
    """The address of the issue about it."""
    owner: str
    """Who looks after it, as `@name`."""
    until: date
    """The last day on which it is put up with."""


class AcknowledgedFile(Struct):
    """The content of the file."""

    format_version: int
    entries: tuple[Acknowledgement, ...]


Acknowledged = Mapping[tuple[str, str], Acknowledgement]
"""Case id and metric -> what is known of it."""


def path_of(root: Path, platform_id: str) -> Path:
    """The file of a platform."""
    return root / platform_id / ACKNOWLEDGED


def read(root: Path, platform_id: str) -> Acknowledged:
    """What is acknowledged on the platform; empty where it has no file.

    Raises BaselineError for a file that cannot be read, and for an entry that may not be.
    """
    path = path_of(root, platform_id)
    text = transaction.read(root, path)
    if text is None:
        return {}
    require_unique_keys(text, path)
    require_format(text, path, FORMAT_VERSION)
    try:
        entries = msgspec.json.decode(text, type=AcknowledgedFile).entries
    except msgspec.DecodeError as error:
        raise BaselineError(f"{path} does not hold acknowledgements: {error}") from error
    for entry in entries:
        if why := next(_defects(entry), None):
            raise BaselineError(f"{path}: {entry.metric} of {entry.case}: {why}")
    found = {(entry.case, entry.metric): entry for entry in entries}
    if len(found) < len(entries):
        raise BaselineError(f"{path} names a metric of a case twice")
    return found


def _defects(entry: Acknowledgement) -> Iterator[str]:
    metric = METRIC_BY_NAME.get(entry.metric)
    if metric is None:
        yield "there is no such metric"
    elif why := never(metric):
        yield f"cannot be acknowledged: {why}"
    if not ISSUE.fullmatch(entry.issue):
        yield f"the issue must be an address that begins with https://, and is {entry.issue!r}"
    if not OWNER.fullmatch(entry.owner):
        yield f"the owner must be a name such as @octocat, and is {entry.owner!r}"


def never(metric: Metric) -> str | None:
    """Why no regression of the metric may ever be acknowledged; None where one may."""
    if not metric.has_baseline:
        return "it shows whether the build is what was asked for, which the tables imply, and no baseline"
    if metric.rule is Rule.PER_PAIR:
        return "pictures have a floor, below which they are wrong"
    if metric.rule is Rule.PER_LAYER:
        return "it is about every layer, and one limit would hide the others"
    return None
