"""The conversation of a review: one case at a time, and nothing is written that was not accepted."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from perf_tests.harness.review.items import ReviewItem, described


class Choice(StrEnum):
    """What may be answered, as in `git add -p`."""

    ACCEPT = "y"
    REJECT = "n"
    SKIP = "s"
    ALL = "a"
    QUIT = "q"
    HELP = "?"


MEANINGS = {
    Choice.ACCEPT: "accept: write these numbers as the baseline of the case",
    Choice.REJECT: "reject: the numbers are wrong; a later review of the same run does not ask again",
    Choice.SKIP: "skip: a later review asks again",
    Choice.ALL: "accept this and all later ones of its kind",
    Choice.QUIT: "quit: what was accepted is written, the rest stays as it is",
    Choice.HELP: "this help",
}
QUESTION = f"accept? [{','.join(Choice)}] "
WHY = "why are the new numbers right? (empty: back) "

Accept = Callable[[ReviewItem, str], str | None]
"""Writes an item with a reason; None, or why it was not written."""


@dataclass(kw_only=True)
class Reviewed:
    """How a review went."""

    accepted: list[tuple[ReviewItem, str]] = field(default_factory=list)
    """With the reason of each, in the order of the answers."""
    rejected: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    refused: dict[str, str] = field(default_factory=dict)
    """Case id -> why it could not be accepted, although somebody wanted it."""
    left: int = 0
    """Cases that nobody was asked about before the review ended."""

    def summary(self) -> str:
        """How many were answered in which way."""
        counts = (
            (len(self.accepted), "accepted"),
            (len(self.rejected), "rejected"),
            (len(self.skipped), "skipped"),
            (len(self.refused), "could not be accepted"),
            (self.left, "left"),
        )
        return ", ".join(f"{count} {what}" for count, what in counts if count) or "nothing was asked"


@dataclass(frozen=True, kw_only=True, slots=True)
class Dialogue:
    """Where questions go, and what becomes of the answers."""

    ask: Callable[[str], str]
    """Raises EOFError or KeyboardInterrupt where nobody answers any more, which means to quit."""
    say: Callable[[str], None]
    accept: Accept
    reject: Callable[[ReviewItem], None]

    def review(self, found: Sequence[ReviewItem]) -> Reviewed:
        """Ask about each item in turn; returns what became of them, also where the review was ended early."""
        reviewed, reasons = Reviewed(), dict[str, str]()
        waved_through: set[str] = set()
        for number, item in enumerate(found, start=1):
            try:
                self._about(item, number, len(found), reviewed, reasons, waved_through)
            except (EOFError, KeyboardInterrupt):
                self.say("")
                reviewed.left = len(found) - number + 1
                break
        return reviewed

    def _about(
        self,
        item: ReviewItem,
        number: int,
        total: int,
        reviewed: Reviewed,
        reasons: dict[str, str],
        waved_through: set[str],
    ) -> None:
        for line in described(item, number, total):
            self.say(line)
        if item.kind in waved_through:
            self._write(item, reasons[item.kind], reviewed)
            return
        choice, reason = self._answered(item, reasons)
        if choice is Choice.REJECT:
            self.reject(item)
            reviewed.rejected.append(item.case)
        elif choice is Choice.SKIP:
            reviewed.skipped.append(item.case)
        else:
            reasons[item.kind] = reason
            if choice is Choice.ALL:
                waved_through.add(item.kind)
            self._write(item, reason, reviewed)

    def _answered(self, item: ReviewItem, reasons: dict[str, str]) -> tuple[Choice, str]:
        """An answer that decides something, and the reason of one that accepts. Raises EOFError to quit."""
        while True:
            answer = self.ask(QUESTION).strip().lower()
            if answer not in [each.value for each in Choice] or answer == Choice.HELP:
                for choice, meaning in MEANINGS.items():
                    self.say(f"  {choice} - {meaning}")
                continue
            choice = Choice(answer)
            if choice is Choice.QUIT:
                raise EOFError
            if choice in (Choice.REJECT, Choice.SKIP):
                return choice, ""
            if reason := reasons.get(item.kind) or self.ask(WHY).strip():
                return choice, reason

    def _write(self, item: ReviewItem, reason: str, reviewed: Reviewed) -> None:
        why = self.accept(item, reason)
        if why is None:
            reviewed.accepted.append((item, reason))
            self.say(f"  accepted: {reason}")
        else:
            reviewed.refused[item.case] = why
            self.say(f"  not accepted: {why}")
