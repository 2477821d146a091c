"""The first page of a site of nights: when, where, with what, how it ended; pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from perf_tests.harness.history.night import PACKAGES
from perf_tests.harness.page import report_file
from perf_tests.harness.page.view import Page
from perf_tests.harness.report.wording import clipped, flat
from perf_tests.harness.runs.record import RunRecord
from perf_tests.protocol.errors import RecordError

TEMPLATE = "index.html"
POLICY = "default-src 'none'; style-src '{style}'; base-uri 'none'; form-action 'none'"
MAX_SENTENCE = 400


@dataclass(frozen=True, kw_only=True, slots=True)
class NightLine:
    """One night in the index."""

    began: datetime
    """UTC."""
    platforms: str
    is_green: bool
    sentence: str
    """The one that its page begins with."""
    counts: str
    remark: str
    """Why it says nothing of the stack; empty for an ordinary night."""
    versions: tuple[str, ...]
    """Of the stack, such as `torch 2.15.0`."""
    file: str
    """The name of its page."""

    @property
    def date(self) -> str:
        """When it began, to the minute, UTC."""
        return self.began.strftime("%Y-%m-%d %H:%M")


@dataclass(frozen=True, kw_only=True, slots=True)
class UnreadableNight:
    """A night that has no page."""

    name: str
    why: str


def line_of(record: RunRecord, page: Page, file: str) -> NightLine:
    """What the index says of a night, whose page is in `file`. Raises RecordError for one without a date."""
    is_drill = any(run.injected for run in (*record.cases, *record.references))
    return NightLine(
        began=began(record),
        platforms=", ".join(dict.fromkeys(run.platform for run in record.cases)) or "-",
        is_green=page.is_green,
        sentence=clipped(page.sentence, MAX_SENTENCE),
        counts=page.counts,
        remark="a fire drill: what is red was planted" if is_drill else "",
        versions=tuple(_versions(record)),
        file=file,
    )


def began(record: RunRecord) -> datetime:
    """When the night began, UTC. Raises RecordError where the record tells no date."""
    try:
        when = datetime.fromisoformat(record.created_at)
        return when.replace(tzinfo=UTC) if when.tzinfo is None else when.astimezone(UTC)
    except (ValueError, OverflowError):
        raise RecordError(
            f"it began at {clipped(flat(record.created_at), 40)!r}, which is no date; measure again"
        ) from None


def _versions(record: RunRecord) -> Iterator[str]:
    """The packages of the stack; several versions of one where the parts of a night differ."""
    environments = [process.environment for run in record.cases for process in run.processes]
    if not environments and record.environment is not None:
        environments = [record.environment]
    for name in PACKAGES:
        found = dict.fromkeys(each.packages[name] for each in environments if name in each.packages)
        if found:
            yield f"{name} {', '.join(found)}"


def rendered(lines: Iterable[NightLine], unreadable: Sequence[UnreadableNight], left_out: int) -> str:
    """The HTML of the index, newest night first; `left_out` older ones have no page."""
    style = report_file.stylesheet()
    template = report_file.environment(__package__).get_template(TEMPLATE)
    return template.render(
        nights=sorted(lines, key=lambda line: line.began, reverse=True),
        unreadable=unreadable,
        left_out=left_out,
        style=style,
        policy=POLICY.format(style=report_file.digest(style)),
    )
