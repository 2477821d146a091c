"""Actions, carried out through the API one after the other, or printed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import date

from perf_tests.harness.telling.actions import Action, ActionKind
from perf_tests.harness.telling.github import GitHub

STATE = {ActionKind.UPDATE: None, ActionKind.CLOSE: "closed", ActionKind.REOPEN: "open"}


def send(actions: Sequence[Action], github: GitHub, since: date) -> Iterator[str]:
    """Carry the actions out; yields what was done, as it is done.

    A comment that was made since then already is not repeated. Raises GitHubError at the first action that
    is refused: those before it stand, and sending all of them again does only what is left.
    """
    if any(action.kind is ActionKind.CREATE for action in actions):
        github.ensure_label()
    for action in actions:
        if action.number is None:
            number = github.create(action.mark, action.title, action.body)
        else:
            number = action.number
            if action.comment:
                github.comment(number, action.comment, since)
            github.update(number, action.body, STATE[action.kind])
        yield f"{action.kind} #{number} {action.title}"


def said(action: Action) -> str:
    """What a dry run prints of an action."""
    which = f"#{action.number}" if action.number else f'"{action.title}"'
    comment = f"comment: {action.comment}" if action.comment else ""
    return "\n".join(filter(None, (f"{action.kind} {which}", comment, action.body)))
