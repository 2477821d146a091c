"""The numbers of a run for other tools: as CSV, for a pull request, and the schema of run.json."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence

import msgspec

from perf_tests.harness.page.marks import Kind
from perf_tests.harness.page.pages import page_of
from perf_tests.harness.page.sources import PageSources
from perf_tests.harness.page.view import PageCase
from perf_tests.harness.processes.plain_text import harmless
from perf_tests.harness.report.wording import flat
from perf_tests.harness.runs.record import Run, RunRecord
from perf_tests.tables.metrics.rows import UNITS

COLUMNS = (
    *("began", "case", "digest", "platform", "pipeline", "scheme", "group", "status", "metric", "unit"),
    *("verdict", "measured", "baseline", "change_pct", "ci_low_pct", "ci_high_pct", "limit", "reason"),
    *("processes", "card", "torch", "torchao"),
)
"""Of the CSV. What was measured and is judged by nothing has no verdict; a case that failed has one line."""
FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""What a spreadsheet takes for the beginning of a formula."""
SCHEMA = "https://json-schema.org/draft/2020-12/schema"
MAX_LISTED = 200
"""Lines of the Markdown table: GitHub refuses a comment of more than 65,536 characters."""


def as_csv(sources: PageSources) -> str:
    """One line for each metric of each case, its numbers in the units of the metric."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    runs = {run.id: run for run in sources.record.cases}
    for case in sorted(page_of(sources).cases, key=lambda case: case.id):
        for line in _lines(case, runs[case.id]):
            writer.writerow((sources.record.created_at, *map(_cell, line)))
    return text.getvalue()


def _lines(case: PageCase, run: Run) -> Iterator[tuple[object, ...]]:
    environment = run.processes[0].environment if run.processes else None
    packages = environment.packages if environment else {}
    before = (run.id, run.digest, run.platform, case.pipeline, case.scheme, case.group, run.status.value)
    after = (
        len(run.processes),
        environment.unit if environment else "",
        packages.get("torch", ""),
        packages.get("torchao", ""),
    )
    for verdict in run.verdicts:
        low, high = verdict.ci_pct or (None, None)
        numbers = (verdict.measured, verdict.baseline, verdict.change_pct, low, high, verdict.limit)
        what = (verdict.metric, UNITS.get(verdict.metric, ""), verdict.status.value)
        yield (*before, *what, *numbers, verdict.reason, *after)
    judged = {verdict.metric for verdict in run.verdicts}
    for name, value in run.measured.items():
        if name not in judged:
            yield (*before, name, UNITS.get(name, ""), "", value, *(None,) * 5, "", *after)
    if not (run.verdicts or run.measured):
        yield (*before, "", "", "", *(None,) * 6, case.headline, *after)


def _cell(value: object) -> object:
    """The value; of a text, one that no terminal obeys and no spreadsheet computes."""
    if not isinstance(value, str):
        return value
    said = harmless(flat(value))
    return f"'{said}" if said.startswith(FORMULA) else said


def as_markdown(sources: PageSources) -> str:
    """What to know of the run, for the text of a pull request: the sentence, and what is red.

    What lacks nothing but a baseline is only counted.
    """
    page = page_of(sources)
    rows = [
        (case.id, metric.mark.label, metric.name, metric.baseline, metric.now, metric.change, metric.limit)
        for case in page.cases
        for metric in case.metrics
        if metric.is_red and metric.mark.kind is not Kind.NEW
    ]
    failed = [
        (case.id, case.mark.label, case.headline, "", "", "", "")
        for case in page.cases
        if case.failure and case.mark.kind is not Kind.NEW and not any(each.is_red for each in case.metrics)
    ]
    listed = (*failed, *rows)
    parts = [f"**{_code(page.sentence)}**", page.counts]
    if listed:
        parts.append(_table(listed[:MAX_LISTED]))
    if len(listed) > MAX_LISTED:
        parts.append(f"and {len(listed) - MAX_LISTED} more lines, which the page of the run has")
    return "\n\n".join(parts) + "\n"


def _table(rows: Sequence[tuple[str, ...]]) -> str:
    head = ("case", "verdict", "metric", "baseline", "now", "change", "limit")
    lines = ["| " + " | ".join(map(_code, row)) + " |" for row in rows]
    return "\n".join(("| " + " | ".join(head) + " |", "|---|---|---|---:|---:|---:|---:|", *lines))


def _code(text: str) -> str:
    """As code, in which nothing is markup, a mention or a link."""
    said = harmless(flat(text)).replace("`", "'").replace("|", "\\|")
    return f"`{said}`" if said else ""


def schema() -> str:
    """The JSON schema of run.json."""
    described = {"$schema": SCHEMA, "title": "run.json", **msgspec.json.schema(RunRecord)}
    return msgspec.json.format(msgspec.json.encode(described), indent=1).decode() + "\n"
