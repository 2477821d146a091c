"""What becomes of the issues after a night: one a cause, opened, updated, closed, reopened; pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta

import msgspec

from perf_tests.harness.telling import issues
from perf_tests.harness.telling.findings import CaseOutcome, NightFindings, RedCause
from perf_tests.harness.telling.issues import ApiIssue, IssueMemory

GREEN_NIGHTS = 3
"""In which each member case was measured and green, before an issue is closed."""
REOPENED_DAYS = 14
"""After it was closed; what comes back later is another issue."""
MAX_NEW = 5
"""Causes of one night that have issues of their own; more have one thing in common."""
MAX_RED_SHARE = 0.3
CONTROL = "bf16"
"""The scheme that nothing is quantized in: where it is red, no scheme is to blame."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Action:
    """One request to the API."""

    kind: str
    """`create`, `update` (of the body), `comment`, `close` or `reopen`."""
    number: int | None
    """Of the issue; None for one that is created."""
    title: str = ""
    text: str = ""
    """The body, or the comment."""


@dataclass(frozen=True, kw_only=True, slots=True)
class IssueSubject:
    """What one issue is about, tonight."""

    mark: str
    platform: str
    title: str
    members: tuple[str, ...]
    parts: tuple[str, ...]
    cause: RedCause | None
    """None for an umbrella."""


def plan(findings: NightFindings, known: Iterable[ApiIssue]) -> tuple[Action, ...]:
    """What is to be done; nothing for a fire drill."""
    if not findings.counts:
        return ()
    ours = _by_fingerprint(known)
    subjects = {each.mark: each for each in _subjects(findings, ours)}
    actions: list[Action] = []
    for mark, subject in subjects.items():
        actions += _red(subject, ours.get(mark), findings)
    for mark, issue in ours.items():
        if mark not in subjects and issue.state == "open":
            actions += _not_red(mark, issue, findings)
    return tuple(actions)


def _by_fingerprint(known: Iterable[ApiIssue]) -> dict[str, ApiIssue]:
    """The issue of each cause: the open one, else the last that was closed."""
    found: dict[str, ApiIssue] = {}
    for issue in sorted(known, key=lambda each: (each.state == "open", each.closed_at or "", each.number)):
        if mark := issue.fingerprint:
            found[mark] = issue
    return found


def _subjects(findings: NightFindings, ours: Mapping[str, ApiIssue]) -> Iterator[IssueSubject]:
    for platform in dict.fromkeys(each.platform for each in findings.outcomes):
        causes = [each for each in findings.causes if each.platform == platform]
        new = [each for each in causes if not _is_alive(ours.get(_mark(each)), findings)]
        why = _umbrella(findings, platform, causes, new)
        told = [each for each in causes if each not in new] if why else causes
        for cause in told:
            yield IssueSubject(
                mark=_mark(cause),
                platform=platform,
                title=issues.title(cause),
                members=tuple(each.case for each in cause.members),
                parts=tuple(issues.of_cause(cause, findings)),
                cause=cause,
            )
        if why:
            yield IssueSubject(
                mark=issues.fingerprint(platform, "umbrella"),
                platform=platform,
                title=issues.UMBRELLA.format(platform=platform),
                members=tuple(each.case for cause in causes for each in cause.members),
                parts=tuple(issues.of_umbrella(causes, why, findings)),
                cause=None,
            )


def _mark(cause: RedCause) -> str:
    return issues.fingerprint(*cause.key)


def _is_alive(issue: ApiIssue | None, findings: NightFindings) -> bool:
    """Whether a cause that comes back goes on in this issue."""
    if issue is None or issue.state == "open":
        return issue is not None
    closed = (issue.closed_at or "")[: len("2026-01-31")]
    if not closed:
        return False
    return date.fromisoformat(findings.night) - date.fromisoformat(closed) <= timedelta(days=REOPENED_DAYS)


def _umbrella(
    findings: NightFindings, platform: str, causes: Sequence[RedCause], new: Sequence[RedCause]
) -> str | None:
    """Why one issue stands for all new causes of a platform; None where each has its own."""
    measured = [each for each in findings.outcomes if each.platform == platform and each.measured]
    red = {member.case for cause in causes for member in cause.members}
    if any(cause.scheme == CONTROL for cause in causes):
        return "bf16 itself is red, in which nothing is quantized"
    if len(new) > MAX_NEW:
        return f"{len(new)} causes are new"
    if measured and len(red) > MAX_RED_SHARE * len(measured) and len(causes) > 1:
        return f"{len(red)} of {len(measured)} measured cases are red"
    return None


def _red(subject: IssueSubject, issue: ApiIssue | None, findings: NightFindings) -> Iterator[Action]:
    before = issues.memory_of(issue) if issue else None
    if issue is None or not _is_alive(issue, findings):
        memory = _remember(None, subject, findings)
        yield Action(kind="create", number=None, title=subject.title, text=_body(subject, memory))
        return
    if before and _is_told(before, findings):
        return
    memory = _remember(before, subject, findings)
    if issue.state == "closed":
        yield Action(kind="reopen", number=issue.number)
        yield Action(kind="comment", number=issue.number, text=f"Red again in the night of {findings.night}.")
    yield Action(kind="update", number=issue.number, text=_body(subject, memory))
    if before and memory.blame is not before.blame and memory.blame is not None:
        text = f"Which package it comes from is known now: {memory.blame.value}."
        yield Action(kind="comment", number=issue.number, text=text)


def _remember(before: IssueMemory | None, subject: IssueSubject, findings: NightFindings) -> IssueMemory:
    memory = issues.remembering(before, issues.RED, findings, subject.members, subject.cause)
    return msgspec.structs.replace(memory, platform=subject.platform)


def _body(subject: IssueSubject, memory: IssueMemory) -> str:
    return issues.body(subject.mark, memory, subject.parts)


def _is_told(before: IssueMemory, findings: NightFindings) -> bool:
    """Whether the issue has heard of this night, or of a later one."""
    same = (before.last_night, before.last_run) == (findings.night, findings.run)
    return same or findings.night < before.last_night


def _not_red(mark: str, issue: ApiIssue, findings: NightFindings) -> Iterator[Action]:
    before = issues.memory_of(issue)
    if before is None or _is_told(before, findings):
        return
    outcomes = {each.case: each for each in findings.outcomes if before.platform in (None, each.platform)}
    if not outcomes:  # the night of another platform
        return
    members = [outcomes.get(case) for case in before.members]
    letter = _letter(members, before.metric)
    memory = issues.remembering(before, letter, findings, (), None)
    parts = (f"Not among the causes of the night of {findings.night}.",)
    yield Action(kind="update", number=issue.number, text=issues.body(mark, memory, parts))
    if letter != issues.GREEN:
        return
    if all(each and each.baseline_of and each.baseline_of > before.first_red for each in members):
        commit = findings.commits.get("suite")
        named = f" with {commit}" if commit else ""
        yield Action(
            kind="close",
            number=issue.number,
            text=f"The change was accepted{named}: the baselines of all its cases are newer than it.",
        )
    elif memory.green_nights >= GREEN_NIGHTS:
        text = f"Green in {GREEN_NIGHTS} nights, the last one that of {findings.night}."
        yield Action(kind="close", number=issue.number, text=text)


def _letter(members: Sequence[CaseOutcome | None], metric: str | None) -> str:
    """How a night in which nothing was told of an issue counts for it; `metric` is None for any."""

    def concerns(names: Sequence[str]) -> bool:
        return bool(names) if metric is None else metric in names

    known = [each for each in members if each is not None]
    if any(concerns(each.red) for each in known):
        return issues.RED
    measured = [each for each in known if each.measured and not concerns(each.undecided)]
    return issues.GREEN if members and len(measured) == len(members) else issues.SAYS_NOTHING
