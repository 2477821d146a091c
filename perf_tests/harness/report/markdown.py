"""The summary of a session as Markdown, such as the page of a CI job shows."""

from __future__ import annotations

from collections.abc import Sequence

MAX_BYTES = 900_000
"""Of one summary; GitHub refuses a step summary of more than 1 MiB."""


def summary(
    title: str, sentences: Sequence[str], causes: Sequence[Sequence[str]], table: Sequence[str]
) -> str:
    """Markdown that begins with what is red: `causes` are the lines about each, its title first; `sentences`
    and `table` follow."""
    parts = [
        f"## Performance: {title}",
        *(f"### {heading}\n\n{_verbatim(lines)}" for heading, *lines in causes),
        *sentences,
        f"<details><summary>All cases</summary>\n\n{_verbatim(table)}\n\n</details>" if table else "",
    ]
    text = "\n\n".join(filter(None, parts))
    return text.encode()[:MAX_BYTES].decode(errors="ignore") + "\n"


def _verbatim(lines: Sequence[str]) -> str:
    return "\n".join(("```text", *lines, "```")) if lines else ""
