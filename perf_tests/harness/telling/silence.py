"""Nights that do not measure, rows without verdicts, no night on record: an issue while that is so; pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta

from perf_tests.harness.runs.record import Status
from perf_tests.harness.telling import issues
from perf_tests.harness.telling.actions import Action, ActionKind, is_alive
from perf_tests.harness.telling.findings import CASES, CaseOutcome, NightFindings
from perf_tests.harness.telling.issues import MAX_ROWS, ApiIssue

MIN_MEASURED_SHARE = 0.5
"""Of the cases of a night; fewer say nothing of the stack."""
SILENT_H = 48
RECORDED_AT = time(12, tzinfo=UTC)
"""When a night is taken to have been recorded: it is dated by its day, and begins in the morning."""


@dataclass(frozen=True, kw_only=True, slots=True)
class StandingIssue:
    """An issue that is open for as long as something is so."""

    mark: str
    title: str
    parts: tuple[str, ...]
    """Why it is so; empty where it is not."""
    again: str
    """What is said when it is so again, and when it is over."""
    over: str


def unmeasured(
    platform: str,
    outcomes: Sequence[CaseOutcome],
    findings: NightFindings,
    ours: Mapping[str, ApiIssue],
    links: Sequence[str] = (),
) -> tuple[Action, ...]:
    """What becomes of the issue about nights of a platform that do not measure."""
    measured = sum(each.measured for each in outcomes)
    is_silent = not outcomes or measured < MIN_MEASURED_SHARE * len(outcomes)
    issue = StandingIssue(
        mark=issues.fingerprint(platform, "unmeasured"),
        title=f"Performance: the nightly on {platform} does not measure",
        parts=(*_of_unmeasured(outcomes, measured, findings), *links) if is_silent else (),
        again=f"So it is again in the night of {findings.night}.",
        over=f"The night of {findings.night} measured {measured} of {len(outcomes)} cases.",
    )
    return _kept(issue, ours, findings.night)


def _of_unmeasured(outcomes: Sequence[CaseOutcome], measured: int, findings: NightFindings) -> Iterator[str]:
    if outcomes:
        yield f"Of {len(outcomes)} cases of the night of {findings.night}, {measured} were measured."
    else:
        yield (
            f"The night of {findings.night} left no findings: its machine has died, or its parts could not "
            "be merged."
        )
    yield "Until that is mended, nothing that regresses is seen. The next night that measures closes this."


def heartbeat(
    platform: str, newest: date | None, now: datetime, ours: Mapping[str, ApiIssue]
) -> tuple[Action, ...]:
    """What becomes of the issue about a platform of which no night that counts is on record; `newest` is
    the last one, None without any."""
    last = f"The last night on record is that of {newest}." if newest else "No night is on record."
    is_silent = newest is None or now - datetime.combine(newest, RECORDED_AT) > timedelta(hours=SILENT_H)
    issue = StandingIssue(
        mark=issues.fingerprint(platform, "heartbeat"),
        title=f"Performance: no night on {platform} for {SILENT_H} hours",
        parts=(
            last,
            f"That is more than {SILENT_H} hours ago: the nightly does not run, ends before it measures, or "
            "cannot write its history. The next night on record closes this.",
        )
        if is_silent
        else (),
        again=f"So it is again. {last}",
        over=f"Nights are on record again. {last}",
    )
    return _kept(issue, ours, now.date().isoformat())


def unjudged(
    platform: str,
    found: Mapping[str, frozenset[Status]],
    nights: int,
    today: date,
    ours: Mapping[str, ApiIssue],
) -> tuple[Action, ...]:
    """What becomes of the issue about rows of a platform of which `nights` nights in a row gave no verdict.

    `found` is why, by case; cases that this checkout does not know are left out.
    """
    known = sorted(case for case in found if case in CASES)
    rows = [f"| `{case}` | {', '.join(sorted(found[case]))} |" for case in known[:MAX_ROWS]]
    more = [f"| and {len(known) - MAX_ROWS} more | |"] if len(known) > MAX_ROWS else []
    issue = StandingIssue(
        mark=issues.fingerprint(platform, "unjudged"),
        title=f"Performance: rows on {platform} that no night judges",
        parts=(
            f"Of each of these, {nights} nights gave no verdict on a metric, so nobody sees it regress:",
            "\n".join(("| case | why |", "|---|---|", *rows, *more)),
            "The night that judges all of them closes this.",
        )
        if known
        else (),
        again="Rows are without a verdict again.",
        over="All rows have verdicts again.",
    )
    return _kept(issue, ours, today.isoformat())


def _kept(issue: StandingIssue, ours: Mapping[str, ApiIssue], today: str) -> tuple[Action, ...]:
    """At most one action, and none where the issue says that already."""
    known = ours.get(issue.mark)
    body = issues.marked(issue.mark, *issue.parts)
    is_open = known is not None and known.state == "open"
    if not issue.parts:
        kind, body, comment = ActionKind.CLOSE, "", issue.over
        is_needed = is_open
    elif known is None or not is_alive(known, today):
        kind, comment, is_needed = ActionKind.CREATE, "", True
    elif not is_open:
        kind, comment, is_needed = ActionKind.REOPEN, issue.again, True
    else:
        kind, comment, is_needed = ActionKind.UPDATE, "", known.body != body
    if not is_needed:
        return ()
    number = None if kind is ActionKind.CREATE or known is None else known.number
    return (Action(kind=kind, mark=issue.mark, number=number, title=issue.title, body=body, comment=comment),)
