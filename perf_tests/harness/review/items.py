"""What a review asks about: each case whose numbers would change, the largest change first."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from perf_tests.harness.baselines import files
from perf_tests.harness.baselines.entry import Accepted, find_accepted
from perf_tests.harness.processes.plain_text import harmless
from perf_tests.harness.rebaseline import store
from perf_tests.harness.rebaseline.candidates import CASES
from perf_tests.harness.rebaseline.pooling import Pool
from perf_tests.harness.rebaseline.proposal import Change, Proposal
from perf_tests.harness.report.terminal import aligned
from perf_tests.harness.report.wording import flat, format_change, format_value
from perf_tests.harness.runs.record import Run
from perf_tests.tables.metrics.rows import UNITS
from perf_tests.tables.platforms import PLATFORM_BY_ID, Noise

NEW = "new"
UNMOVED = "no median moves"
MAX_CHANGES = 12
"""Metrics of one case that are shown; the largest changes first."""
HEAD = ("metric", "before", "now", "change", "since the first", "limit", "noise")
NO_NUMBER = "-"


@dataclass(frozen=True, kw_only=True, slots=True)
class ReviewItem:
    """A case whose entry would change. It is accepted as a whole: its numbers are of the same processes."""

    run: Run
    changes: tuple[Change, ...]
    """The largest first; empty where no median moves."""
    rests_on: str
    """How many processes, how far apart, on how busy a host."""
    replaced: Accepted | None
    """None for a case without a baseline."""
    folders: tuple[Path, ...]
    """Of the runs whose processes it holds."""
    fingerprint: tuple[str, ...]
    """The digests of those runs: a rejection is about these."""
    noise: Mapping[str, Noise]
    """Of the platform: metric -> how far processes of unchanged code lie apart."""

    @property
    def case(self) -> str:
        """Its id."""
        return self.run.id

    @property
    def kind(self) -> str:
        """What it has in common with others that one answer may be about."""
        if self.replaced is None:
            return NEW
        if not self.changes:
            return UNMOVED
        lead = self.changes[0]
        if lead.old is None or lead.new is None:
            return f"{lead.metric} {'appears' if lead.old is None else 'goes'}"
        return f"{lead.metric} {'up' if lead.new > lead.old else 'down'}"

    @property
    def size(self) -> float:
        """What items are sorted by, larger first; new ones come last."""
        if self.replaced is None or not self.changes:
            return -1.0 if self.changes else -2.0
        return _size(self.changes[0])


def _size(change: Change) -> float:
    """A change of percent; more than any for a count that was zero, and for a metric that appears or goes."""
    return math.inf if change.change_pct is None else abs(change.change_pct)


def items(proposal: Proposal, source: Pool, only_metric: str | None = None) -> tuple[ReviewItem, ...]:
    """The cases that `proposal`, which was made of `source`, would change, the largest change first.

    `only_metric`: those in which this metric changes. Raises BaselineError for a store that cannot be read.
    """
    changing = {*(change.case for change in proposal.changes), *proposal.unshown}
    noise = {
        platform: store.noise_in_force(proposal.root, PLATFORM_BY_ID[platform])
        for platform, _ in proposal.baselines
    }
    found = []
    for run in source.record.cases:
        if run.id not in changing:
            continue
        changes = sorted((each for each in proposal.changes if each.case == run.id), key=_size, reverse=True)
        if only_metric is None or any(change.metric == only_metric for change in changes):
            found.append(_item(proposal, source, run, tuple(changes), noise[run.platform]))
    return tuple(sorted(found, key=lambda item: item.size, reverse=True))


def _item(
    proposal: Proposal, source: Pool, run: Run, changes: tuple[Change, ...], noise: Mapping[str, Noise]
) -> ReviewItem:
    beginning = f"{run.id}: "
    told = (each.removeprefix(beginning) for each in proposal.accepted if each.startswith(beginning))
    before = files.read(proposal.root, run.platform, run.pipeline)
    origins = source.origins[run.id]
    return ReviewItem(
        run=run,
        changes=changes,
        rests_on=next(told, ""),
        replaced=find_accepted({run.pipeline: before}, CASES[run.id].case),
        folders=tuple(file.path if file.path.is_dir() else file.path.parent for file in origins),
        fingerprint=tuple(file.sha256 for file in origins),
        noise=noise,
    )


# In words


def described(item: ReviewItem, number: int, total: int) -> list[str]:
    """The lines that are shown of an item before it is asked about."""
    rows = [_row(item, change) for change in item.changes[:MAX_CHANGES]]
    table = [f"  {line}" for line in aligned([HEAD, *rows], right=HEAD[1:])] if rows else []
    more = len(item.changes) - MAX_CHANGES
    lines = [
        f"({number} of {total}) {item.case} on {item.run.platform}: {item.kind}",
        *table,
        *([f"  and {more} more metrics: `rebaseline.py diff` lists them"] if more > 0 else []),
        *(f"  {name:<10} {text}" for name, text in _remarks(item)),
    ]
    return [harmless(line) for line in lines]


def _row(item: ReviewItem, change: Change) -> tuple[str, ...]:
    unit = UNITS.get(change.metric, "")
    in_decibels = unit == "dB" and change.old is not None and change.new is not None
    noise = item.noise.get(change.metric)
    limit = next((each.limit for each in item.run.verdicts if each.metric == change.metric), None)
    moved = format_change(change.change_pct)
    if in_decibels and change.old is not None and change.new is not None:
        moved = f"{change.new - change.old:+.2f} dB"
    named = change.metric if change.instructions is None else f"{change.metric} [{change.instructions}]"
    return (
        named,
        format_value(change.old, unit),
        format_value(change.new, unit),
        moved,
        format_change(change.since_first_pct),
        format_value(limit, unit),
        NO_NUMBER if noise is None else f"{noise.sd_pct:.2g} %",
    )


def _remarks(item: ReviewItem) -> Iterator[tuple[str, str]]:
    if item.rests_on:
        yield "rests on", item.rests_on
    if item.replaced is not None:
        origin, entry = item.replaced.provenance, item.replaced.entry
        count = "1 process" if entry.processes == 1 else f"{entry.processes} processes"
        yield "replaces", f'{count} of {origin.recorded_at[:10]}: "{flat(origin.reason)}"'
    if pictures := _pictures(item):
        yield "pictures", pictures


def _pictures(item: ReviewItem) -> str:
    """The first capture with a picture that is there, as a pattern that matches what was drawn of it, too."""
    for folder in item.folders:
        for process in item.run.processes:
            for capture in process.captures:
                if (picture := folder / capture.image).is_file():
                    return str(picture.with_name(f"{picture.stem}*.png"))
    return ""


def as_markdown(found: Sequence[ReviewItem]) -> str:
    """A table of all changes, for the text of a pull request."""
    if not found:
        return "nothing changes\n"
    rows = [(item.case, *_row(item, change)) for item in found for change in item.changes if item.replaced]
    new = [item.case for item in found if item.replaced is None]
    head = ("case", *HEAD)
    lines = [_line(head), "|---|---|" + "---:|" * (len(head) - 2), *(_line(map(_code, row)) for row in rows)]
    parts = ["\n".join(lines)] if rows else []
    parts += [f"{len(new)} new: {', '.join(map(_code, new))}"] if new else []
    parts += ["\n".join(f"- {_code(item.case)}: {harmless(flat(item.rests_on))}" for item in found)]
    return "\n\n".join(parts) + "\n"


def commit_message(accepted: Sequence[tuple[ReviewItem, str]]) -> str:
    """A conventional commit message for what was accepted, each item with its reason."""
    platforms = ",".join(sorted({item.run.platform for item, _ in accepted}))
    reasons = dict.fromkeys(reason for _, reason in accepted)
    subject = next(iter(reasons)) if len(reasons) == 1 else f"{len(accepted)} cases, reviewed"
    parts = [f"baseline({platforms}): {subject}"]
    for reason in reasons:
        cases = [f"- {item.case}: {item.rests_on}" for item, given in accepted if given == reason]
        parts.append("\n".join(cases if len(reasons) == 1 else (f"{reason}:", *cases)))
    return "\n\n".join(parts)


def _line(cells: Sequence[str] | Iterator[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _code(text: str) -> str:
    """As code, in which nothing is markup, a mention or a link."""
    return f"`{harmless(flat(text)).replace('`', chr(39)).replace('|', chr(92) + '|')}`"
