"""An issue about one cause: by what it is found again, what it remembers, and what it says; pure.

All of it is generated from validated findings. What is remembered stands in the body, in a comment that is
not shown: the nights, as a strip of one letter each, and the cases that were ever red for this cause.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from perf_tests.harness.records.attributions import Blame
from perf_tests.harness.runs.record import Status
from perf_tests.harness.telling import bisect_command
from perf_tests.harness.telling.findings import BUILD, Day, Name, NightFindings, RedCause, RunId
from perf_tests.protocol.base import Struct

LABEL = "perf-nightly"
"""Of every issue that is filed here; others are never touched."""
MARKER = re.compile(r"<!-- perf-cause:v1 ([0-9a-f]{12}) -->")
STATE = re.compile(r"<!-- perf-state (\{.*\}) -->")
RED, GREEN, SAYS_NOTHING = "R", "g", "-"
WEIGHT = {SAYS_NOTHING: 0, GREEN: 1, RED: 2}
"""Which letter stands for a night that was told twice: the one that says most."""
STRIP = 30
MAX_ROWS = 40
"""Cases that an issue lists; the others are counted."""
A_CONTROL = "control (bf16 with the stack of the baselines)"
NOBODY_KNOWS = "So nobody knows whether the machine is to blame."


class ApiLabel(msgspec.Struct):
    """A label, as GitHub's API gives it."""

    name: str


class ApiIssue(msgspec.Struct):
    """An issue, as GitHub's API gives it; what it has besides is left out."""

    number: int
    state: Literal["open", "closed"]
    title: str
    body: str | None = None
    closed_at: str | None = None
    labels: tuple[ApiLabel, ...] = ()
    pull_request: dict[str, object] | None = None
    """Of what is listed as an issue, but is none."""

    @property
    def fingerprint(self) -> str | None:
        """Of the cause that it is about; None for an issue that is not ours."""
        found = MARKER.search(self.body or "")
        ours = any(label.name == LABEL for label in self.labels)
        return found[1] if found and ours else None


class IssueMemory(Struct):
    """What an issue remembers of the nights before."""

    first_red: Day
    last_run: RunId
    last_night: Day
    strip: Annotated[str, Meta(pattern=r"\A[Rg-]{1,30}\Z")]
    """A letter a night, the last one last."""
    members: Annotated[tuple[Name, ...], Meta(max_length=2000)]
    metric: Name | None = None
    """What the issue is about; None for one about the host or the stack as a whole."""
    blame: Blame | None = None
    platform: Name | None = None
    """Of the cases, whose ids are the same on each; None in issues from before it was kept."""
    baseline_of: Day | None = None
    """Of the newest baseline that a case was red with; None in issues from before it was kept."""

    @property
    def green_nights(self) -> int:
        """Nights since the last red one in which each member was measured and green."""
        return self.strip.rpartition(RED)[2].count(GREEN)

    def has_heard(self, findings: NightFindings, letter: str) -> bool:
        """Whether `letter` for that night says nothing that is not remembered already."""
        if findings.night == self.last_night:
            return WEIGHT[letter] <= WEIGHT[self.strip[-1]]
        return findings.night < self.last_night


def memory_of(issue: ApiIssue) -> IssueMemory | None:
    """What the issue remembers; None where somebody has edited that away, so that it begins anew."""
    found = STATE.search(issue.body or "")
    try:
        return msgspec.json.decode(found[1], type=IssueMemory) if found else None
    except msgspec.DecodeError:
        return None


def remembering(
    before: IssueMemory | None,
    letter: str,
    findings: NightFindings,
    members: Iterable[str],
    cause: RedCause | None,
) -> IssueMemory:
    """The memory after a night, maybe the last one again; `cause` is what was red, None for no single one."""
    blame = cause.blame if cause else None
    everybody = {*(before.members if before else ()), *members}
    red_with = _newest_baseline(everybody, findings) if letter == RED else None
    strip = before.strip if before else ""
    if before and before.last_night == findings.night:
        strip = strip[:-1]
    return IssueMemory(
        first_red=before.first_red if before else findings.night,
        last_run=findings.run,
        last_night=findings.night,
        strip=f"{strip}{letter}"[-STRIP:],
        members=tuple(sorted(everybody)),
        metric=before.metric if before else cause.metric if cause else None,
        blame=blame or (before.blame if before else None),
        platform=before.platform if before else None,
        baseline_of=red_with or (before.baseline_of if before else None),
    )


def _newest_baseline(case_ids: Collection[str], findings: NightFindings) -> str | None:
    """When that of a case that is red tonight was recorded; None where none has one."""
    red = (each for each in findings.outcomes if each.case in case_ids and each.red)
    return max((each.baseline_of for each in red if each.baseline_of), default=None)


def fingerprint(*parts: str) -> str:
    """What a cause is found again by: twelve hex digits."""
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:12]


# What it says

OUTCOMES = {Status.REGRESSED: "regressed", Status.SURPRISE: "improved without explanation"}


def title(cause: RedCause) -> str:
    """The title of an issue about `cause`."""
    what = cause.status.value if cause.metric == BUILD else f"{cause.metric} {OUTCOMES[cause.status]}"
    return f"Performance: {cause.scheme} {cause.compile} on {cause.platform}: {what}"


UMBRELLA = "Performance: the host or the stack as a whole on {platform}"


def marked(mark: str, *parts: str) -> str:
    """The body of an issue that is found again by `mark`."""
    return "\n\n".join((f"<!-- perf-cause:v1 {mark} -->", *parts))


def body(mark: str, memory: IssueMemory, parts: Sequence[str]) -> str:
    """The body of an issue: its marks, then `parts`, then what is the same in all of them."""
    state = msgspec.json.encode(memory).decode()
    return marked(
        mark,
        f"<!-- perf-state {state} -->",
        *parts,
        f"Red since {memory.first_red}. Nights, the last one last (R red, g green, - says nothing): "
        f"`{memory.strip}`",
        "This text is written anew every night; it is closed after three nights in which each of its cases "
        "was measured and green.",
    )


def of_cause(cause: RedCause, findings: NightFindings) -> Iterator[str]:
    """What an issue says of a cause that is red tonight."""
    yield from (_whose(cause), _table(cause), _stack(findings))
    yield f"Reproduce: `pytest --perf-case '{cause.members[0].case}'`"
    yield from bisect_command.of_cause(cause, findings)


def of_umbrella(causes: Sequence[RedCause], why: str, findings: NightFindings) -> Iterator[str]:
    """What the issue says that stands for many causes."""
    yield f"{why}: no issues are opened for the single causes of tonight."
    if causes:
        listed = "\n".join(f"- {title(cause)}: {len(cause.members)} cases" for cause in causes[:MAX_ROWS])
        more = len(causes) - MAX_ROWS
        yield f"{listed}\n- and {more} more" if more > 0 else listed
    yield _stack(findings)


def of_controls(unmeasured: Sequence[str] | None) -> Iterator[str]:
    """What an issue says of controls without a result, None where there was no control; nothing where all
    have one."""
    if unmeasured is None:
        yield f"No {A_CONTROL} was measured. {NOBODY_KNOWS}"
    elif unmeasured:
        listed = ", ".join(f"`{each}`" for each in unmeasured)
        yield f"The {A_CONTROL} was not measured: {listed}. {NOBODY_KNOWS}"


def _whose(cause: RedCause) -> str:
    if cause.blame is None:
        return "Which package it comes from was not asked."
    if cause.whole is None or cause.torch is None or cause.torchao is None:
        return f"Which package it comes from: {cause.blame.value}."
    return (
        f"Which package it comes from: **{cause.blame.value}** (of {cause.whole:+.4g} torch with Triton "
        f"{cause.torch:+.4g}, torchao {cause.torchao:+.4g})."
    )


def _table(cause: RedCause) -> str:
    changes = sorted(cause.members, key=lambda each: -abs(each.change_pct or 0.0))
    rows = [
        f"| `{each.case}` | {'-' if each.change_pct is None else f'{each.change_pct:+.2f} %'} |"
        for each in changes[:MAX_ROWS]
    ]
    more = len(changes) - MAX_ROWS
    return "\n".join(
        ("| case | change |", "|---|---|", *rows, *([f"| and {more} more | |"] if more > 0 else []))
    )


def _stack(findings: NightFindings) -> str:
    named = ", ".join(f"{name} `{version}`" for name, version in sorted(findings.packages.items()))
    commits = ", ".join(f"{name} `{commit}`" for name, commit in sorted(findings.commits.items()))
    built = f"; commits: {commits}" if commits else ""
    return f"Night of {findings.night}: {named or 'no worker was ready'}{built}."
