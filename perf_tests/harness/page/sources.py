"""What a page is made from: a record, and what stands on disk beside it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from perf_tests.harness.baselines import files, register
from perf_tests.harness.baselines.entry import Accepted, Baselines, find_accepted
from perf_tests.harness.compare import published
from perf_tests.harness.compare.published import PublishedMatch
from perf_tests.harness.page import earlier
from perf_tests.harness.page.earlier import Nights
from perf_tests.harness.page.pictures import Album
from perf_tests.harness.rebaseline.candidates import CASES
from perf_tests.harness.records.attributions import Attribution
from perf_tests.harness.runs.record import Run, RunRecord
from perf_tests.harness.verdicts.case_status import is_green_without_verdicts
from perf_tests.tables.platforms import PLATFORM_BY_ID

PUBLISHED = "published"
"""The folder of published tables among the baselines."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PageSources:
    """A record, and what it is read beside. Without the rest, the page says less."""

    record: RunRecord
    where: str
    """The folder of the run, as commands name it."""
    accepted: Mapping[str, Accepted] = field(default_factory=dict)
    """Case id -> what it is judged by."""
    published: Mapping[str, tuple[PublishedMatch, ...]] = field(default_factory=dict)
    """Case id -> the published rows of the same case."""
    recorded: Mapping[str, frozenset[str]] = field(default_factory=dict)
    """Platform id -> the cases that ever had a baseline there."""
    earlier: Nights = field(default_factory=Nights)
    """Runs before this one; without any unless a folder of them is given."""
    base: Mapping[str, Run] = field(default_factory=dict)
    """Case id -> the run that it is compared with; empty unless the page is about two runs."""
    albums: Mapping[str, Album] = field(default_factory=dict)
    """Case id -> its pictures."""

    def is_green(self, run: Run) -> bool:
        """Whether measuring `run` left the session green; its verdicts do not count."""
        known, platform = CASES.get(run.id), PLATFORM_BY_ID.get(run.platform)
        scheme = known.case.build.recipe.scheme.id if known else ""
        is_required = run.id in self.accepted or (
            platform is not None and scheme in platform.required_schemes
        )
        return is_green_without_verdicts(run, is_required=is_required)

    def is_red(self, run: Run) -> bool:
        """Whether `run` or one of its verdicts makes the session red."""
        return not (self.is_green(run) and all(verdict.status.is_green for verdict in run.verdicts))

    def attribution(self, run: Run, metric: str) -> Attribution | None:
        """Which package made `metric` of the run red; None where nobody asked."""
        found = (
            each for each in self.record.attributions if run.id in each.members and each.metric == metric
        )
        return next(found, None)

    def is_recorded(self, case_id: str, platform: str) -> bool:
        """Whether the case ever had a baseline on the platform."""
        return case_id in self.recorded.get(platform, frozenset())


def read(out: Path, record: RunRecord, baselines: Path, history: Path | None = None) -> PageSources:
    """Everything but pictures that a page about `record`, in the directory `out`, is made from.

    `history` is a folder of earlier runs. Raises BaselineError where the baselines or the published tables
    cannot be trusted, and UsageError where there is no such folder.
    """
    return PageSources(
        record=record,
        where=str(out),
        accepted=_accepted(record, baselines),
        earlier=Nights() if history is None else earlier.read(history, record),
        published=_published(record, baselines / PUBLISHED),
        recorded={each: register.read(baselines, each) or frozenset() for each in register.REGISTERED},
    )


def _accepted(record: RunRecord, baselines: Path) -> Mapping[str, Accepted]:
    of_platform: Callable[[str], Mapping[str, Baselines]] = cache(
        lambda platform: files.load(baselines, platform)
    )
    found = {
        run.id: _before(record, find_accepted(of_platform(run.platform), CASES[run.id].case))
        for run in (*record.references, *record.cases)
        if run.id in CASES and run.platform in PLATFORM_BY_ID
    }
    return {case_id: accepted for case_id, accepted in found.items() if accepted is not None}


def _before(record: RunRecord, accepted: Accepted | None) -> Accepted | None:
    """What judged the run; None for what was accepted from it, or later."""
    return None if accepted is None or accepted.provenance.recorded_at >= record.created_at else accepted


def _published(record: RunRecord, folder: Path) -> Mapping[str, tuple[PublishedMatch, ...]]:
    if not folder.is_dir():
        return {}
    by_case: dict[str, list[PublishedMatch]] = {}
    for match in published.compare(record, published.read(folder)).matches:
        by_case.setdefault(match.case, []).append(match)
    return {case: tuple(matches) for case, matches in by_case.items()}
