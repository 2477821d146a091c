"""What a session says at its end where nobody asks for everything: never more lines than people read."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from perf_tests.harness.report.terminal import Line

MAX_LINES = 285
"""Of what a session says at its end, missing verdicts included: with pytest's own lines, under 300."""
EVERYTHING = 1_000_000
"""More lines than there can be."""
MAX_BYTES = 900_000
"""Of the page of a job; GitHub refuses one of more than 1 MiB."""

Paragraph = Sequence[str]
"""Lines; an empty paragraph is not printed."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Detail:
    """How much is said of what. Each case that is red or has moved has a line of its own in any case."""

    remarks: int
    """Lines about the session as a whole."""
    further: int
    """Lines for further metrics of cases that have one already; where they are more, there is none."""
    green: bool
    """Whether each case that is green and has not moved has a line."""
    explained: int
    """Causes that are explained, by the worst of their cases."""
    titled: int
    """Further causes that have a line."""


DETAILS = (
    Detail(remarks=EVERYTHING, further=20, green=True, explained=6, titled=EVERYTHING),
    Detail(remarks=16, further=0, green=True, explained=6, titled=EVERYTHING),
    Detail(remarks=16, further=0, green=False, explained=6, titled=EVERYTHING),
    Detail(remarks=16, further=0, green=False, explained=6, titled=20),
    Detail(remarks=16, further=0, green=False, explained=3, titled=0),
    Detail(remarks=16, further=0, green=False, explained=1, titled=0),
)
"""From the most to the least. With the least, 208 red cases fit, each for a cause of its own."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Brief:
    """What a session says at its end."""

    title: str
    """How many cases are green, and how many are not."""
    remarks: Paragraph
    """About the session as a whole."""
    table: Sequence[Line]
    causes: Sequence[Paragraph]
    """The lines about each cause, its title first; then those about cases without a baseline or not run."""

    @property
    def length(self) -> int:
        """How many lines the terminal shows: with a blank one after each paragraph, and the heading of the
        causes."""
        of_causes = sum(1 + (len(lines) + 1 if lines else 0) for _, *lines in self.causes)
        paragraphs = (len(self.remarks) + 1 if self.remarks else 0, len(self.table), of_causes)
        return sum(paragraphs) + bool(self.causes) + len((self.title, ""))

    def as_lines(self) -> Iterator[str]:
        """The same as plain text, with what counts most at its end."""
        yield from (*self.remarks, "", *(line.text for line in self.table), "")
        for cause in self.causes:
            yield from (*cause, "")
        yield self.title

    def as_markdown(self) -> str:
        """The same for the page of a job: it begins with what is red."""
        parts = [
            f"## Performance: {self.title}",
            *(f"### {heading}\n\n{_verbatim(lines)}".rstrip() for heading, *lines in self.causes),
            *self.remarks,
        ]
        if self.table:
            cases = _verbatim([line.text for line in self.table])
            parts.append(f"<details><summary>All cases</summary>\n\n{cases}\n\n</details>")
        text = "\n\n".join(parts)
        return text.encode()[:MAX_BYTES].decode(errors="ignore") + "\n"


def fitting(say: Callable[[Detail], Brief], most: int) -> Brief:
    """What is said with the most detail in at most so many lines; with the least detail where none fits."""
    for detail in DETAILS:
        brief = say(detail)
        if brief.length <= most:
            break
    return brief


def cut(lines: Sequence[str], most: int) -> list[str]:
    """The first `most` of the lines; the last of these says how many there are more."""
    if len(lines) <= most:
        return list(lines)
    return [*lines[: most - 1], f"and {len(lines) - most + 1} more lines with --perf-table=all"]


def _verbatim(lines: Sequence[str]) -> str:
    return "\n".join(("```text", *lines, "```")) if lines else ""
