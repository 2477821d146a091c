"""Why a session is red, cause by cause: cases that fail alike are explained once, by the worst of them."""

from __future__ import annotations

import re
import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from perf_tests.harness.attribution import symptoms
from perf_tests.harness.attribution.symptoms import IsGreen, Shown, Symptom, own_reason
from perf_tests.harness.report.wording import clipped, format_change, refitted
from perf_tests.harness.runs.record import Run, Status, Verdict
from perf_tests.harness.verdicts.case_status import SEVERITY

MAX_LINES = 13
"""Of the text that explains one cause; the whole text is in the JUnit file, and with `--perf-table=all`."""
LAST = 99
RANKS = {
    **{name: rank for rank, name in enumerate(("log", "evidence", "changed", "next", "schedule", "stacks"))},
    **dict.fromkeys(("accept", "record", "reproduce", "whose", "kernels", "memory"), LAST),
}
"""Parts of such a text, the lowest first to be left out where it is too long; others stand between."""
QUOTED = "    | "
MAX_QUOTED = 4
"""Lines of a worker's log."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Cause:
    """Cases that are red alike."""

    status: Status
    metric: str
    """The metric that leads; empty where cases could not be measured as asked, or any may be spoiled."""
    runs: tuple[Run, ...]
    """The worst first."""
    shown: Mapping[str, Sequence[Verdict]] = field(default_factory=dict)
    """Case id -> the verdicts that show it, the leading one first; empty where cases could not be measured as
    asked."""

    @property
    def is_new(self) -> bool:
        """Whether all that is wrong is that nothing was recorded yet."""
        return self.status is Status.NO_BASELINE

    def verdict(self, run: Run) -> Verdict | None:
        """What shows it first of all on `run`; None where the case could not be measured as asked."""
        return next(iter(self.shown.get(run.id, ())), None)

    def title(self) -> str:
        """What is red, in how many cases and by how much."""
        cases = f"{len(self.runs)} {'case' if len(self.runs) == 1 else 'cases'}"
        changes = [v.change_pct for v in self._leading() if v.change_pct is not None]
        spread = ""
        if changes:
            ends = dict.fromkeys(format_change(each) for each in (min(changes), max(changes)))
            spread = " to ".join(ends)
        what = " ".join(filter(None, (self.metric, self.status.value)))
        return ", ".join(filter(None, (f"{what}: {cases}", spread, self._what_spoils())))

    def also(self) -> str:
        """The other metrics that show it, each with how many cases it is red in; empty without."""
        others = (v.metric for verdicts in self.shown.values() for v in verdicts if v.metric != self.metric)
        counts = Counter(others if self.metric else ())
        return ", ".join(f"{metric} ({count})" for metric, count in counts.most_common())

    def _leading(self) -> list[Verdict]:
        """One of each case that the leading metric shows it in."""
        found = (self.verdict(run) for run in self.runs)
        return [v for v in found if v is not None and v.metric == self.metric]

    def _what_spoils(self) -> str:
        """What spoils any metric, such as a throttled GPU; empty where one leads."""
        worst = self.runs[0]
        verdict = None if self.metric or self.is_new else self.verdict(worst)
        return own_reason(worst, verdict).partition(":")[0] if verdict else ""


def causes(runs: Sequence[Run], is_green: IsGreen) -> tuple[Cause, ...]:
    """What is red, the worst first. A case may be red for several causes."""
    by_id = {run.id: run for run in runs}
    found = [_cause(*group, by_id) for group in symptoms.groups(runs, is_green)]
    return tuple(sorted(found, key=lambda cause: (SEVERITY.index(cause.status), -len(cause.runs))))


def _cause(symptom: Symptom, shown: Shown, runs: Mapping[str, Run]) -> Cause:
    def badness(case_id: str) -> tuple[bool, float]:
        verdict = next(iter(shown[case_id]), None)
        if verdict is None:
            return True, 0.0
        return verdict.metric == symptom.metric, abs(verdict.change_pct or 0.0)

    ids = sorted(shown, key=badness, reverse=True)
    return Cause(
        status=symptom.status, metric=symptom.metric, runs=tuple(runs[each] for each in ids), shown=shown
    )


def explained(number: int, cause: Cause, text: str, width: int) -> list[str]:
    """The lines about one cause: its title, the explanation of its worst case, what else is red there.

    No line is longer than `width`; commands are continued with a backslash, so that they can be copied.
    """
    also = cause.also()
    lines = _cut(_shortened([line for each in text.splitlines() for line in refitted(each, width)]))
    return [
        clipped(f"[{number}] {cause.title()}", width),
        *(clipped(line, width) for line in lines),
        *([clipped(f"  also red   {also}", width)] if also else []),
    ]


def titled(number: int, cause: Cause, width: int) -> list[str]:
    """One line about a cause that is not explained, with the worst of its cases."""
    return [clipped(f"[{number}] {cause.title()}, the worst {cause.runs[0].id}", width)]


def _shortened(lines: Sequence[str]) -> list[str]:
    """Without the lines of a worker's log, except the last ones."""
    of_log = [number for number, line in enumerate(lines) if line.startswith(QUOTED)]
    left_out = set(of_log[:-MAX_QUOTED])
    return [line for number, line in enumerate(lines) if number not in left_out]


def _cut(lines: Sequence[str]) -> list[str]:
    """At most `MAX_LINES` of the explanation of one cause: what to do stays, whatever else is cut."""
    surplus = len(lines) - MAX_LINES + 1
    if surplus <= 1:
        return list(lines)
    parts = _parts(lines)
    # The end of a part goes before its beginning, and of parts of the same rank the last.
    by_rank = sorted(range(len(lines)), key=lambda n: (RANKS.get(parts[n], LAST - 1), -n))
    dropped = {*by_rank[:surplus]}
    more = f"  and {surplus} more lines with --perf-table=all, and in the JUnit file"
    return [*(line for n, line in enumerate(lines) if n not in dropped), more]


def _parts(lines: Sequence[str]) -> list[str]:
    """For each line the first word of its part, which begins two columns from the edge."""
    parts, part = [], ""
    for line in lines:
        if begins := re.match(r"  (\w+)", line):
            part = begins[1]
        parts.append(part)
    return parts


def rolled_up(cause: Cause, run_path: str, width: int) -> list[str]:
    """One line on the cases without a baseline, and the command that records them all."""
    pipelines = Counter(run.pipeline for run in cause.runs)
    names = ", ".join(f"{pipeline} ({count})" for pipeline, count in pipelines.most_common())
    count = len(cause.runs)
    apply = f"python tools/rebaseline.py apply {shlex.quote(run_path)}"
    return [
        clipped(f"{count} {'case has' if count == 1 else 'cases have'} no baseline: {names}", width),
        *refitted(f'  record     {apply} --only-new --reason "..." --write', width),
    ]


def counts(runs: Sequence[Run], found: Sequence[Cause]) -> str:
    """How many cases are green, and how many are not, in one sentence."""
    new = sum(len(cause.runs) for cause in found if cause.is_new)
    not_run = sum(len(cause.runs) for cause in found if cause.status is Status.NOT_RUN)
    bad = [cause for cause in found if not cause.is_new and cause.status is not Status.NOT_RUN]
    of_bad = len({run.id for cause in bad for run in cause.runs})
    explained = {run.id for cause in found for run in cause.runs}
    # Of a session that ended before all their verdicts were given.
    undecided = sum(run.status is Status.INCONCLUSIVE for run in runs if run.id not in explained)
    one = len(bad) == 1
    parts = (
        (len(runs) - new - not_run - of_bad - undecided, "green"),
        (of_bad, f"red for {len(bad)} {'cause' if one else 'causes'}"),
        (new, "without a baseline"),
        (not_run, "not run"),
        (undecided, "not judged to the end"),
    )
    said = ", ".join(f"{count} {what}" for count, what in parts if count)
    return f"{len(runs)} {'case' if len(runs) == 1 else 'cases'}: {said}"
