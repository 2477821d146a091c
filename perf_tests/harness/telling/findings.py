"""`findings.json`: what of a night is told to people, small, and decoded as if an enemy had written it.

The job that files issues trusts neither the machine that measured nor the nightly code that ran there. So the
file holds names that this checkout knows, numbers, versions and commits, and no free text at all.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta

from perf_tests.harness.processes.plain_text import harmless
from perf_tests.harness.records.attributions import Blame
from perf_tests.harness.runs.record import Status
from perf_tests.protocol.base import Struct
from perf_tests.protocol.errors import RecordError
from perf_tests.protocol.files import read_regular
from perf_tests.tables.cases import Case, Weights
from perf_tests.tables.matrix import MATRIX
from perf_tests.tables.metrics.rows import METRIC_BY_NAME
from perf_tests.tables.platforms import PLATFORM_BY_ID

FORMAT_VERSION = 1
MAX_BYTES = 2 << 20
"""A night of 300 cases of which no metric is green takes one."""
MAX_ROWS = 2000
TOLD = (Status.REGRESSED, Status.SURPRISE)
"""Verdicts that are a cause: a case that is too good is not doing its work, as often as not."""
PACKAGES = ("torch", "triton", "torchao", "diffusers", "transformers")
SUITE = "suite"
"""What its commit goes by, among those of packages."""
BUILD = "build"
"""Stands for the metric of a case that could not be measured as asked."""

Name = Annotated[str, Meta(pattern=r"\A[A-Za-z0-9_.-]{1,120}\Z")]
Version = Annotated[str, Meta(pattern=r"\A[0-9A-Za-z.+!_-]{1,60}\Z")]
Commit = Annotated[str, Meta(pattern=r"\A[0-9a-f]{7,40}\Z")]
Day = Annotated[str, Meta(pattern=r"\A20[0-9]{2}-[01][0-9]-[0-3][0-9]\Z")]
RunId = Annotated[str, Meta(pattern=r"\A[0-9]{1,20}(-[0-9]{1,4})?\Z")]
Percent = Annotated[float, Meta(ge=-1e6, le=1e6)]
Number = Annotated[float, Meta(ge=-1e15, le=1e15)]


class MemberChange(Struct):
    """One case of a cause."""

    case: Name
    change_pct: Percent | None = None
    """Of the metric against the baseline; None where there is no percentage of it."""


class RedCause(Struct):
    """Cases that are red alike, by the metric that leads in each of them."""

    platform: Name
    scheme: Name
    compile: Name
    metric: Name
    status: Status
    members: Annotated[tuple[MemberChange, ...], Meta(min_length=1, max_length=MAX_ROWS)]
    blame: Blame | None = None
    """None where nobody asked which package it was."""
    whole: Number | None = None
    """What the new stack changes, in percent or in the metric's units."""
    torch: Number | None = None
    """What of it comes from torch with Triton, and what from torchao."""
    torchao: Number | None = None

    @property
    def key(self) -> tuple[str, str, str, str, str]:
        """What makes it the same cause in another night: not its numbers, its cases, or whose it is."""
        return self.platform, self.scheme, self.compile, self.metric, self.status.value


class CaseOutcome(Struct):
    """What became of one case."""

    case: Name
    platform: Name
    measured: bool
    """Whether verdicts on it mean anything."""
    red: Annotated[tuple[Name, ...], Meta(max_length=200)] = ()
    """Its red metrics, by the names of the times behind them."""
    undecided: Annotated[tuple[Name, ...], Meta(max_length=200)] = ()
    """Metrics that are neither red nor green."""
    baseline_of: Day | None = None
    """When its baseline was recorded; None without one."""


class NightFindings(Struct):
    """The whole file."""

    format_version: int
    night: Day
    run: RunId
    """Of the workflow, and its attempt; 0 where there is none."""
    counts: bool
    """Not for a fire drill: that is told to nobody."""
    packages: Annotated[dict[Name, Version], Meta(max_length=20)]
    commits: Annotated[dict[Name, Commit], Meta(max_length=20)]
    causes: Annotated[tuple[RedCause, ...], Meta(max_length=MAX_ROWS)]
    outcomes: Annotated[tuple[CaseOutcome, ...], Meta(max_length=MAX_ROWS)]


CASES: dict[str, Case] = {case.id: case for case in (row.case(Weights.SYNTHETIC) for row in MATRIX)}


def read(path: Path) -> NightFindings:
    """The findings in `path`. Raises RecordError for a file that is not exactly what the suite writes."""
    try:
        if path.stat().st_size > MAX_BYTES:
            raise RecordError(f"{path} is larger than {MAX_BYTES} bytes: nothing is told")
        return loads(read_regular(path))
    except OSError as error:
        raise RecordError(f"{path} cannot be read: {error.strerror}: nothing is told") from error


def loads(content: bytes) -> NightFindings:
    """The findings in the content of a file. Raises RecordError."""
    if len(content) > MAX_BYTES:
        raise RecordError(f"the findings are larger than {MAX_BYTES} bytes: nothing is told")
    try:
        findings = msgspec.json.decode(content, type=NightFindings)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise RecordError(f"the findings cannot be trusted: {harmless(str(error))[:200]}") from None
    if why := next(_strangers(findings), None):
        raise RecordError(f"the findings cannot be trusted: {why}")
    return findings


def dumps(findings: NightFindings) -> bytes:
    """The content of the file."""
    return msgspec.json.format(msgspec.json.encode(findings), indent=1) + b"\n"


def _strangers(findings: NightFindings) -> Iterator[str]:
    """What names something that this checkout does not know, or contradicts itself."""
    if findings.format_version != FORMAT_VERSION:
        yield f"they have format {findings.format_version}, and this checkout reads {FORMAT_VERSION}"
    yield from _no_day(findings.night)
    yield from _unknown_packages(*findings.packages, *findings.commits)
    for outcome in findings.outcomes:
        yield from _unknown_case(outcome.case, outcome.platform)
        yield from _unknown_metrics(*outcome.red, *outcome.undecided)
    for cause in findings.causes:
        yield from _unknown_metrics(cause.metric)
        for member in cause.members:
            yield from _unknown_case(member.case, cause.platform)
            yield from _wrong_cause(cause, CASES[member.case])
        numbers = (cause.whole, cause.torch, cause.torchao, *(each.change_pct for each in cause.members))
        if not all(math.isfinite(each) for each in numbers if each is not None):
            yield "a number is not finite"
    yield from _contradictions(findings)


def _contradictions(findings: NightFindings) -> Iterator[str]:
    pairs = [(each.platform, each.case) for each in findings.outcomes]
    keys = [each.key for each in findings.causes]
    members = [(cause.key, cause.platform, each.case) for cause in findings.causes for each in cause.members]
    if any(len(set(each)) < len(each) for each in (pairs, keys, members)):
        yield "a case or a cause is there twice"
    if unheard := {(platform, case) for _, platform, case in members} - set(pairs):
        yield f"{min(unheard)[1]} is red, but not among the outcomes"


def _no_day(night: str) -> Iterator[str]:
    try:
        date.fromisoformat(night)
    except ValueError:
        yield f"there is no day {night}"


def _unknown_packages(*names: str) -> Iterator[str]:
    for name in names:
        if name not in (*PACKAGES, SUITE):
            yield f"there is no package {name}"


def _unknown_case(case: str, platform: str) -> Iterator[str]:
    if platform not in PLATFORM_BY_ID:
        yield f"there is no platform {platform}"
    if case not in CASES:
        yield f"there is no case {case}"


def _unknown_metrics(*names: str) -> Iterator[str]:
    for name in names:
        if name != BUILD and name not in METRIC_BY_NAME:
            yield f"there is no metric {name}"


def _wrong_cause(cause: RedCause, case: Case) -> Iterator[str]:
    recipe = case.build.recipe
    if (cause.scheme, cause.compile) != (recipe.scheme.id, recipe.compile.value):
        yield f"{case.id} is not of {cause.scheme} {cause.compile}"
    if cause.status not in TOLD and not cause.status.is_error:
        yield f"{cause.status.value} is no cause"


VERSION = re.compile(r"[0-9A-Za-z.+!_-]{1,60}")
COMMIT = re.compile(r"[0-9a-f]{7,40}")
