"""Why a session is red, cause by cause: cases that fail alike are explained once, by the worst of them."""

from __future__ import annotations

import re
import shlex
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from perf_tests.harness.report.wording import clipped, flat, format_change, refitted
from perf_tests.harness.runs.record import Run, Status, Verdict
from perf_tests.harness.verdicts.case_status import SEVERITY, leading

MAX_LINES = 13
"""Of the text that explains one cause; the whole text is in the JUnit file, and with `--perf-table=all`."""
LAST = 99
RANKS = {
    **{name: rank for rank, name in enumerate(("log", "changed", "next", "schedule", "stacks"))},
    **dict.fromkeys(("accept", "record", "reproduce", "whose"), LAST),
}
"""Parts of such a text, the lowest first to be left out where it is too long; others stand between."""
QUOTED = "    | "
MAX_QUOTED = 4
"""Lines of a worker's log."""
VARYING = re.compile(r"\S*/\S*|\d[\d.,]*")
"""What differs between two messages about the same thing: paths and numbers."""

IsGreen = Callable[[Run], bool]
"""Whether measuring a run ended in a way that leaves the session green; its verdicts do not count."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Cause:
    """Cases that are red alike."""

    status: Status
    metric: str
    """The metric that leads; empty where the cases could not be measured as asked."""
    runs: tuple[Run, ...]
    """The worst first."""

    @property
    def is_new(self) -> bool:
        """Whether all that is wrong is that nothing was recorded yet."""
        return self.status is Status.NO_BASELINE

    def title(self) -> str:
        """What is red, in how many cases and by how much."""
        cases = f"{len(self.runs)} {'case' if len(self.runs) == 1 else 'cases'}"
        changes = [v.change_pct for v in map(_lead, self.runs) if v is not None and v.change_pct is not None]
        spread = ""
        if changes:
            low, high = min(changes), max(changes)
            spread = format_change(low) if low == high else f"{format_change(low)} to {format_change(high)}"
        what = " ".join(filter(None, (self.metric, self.status.value)))
        return ", ".join(filter(None, (f"{what}: {cases}", spread)))

    def also(self) -> str:
        """The other red metrics of these cases, each with how many of them it is red in; empty without."""
        counts = Counter(v.metric for run in self.runs for v in red(run) if v.metric != self.metric)
        return ", ".join(f"{metric} ({count})" for metric, count in counts.most_common())


def red(run: Run) -> list[Verdict]:
    """The red verdicts of a case, the leading one first."""
    return [verdict for verdict in leading(run.verdicts) if not verdict.status.is_green]


def causes(runs: Iterable[Run], is_green: IsGreen) -> tuple[Cause, ...]:
    """What is red, the worst first; each red case is in one of them, that of its worst verdict."""
    found: dict[tuple[Status, str, str], list[Run]] = {}
    for run in runs:
        if not is_green(run):
            found.setdefault((run.status, "", _alike(run)), []).append(run)
        elif verdict := _lead(run):
            metric = "" if verdict.status is Status.NO_BASELINE else verdict.metric
            found.setdefault((verdict.status, metric, ""), []).append(run)
    grouped = (
        Cause(status=status, metric=metric, runs=tuple(sorted(alike, key=_badness, reverse=True)))
        for (status, metric, _), alike in found.items()
    )
    return tuple(sorted(grouped, key=lambda cause: (SEVERITY.index(cause.status), -len(cause.runs))))


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
    of_bad = sum(len(cause.runs) for cause in bad)
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


def _lead(run: Run) -> Verdict | None:
    return next(iter(red(run)), None)


def _badness(run: Run) -> float:
    verdict = _lead(run)
    return abs(verdict.change_pct) if verdict and verdict.change_pct is not None else 0.0


def _alike(run: Run) -> str:
    """The reason of a failure without what differs from case to case."""
    phase = run.failure.phase.value if run.failure else ""
    message = flat(run.failure.message if run.failure else run.reason)
    return f"{phase} {VARYING.sub('#', message.replace(run.id, '#').replace(run.pipeline, '#'))}"
