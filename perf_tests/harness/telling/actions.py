"""What can become of an issue, and which issue a cause goes on in."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date, timedelta
from enum import StrEnum

from perf_tests.harness.telling.issues import ApiIssue

REOPENED_DAYS = 14
"""After it was closed; what comes back later is another issue."""


class ActionKind(StrEnum):
    """What happens to an issue."""

    CREATE = "create"
    UPDATE = "update"
    CLOSE = "close"
    REOPEN = "reopen"


@dataclass(frozen=True, kw_only=True, slots=True)
class Action:
    """What is to be done about one issue: its comment first, then its body and its state at once.

    The body remembers the night. So what was interrupted is done again as a whole, and what was done is not.
    """

    kind: ActionKind
    mark: str
    number: int | None
    """Of the issue; None for one that is created."""
    title: str
    """Of one that is created; else as it is."""
    body: str
    """Empty to leave it as it is."""
    comment: str = ""
    """Empty for none."""


def by_fingerprint(known: Iterable[ApiIssue]) -> dict[str, ApiIssue]:
    """The issue of each cause: the open one, else the last that was closed."""
    found: dict[str, ApiIssue] = {}
    for issue in sorted(known, key=lambda each: (each.state == "open", each.closed_at or "", each.number)):
        if mark := issue.fingerprint:
            found[mark] = issue
    return found


def is_alive(issue: ApiIssue | None, today: str) -> bool:
    """Whether what comes back goes on in this issue."""
    if issue is None or issue.state == "open":
        return issue is not None
    closed = (issue.closed_at or "")[: len("2026-01-31")]
    if not closed:
        return False
    return date.fromisoformat(today) - date.fromisoformat(closed) <= timedelta(days=REOPENED_DAYS)
