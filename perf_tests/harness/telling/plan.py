"""What becomes of the issues after a night: one a cause, opened, updated, closed, reopened; pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import msgspec

from perf_tests.harness.telling import issues, silence
from perf_tests.harness.telling.actions import Action, ActionKind, by_fingerprint, is_alive
from perf_tests.harness.telling.findings import SUITE, CaseOutcome, NightFindings, RedCause
from perf_tests.harness.telling.issues import ApiIssue, IssueMemory

GREEN_NIGHTS = 3
"""In which each member case was measured and green, before an issue is closed."""
MAX_NEW = 5
"""Causes of one night that have issues of their own; more have one thing in common."""
MAX_RED_SHARE = 0.3
CONTROL = "bf16"
"""The scheme that nothing is quantized in: where it is red, no scheme is to blame."""


@dataclass(frozen=True, kw_only=True, slots=True)
class NightToTell:
    """One night, and what else is known of it."""

    findings: NightFindings
    controls: tuple[NightFindings, ...] = ()
    """Of the same night, bf16 with the stack of the baselines, one of each machine: red, they blame it."""
    platform: str | None = None
    """Whose night it should have been, whatever the findings hold; None to take it from them."""
    run_url: str = ""
    """Of the run that measured, with its logs; empty where there is none."""

    @property
    def links(self) -> tuple[str, ...]:
        """Where more is to be read."""
        return (f"[The run, with its page and its logs]({self.run_url})",) if self.run_url else ()

    @property
    def platforms(self) -> tuple[str, ...]:
        """The platforms of this night."""
        named = (self.platform,) if self.platform else ()
        return tuple(dict.fromkeys((*named, *(each.platform for each in self.findings.outcomes))))

    def outcomes(self, platform: str) -> tuple[CaseOutcome, ...]:
        """How the cases of a platform fared."""
        return tuple(each for each in self.findings.outcomes if each.platform == platform)

    def causes(self, platform: str) -> tuple[RedCause, ...]:
        """What is red on a platform."""
        return tuple(each for each in self.findings.causes if each.platform == platform)

    def unmeasured_controls(self, platform: str) -> tuple[str, ...] | None:
        """The controls of a platform that were not measured; None where there was none, and empty where one
        of them is red, which tells enough."""
        if self.red_controls(platform):
            return ()
        outcomes = [each for control in self.controls for each in control.outcomes]
        here = [each for each in outcomes if each.platform == platform]
        return tuple(dict.fromkeys(each.case for each in here if not each.measured)) if here else None

    def red_controls(self, platform: str) -> tuple[str, ...]:
        """The cases that are red on a platform although nothing under test was installed."""
        causes = (cause for each in self.controls for cause in each.causes if cause.platform == platform)
        return tuple(dict.fromkeys(member.case for cause in causes for member in cause.members))


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


def plan(night: NightToTell, known: Iterable[ApiIssue]) -> tuple[Action, ...]:
    """What is to be done; nothing for a fire drill."""
    findings = night.findings
    if not findings.counts:
        return ()
    ours = by_fingerprint(known)
    subjects = {each.mark: each for each in _subjects(night, ours)}
    actions: list[Action] = []
    for mark, subject in subjects.items():
        actions += _red(subject, ours.get(mark), findings)
    for mark, issue in ours.items():
        if mark not in subjects and issue.state == "open":
            actions += _not_red(mark, issue, findings)
    for platform in night.platforms:
        actions += silence.unmeasured(platform, night.outcomes(platform), findings, ours, night.links)
    return tuple(actions)


def _subjects(night: NightToTell, ours: Mapping[str, ApiIssue]) -> Iterator[IssueSubject]:
    findings = night.findings
    new = [each for each in findings.causes if not is_alive(ours.get(_mark(each)), findings.night)]
    for platform in night.platforms:
        causes, controls = night.causes(platform), night.red_controls(platform)
        why = _umbrella(night, platform, len(new))
        remarks = (*issues.of_controls(night.unmeasured_controls(platform)), *night.links)
        for cause in causes:
            if why and cause in new:
                continue
            yield IssueSubject(
                mark=_mark(cause),
                platform=platform,
                title=issues.title(cause),
                members=tuple(each.case for each in cause.members),
                parts=(*issues.of_cause(cause, findings), *remarks),
                cause=cause,
            )
        if why:
            yield IssueSubject(
                mark=issues.fingerprint(platform, "umbrella"),
                platform=platform,
                title=issues.UMBRELLA.format(platform=platform),
                members=(*(each.case for cause in causes for each in cause.members), *controls),
                parts=(*issues.of_umbrella(causes, why, findings), *remarks),
                cause=None,
            )


def _mark(cause: RedCause) -> str:
    return issues.fingerprint(*cause.key)


def _umbrella(night: NightToTell, platform: str, new_count: int) -> str | None:
    """Why one issue stands for all new causes of a platform; None where each has its own.

    `new_count` is that of all platforms, so that one night opens few issues however many there are.
    """
    causes = night.causes(platform)
    measured = [each for each in night.outcomes(platform) if each.measured]
    red = {member.case for cause in causes for member in cause.members}
    if night.red_controls(platform):
        return (
            "bf16 is red with the stack of the baselines, in which nothing is new: the machine or the suite"
        )
    if any(cause.scheme == CONTROL for cause in causes):
        return "bf16 itself is red, in which nothing is quantized"
    if causes and new_count > MAX_NEW:
        return f"{new_count} causes are new"
    if measured and len(red) > MAX_RED_SHARE * len(measured) and len(causes) > 1:
        return f"{len(red)} of {len(measured)} measured cases are red"
    return None


def _red(subject: IssueSubject, issue: ApiIssue | None, findings: NightFindings) -> Iterator[Action]:
    before = issues.memory_of(issue) if issue else None
    if issue is None or not is_alive(issue, findings.night):
        memory = _remember(None, subject, findings)
        yield _action(ActionKind.CREATE, subject, None, _body(subject, memory))
        return
    if before and before.has_heard(findings, issues.RED):
        return
    memory = _remember(before, subject, findings)
    body = _body(subject, memory)
    known = memory.blame if before and memory.blame is not before.blame else None
    blame = f"Which package it comes from is known now: {known.value}." if known else ""
    if issue.state == "closed":
        again = f"Red again in the night of {findings.night}."
        yield _action(ActionKind.REOPEN, subject, issue, body, " ".join(filter(None, (again, blame))))
    else:
        yield _action(ActionKind.UPDATE, subject, issue, body, blame)


def _action(
    kind: ActionKind, subject: IssueSubject, issue: ApiIssue | None, body: str, comment: str = ""
) -> Action:
    return Action(
        kind=kind,
        mark=subject.mark,
        number=issue.number if issue else None,
        title=issue.title if issue else subject.title,
        body=body,
        comment=comment,
    )


def _remember(before: IssueMemory | None, subject: IssueSubject, findings: NightFindings) -> IssueMemory:
    memory = issues.remembering(before, issues.RED, findings, subject.members, subject.cause)
    return msgspec.structs.replace(memory, platform=subject.platform)


def _body(subject: IssueSubject, memory: IssueMemory) -> str:
    return issues.body(subject.mark, memory, subject.parts)


def _not_red(mark: str, issue: ApiIssue, findings: NightFindings) -> Iterator[Action]:
    before = issues.memory_of(issue)
    if before is None:
        return
    outcomes = {each.case: each for each in findings.outcomes if before.platform in (None, each.platform)}
    if not outcomes:  # the night of another platform, or one that left nothing
        return
    members = [outcomes.get(case) for case in before.members]
    letter = _letter(members, before.metric)
    if before.has_heard(findings, letter):
        return
    memory = issues.remembering(before, letter, findings, (), None)
    comment = _why_closed(before, memory, members, findings) if letter == issues.GREEN else ""
    parts = (f"Not among the causes of the night of {findings.night}.",)
    yield Action(
        kind=ActionKind.CLOSE if comment else ActionKind.UPDATE,
        mark=mark,
        number=issue.number,
        title=issue.title,
        body=issues.body(mark, memory, parts),
        comment=comment,
    )


def _why_closed(
    before: IssueMemory,
    memory: IssueMemory,
    members: Sequence[CaseOutcome | None],
    findings: NightFindings,
) -> str:
    """Why an issue whose members are all green is closed; empty where it stays open."""
    red_with = max(before.first_red, before.baseline_of or "")
    if all(each and each.baseline_of and each.baseline_of > red_with for each in members):
        commit = findings.commits.get(SUITE)
        named = f" with {commit}" if commit else ""
        return f"The change was accepted{named}: the baselines of all its cases are newer than it."
    if memory.green_nights >= GREEN_NIGHTS:
        return f"Green in {GREEN_NIGHTS} nights, the last one that of {findings.night}."
    return ""


def _letter(members: Sequence[CaseOutcome | None], metric: str | None) -> str:
    """How a night in which nothing was told of an issue counts for it; `metric` is None for any."""

    def concerns(names: Sequence[str]) -> bool:
        return bool(names) if metric is None else metric in names

    known = [each for each in members if each is not None]
    if any(concerns(each.red) for each in known):
        return issues.RED
    measured = [each for each in known if each.measured and not concerns(each.undecided)]
    return issues.GREEN if members and len(measured) == len(members) else issues.SAYS_NOTHING
