"""One night as history keeps it: a few hundred numbers of a run, with what decides whether others compare."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from typing import Final

import msgspec

from perf_tests.harness.runs.record import Run, RunRecord, Status, Verdict
from perf_tests.protocol.base import Struct
from perf_tests.tables.metrics.rows import METRIC_BY_NAME

FORMAT_VERSION = 1
METHODOLOGY: Final = 1
"""Counts up when the suite measures or summarises in another way, so that numbers before and after it are no
series."""
BUILD = "build"
"""The name of the row that says whether a case could be measured as asked."""
COMMIT = re.compile(r"(?:git|\()([0-9a-f]{7,40})")
"""A commit in the version of a package, as torch and torchao report it."""
PACKAGES = ("torch", "triton", "torchao", "diffusers", "transformers")
CARD_DIGITS = 12


class NightRow(Struct, omit_defaults=True):
    """One metric of one case in one night."""

    case: str
    metric: str
    digest: str
    """Of the case."""
    status: str
    value: float | None = None
    """Median over the processes; None where nothing was measured."""
    processes: int = 0
    card: str = ""
    """Of the unit that measured it, hashed; empty where nothing was."""


class NightHeader(Struct, omit_defaults=True):
    """The first line of the file of a night."""

    format_version: int
    night: str
    """ISO date, UTC."""
    run: str
    """What tells two runs of one night apart, such as the number of the workflow's run and its attempt."""
    platform: str
    methodology: int
    packages: dict[str, str]
    """Versions, as the workers reported them."""
    commits: dict[str, str] = msgspec.field(default_factory=dict)
    """Of the packages that are built from one, and of this suite."""
    wheels: dict[str, str] = msgspec.field(default_factory=dict)
    """Package -> the address that its wheel was installed from, which outlives its place in an index."""
    counts: bool = True
    """Whether it is part of series."""
    why_not: str = ""
    """Why it does not count."""


def night_of(
    record: RunRecord, platform: str, run: str, *, wheels: Mapping[str, str], why_not: str = ""
) -> tuple[NightHeader, tuple[NightRow, ...]]:
    """The night and the rows of a platform in `record`.

    `why_not` is why it does not count, where whoever ran it knows of a reason; a fire drill never counts.
    """
    runs = [each for each in record.cases if each.platform == platform]
    environment = next((each.processes[0].environment for each in runs if each.processes), record.environment)
    versions = environment.packages if environment else {}
    packages = {name: versions[name] for name in PACKAGES if name in versions}
    commits = {name: found[1] for name, version in packages.items() if (found := COMMIT.search(version))}
    if record.plan is not None and record.plan.commit is not None:
        commits["suite"] = record.plan.commit
    if not why_not and any(each.injected for each in (*runs, *record.references)):
        why_not = "a fire drill"
    night = NightHeader(
        format_version=FORMAT_VERSION,
        night=record.created_at[: len("2026-01-31")],
        run=run,
        platform=platform,
        methodology=METHODOLOGY,
        packages=packages,
        commits=commits,
        wheels=dict(wheels),
        counts=not why_not,
        why_not=why_not,
    )
    return night, tuple(row for each in runs for row in _rows(each))


def _rows(run: Run) -> Iterator[NightRow]:
    card = card_of(run.processes[0].environment.unit) if run.processes else ""
    build = run.status if run.failure is not None or run.status is Status.NOT_RUN else Status.PASS
    yield NightRow(case=run.id, metric=BUILD, digest=run.digest, status=build.value, card=card)
    for verdict in run.verdicts:
        yield _row(run, verdict, card)


def _row(run: Run, verdict: Verdict, card: str) -> NightRow:
    return NightRow(
        case=run.id,
        metric=verdict.metric,
        digest=run.digest,
        status=verdict.status.value,
        value=verdict.measured,
        processes=len(run.processes),
        card=card,
    )


def card_of(unit: str) -> str:
    """What stands for a card or processor in history, which anybody may read."""
    return hashlib.sha256(unit.encode()).hexdigest()[:CARD_DIGITS]


def is_of_card(metric: str) -> bool:
    """Whether numbers of the metric compare on the same card only."""
    known = METRIC_BY_NAME.get(metric)
    return known is not None and known.per_unit
