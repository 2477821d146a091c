"""Ours beside the published tables, in words."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from perf_tests.harness.compare.published import Comparison, Outcome, Pair
from perf_tests.harness.report.terminal import Row, aligned
from perf_tests.tables.published import (
    DIFFERENCES,
    MAX_LATENCY_RATIO,
    MAX_MODEL_MEMORY_DIFFERENCE_PCT,
    Explanation,
)

HEADER = (
    *("case", "published on"),
    *("s ours", "theirs", "ratio"),
    *("model GiB ours", "theirs", "ratio"),
    *("peak GiB ours", "theirs", "ratio"),
    "notes",
)
NUMBERS = frozenset(HEADER[2:-1])


def lines(outcome: Outcome) -> list[str]:
    """The table, its footnotes, the differences of definition, what was left out, and the summary."""
    footnotes = _footnotes(outcome.compared)
    return [
        *_table(outcome.compared, footnotes),
        *(f"[{number}] {_explained(each)}" for each, number in footnotes),
        *_differences(outcome.compared),
        *(f"not compared: {case}: {why}" for case, why in outcome.refused.items()),
        _summary(outcome),
    ]


def _table(compared: Sequence[Comparison], footnotes: Sequence[tuple[Explanation, int]]) -> list[str]:
    if not compared:
        return []
    return aligned([HEADER, *(_row(each, footnotes) for each in compared)], right=NUMBERS)


def _row(each: Comparison, footnotes: Sequence[tuple[Explanation, int]]) -> Row:
    pairs = (each.latency_s, each.model_memory_gib, each.peak_memory_gib)
    numbers = (cell for pair in pairs for cell in _cells(pair))
    return (each.case, each.row.gpu, *numbers, ", ".join(_notes(each, footnotes)))


def _cells(pair: Pair) -> tuple[str, str, str]:
    return (_number(pair.ours), _number(pair.theirs), _number(pair.ratio))


def _number(value: float | None) -> str:
    # Three decimals, as they were published.
    return "-" if value is None else f"{value:.3f}"


def _notes(each: Comparison, footnotes: Sequence[tuple[Explanation, int]]) -> list[str]:
    return [
        *(["projected"] if each.projected else []),
        *([] if each.same_gpu else ["another GPU"]),
        *(f"UNEXPLAINED {of}" for of in each.unexplained),
        *(f"[{number}]" for explanation, number in footnotes if explanation in each.exceeded.values()),
    ]


def _footnotes(compared: Iterable[Comparison]) -> list[tuple[Explanation, int]]:
    """The explanations in use, numbered in the order of their first row."""
    used: list[Explanation] = []
    for each in compared:
        used += [why for why in each.exceeded.values() if why is not None and why not in used]
    return [(why, number) for number, why in enumerate(used, start=1)]


def _explained(each: Explanation) -> str:
    return f"{each.of}: {each.text}" + (f" ({each.link})" if each.link else "")


def _differences(compared: Sequence[Comparison]) -> list[str]:
    shown = [each for each in DIFFERENCES if any(each.applies(one.row) for one in compared)]
    return [f"differs: {each.subject}: theirs {each.theirs}; ours {each.ours}" for each in shown]


def _summary(outcome: Outcome) -> str:
    judged = sum(each.same_gpu for each in outcome.compared)
    limits = (
        f"latency above {MAX_LATENCY_RATIO:g} times on the same GPU model, "
        f"model memory off by more than {MAX_MODEL_MEMORY_DIFFERENCE_PCT:g} %"
    )
    return (
        f"{len(outcome.compared)} rows compared, {judged} of them on the same GPU model, "
        f"{outcome.unpublished} measured cases without a published row; "
        f"unexplained ({limits}): {len(outcome.unexplained)}"
    )
