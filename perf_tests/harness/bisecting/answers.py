"""What a search has found, in lines for the terminal."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from perf_tests.harness.bisecting import search
from perf_tests.harness.bisecting.search import BisectAnswer, Bracket
from perf_tests.harness.bisecting.state import BisectState
from perf_tests.protocol.errors import UsageError

FIELDS = "{before}, {after}, {before_commit} and {after_commit}"
SHOWN_PACKAGES = 8


@dataclass(frozen=True, kw_only=True, slots=True)
class CompareUrl:
    """Where the changes between two versions are shown."""

    template: str = ""
    """With fields in braces; empty for none."""

    def __post_init__(self) -> None:
        """Raises UsageError for other fields than there are."""
        try:
            self.template.format(before="", after="", before_commit="", after_commit="")
        except (LookupError, ValueError, AttributeError):
            raise UsageError(f"{self.template!r}: use no fields but {FIELDS}") from None

    def of(self, found: BisectState, bracket: Bracket) -> str:
        """The address for a bracket; empty where there is none, or it takes a commit that is not known."""
        commits = {end: found.points[getattr(bracket, end)].commit for end in ("before", "after")}
        if "_commit}" in self.template and not all(commits.values()):
            return ""
        named = {f"{end}_commit": commit for end, commit in commits.items()}
        return self.template.format(before=bracket.before, after=bracket.after, **named)


def lines(found: BisectState, url: CompareUrl) -> Iterator[str]:
    """The answer, or what is known of it by now; nothing before both ends are known."""
    question, points = found.question, found.points
    good, bad = question.items[0], question.items[-1]
    if not {good, bad} <= points.keys():
        return
    match search.answer(question, points):
        case BisectAnswer.NO_GOOD_END:
            yield f"no good end: {good} {_as(found, good)}"
        case BisectAnswer.NOT_REPRODUCED:
            levels = f"{bad} {_as(found, bad)}, {good} {_as(found, good)}"
            if question.bad_value is None and points[bad].value is not None:
                yield f"the ends do not differ: {levels}; --bad-value says which of them is not as expected"
            else:
                yield f"does not reproduce: {levels}"
        case BisectAnswer.STEPS:
            so_far = "" if search.next_item(question, points) is None else "so far: "
            for bracket in search.brackets(question, points):
                address = url.of(found, bracket)
                yield f"{so_far}{'; '.join(_said(bracket))}{address and f' {address}'}"


def _as(found: BisectState, item: str) -> str:
    point = found.points[item]
    return f"cannot be measured: {point.reason}" if point.value is None else f"is {point.value:g}"


def _said(bracket: Bracket) -> Iterator[str]:
    yield f"{bracket.before} -> {bracket.after}: {bracket.change:+g}"
    if bracket.skipped:
        yield f"skipped between them: {', '.join(bracket.skipped)}"
    if bracket.not_tried:
        yield f"not tried between them: {bracket.not_tried}"
    if bracket.also_changed:
        changed = [f"{name} {versions}" for name, versions in bracket.also_changed.items()]
        more = f" and {len(changed) - SHOWN_PACKAGES} more" if len(changed) > SHOWN_PACKAGES else ""
        yield f"also different, pin it with --pins: {', '.join(changed[:SHOWN_PACKAGES])}{more}"
