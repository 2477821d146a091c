"""A run compared with the published tables, in words."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from perf_tests.harness.compare.published import PublishedComparison, PublishedMatch, PublishedQuantity
from perf_tests.harness.compare.published_page import PageLine
from perf_tests.harness.report.terminal import Cells, aligned
from perf_tests.tables.published import (
    DIFFERENCES,
    MAX_LATENCY_RATIO,
    MAX_MODEL_MEMORY_DIFFERENCE_PCT,
    Explanation,
    PublishedRow,
)

HEADER = (
    *("case", "published on"),
    *("s ours", "theirs", "ratio"),
    *("model GiB ours", "theirs", "ratio"),
    *("peak GiB ours", "theirs", "ratio"),
    "notes",
)
NUMBERS = frozenset(HEADER[2:-1])
PAGE_HEADER = ("beside the tables", "", "published on", "ours", "theirs", "ratio", "", "notes")
PAGE_NUMBERS = frozenset({"ours", "theirs", "ratio"})


def lines(comparison: PublishedComparison, *, every_row: bool = False) -> list[str]:
    """The table, its footnotes, the differences in definition, what was not compared, and the summary.

    With `every_row`, the table ends with the published rows that the run holds no case of.
    """
    footnotes = _footnotes(comparison.matches)
    unmeasured = map(_unmeasured_row, comparison.unmeasured) if every_row else ()
    return [
        *_table([*(_row(match, footnotes) for match in comparison.matches), *unmeasured]),
        *(f"[{number}] {_explained(each)}" for each, number in footnotes),
        *_differences(comparison.matches),
        *(f"not compared: {case}: {why}" for case, why in comparison.not_compared.items()),
        _summary(comparison),
    ]


def _table(rows: Sequence[Cells]) -> list[str]:
    return aligned([HEADER, *rows], right=NUMBERS) if rows else []


def _row(match: PublishedMatch, footnotes: Sequence[tuple[Explanation, int]]) -> Cells:
    quantities = (match.latency_s, match.model_memory_gib, match.peak_memory_gib)
    numbers = (cell for quantity in quantities for cell in _cells(quantity))
    return (match.case, match.row.gpu, *numbers, ", ".join(_notes(match, footnotes)))


def _unmeasured_row(row: PublishedRow) -> Cells:
    theirs = (row.latency_s, row.model_memory_gib, row.peak_memory_gib)
    cells = (cell for value in theirs for cell in _cells(PublishedQuantity(ours=None, theirs=value)))
    subject = row.case or f"{row.pipeline} {row.scheme}"
    return (subject, row.gpu, *cells, row.reason or "not in this run")


def _cells(quantity: PublishedQuantity) -> tuple[str, str, str]:
    return (_number(quantity.ours), _number(quantity.theirs), _number(quantity.ratio))


def _number(value: float | None) -> str:
    # Three decimals, like the published numbers.
    return "-" if value is None else f"{value:.3f}"


def _notes(match: PublishedMatch, footnotes: Sequence[tuple[Explanation, int]]) -> list[str]:
    return [
        *(["projected"] if match.projected else []),
        *([] if match.same_gpu else ["another GPU"]),
        *(f"UNEXPLAINED {of}" for of in match.unexplained),
        *(f"[{number}]" for explanation, number in footnotes if explanation in match.exceeded.values()),
    ]


def _footnotes(matches: Iterable[PublishedMatch]) -> list[tuple[Explanation, int]]:
    """The explanations in use, numbered in the order in which the table first refers to them."""
    used: list[Explanation] = []
    for match in matches:
        used += [why for why in match.exceeded.values() if why is not None and why not in used]
    return [(why, number) for number, why in enumerate(used, start=1)]


def _explained(each: Explanation) -> str:
    return f"{each.of}: {each.text}" + (f" ({each.link})" if each.link else "")


def _differences(matches: Sequence[PublishedMatch]) -> list[str]:
    shown = [each for each in DIFFERENCES if any(each.applies(match.row) for match in matches)]
    return [f"differs: {each.subject}: theirs {each.theirs}; ours {each.ours}" for each in shown]


def _summary(comparison: PublishedComparison) -> str:
    judged = sum(match.same_gpu for match in comparison.matches)
    limits = (
        f"latency above {MAX_LATENCY_RATIO:g} times on the same GPU model, "
        f"model memory off by more than {MAX_MODEL_MEMORY_DIFFERENCE_PCT:g} %"
    )
    return (
        f"{len(comparison.matches)} rows compared, {judged} of them on the same GPU model, "
        f"{comparison.unpublished} measured cases without a published row, "
        f"{len(comparison.unmeasured)} published rows without a measured case (--every-row lists them); "
        f"unexplained ({limits}): {len(comparison.unexplained)}"
    )


# What the page says beside its tables


def page_lines(page: Sequence[PageLine]) -> list[str]:
    """A line for each figure with ours beside it, and footnotes: why there is none of ours, what differs."""
    footnotes = list(dict.fromkeys(note for line in page for note in _page_footnotes(line)))
    rows = [_page_row(line, footnotes) for line in page]
    measured = sum(line.ours is not None for line in page)
    return [
        *aligned([PAGE_HEADER, *rows], right=PAGE_NUMBERS),
        *(f"({number}) {text}" for number, text in enumerate(footnotes, start=1)),
        f"{len(page)} figures and claims beside the tables, {measured} with ours; none of them is judged",
    ]


def _page_row(line: PageLine, footnotes: Sequence[str]) -> Cells:
    figure = line.figure
    notes = [
        *(["projected"] if line.projected else []),
        *(["another GPU"] if line.ours is not None and not line.same_gpu else []),
        *(f"({footnotes.index(note) + 1})" for note in _page_footnotes(line)),
    ]
    return (
        *(figure.chapter, figure.text, figure.gpu or "-"),
        *(_number(line.ours), _number(figure.theirs), _number(line.ratio)),
        *(figure.unit or "", ", ".join(notes)),
    )


def _page_footnotes(line: PageLine) -> tuple[str, ...]:
    return tuple(filter(None, (line.why and f"none of ours: {line.why}", line.figure.remark)))
