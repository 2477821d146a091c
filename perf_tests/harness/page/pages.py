"""A record in, the whole page out; pure. The template only writes down what is computed here."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence

from perf_tests.harness.attribution import symptoms
from perf_tests.harness.page import earlier, matrix
from perf_tests.harness.page.cases import case_mark, page_case
from perf_tests.harness.page.marks import NAMES, StatusMark
from perf_tests.harness.page.sources import PageSources
from perf_tests.harness.page.view import MatrixTable, Page, PageTable
from perf_tests.harness.report import ab_comparison as ab_report
from perf_tests.harness.report import causes, costs, remedies
from perf_tests.harness.report.causes import Cause
from perf_tests.harness.report.wording import clipped, flat, format_change, format_value
from perf_tests.harness.runs.record import Progress, Run, RunRecord, Status
from perf_tests.harness.verdicts.case_status import SEVERITY
from perf_tests.protocol.reports import Environment
from perf_tests.tables.metrics.rows import UNITS

MAX_CHANGES = 4
"""Differences between the stacks that the first sentence names."""
MAX_MISSING = 20
MAX_REASON = 200
"""Characters of why a case failed, in the first sentence and in the list: CUDA says more than fits there."""
ANCHOR = re.compile(r"[^A-Za-z0-9._-]")


def page_of(sources: PageSources) -> Page:
    """Everything that a page about the record of `sources` says."""
    record = sources.record
    runs, found = record.cases, causes.causes(record.cases, sources.is_green)
    ordered = _worst_first(runs, sources)
    anchors = _anchors(ordered)
    unfolded = {cause.runs[0].id for cause in found if not cause.is_new}
    cases = tuple(
        page_case(
            run,
            sources,
            anchor=anchors[run.id],
            rank=rank,
            is_open=run.id in unfolded,
        )
        for rank, run in enumerate(ordered)
    )
    tables = matrix.tables(
        runs,
        {run.id: case_mark(run, sources) for run in runs},
        anchors,
        sources.is_recorded,
        has_grey=not sources.base,
    )
    return Page(
        title=f"{causes.counts(runs, found)} - {_date(record)}",
        is_green=not found and not record.missing,
        sentence=sentence(found, sources),
        counts=causes.counts(runs, found),
        remarks=(
            *_remarks(record),
            *map("not among the earlier runs: {}".format, sources.earlier.unreadable),
        ),
        causes=tuple((_listed(cause), anchors[cause.runs[0].id]) for cause in found),
        matrix=tuple(table for table in tables if not table.is_grey),
        left_out=matrix.left_out(tables),
        unrecorded=matrix.reasons(tables),
        legend=_legend(tables),
        pipelines=tuple(dict.fromkeys(case.pipeline for case in cases)),
        schemes=tuple(sorted({case.scheme for case in cases})),
        cases=cases,
        tables=tuple(_tables(record, sources)),
    )


# The sentence


def sentence(found: Sequence[Cause], sources: PageSources) -> str:
    """The one sentence to act on: that all is well, or what broke most, by how much, and what has changed."""
    record = sources.record
    if not record.cases:
        return "Nothing was measured."
    broken = [cause for cause in found if not cause.is_new and cause.status is not Status.NOT_RUN]
    if broken:
        return _what_broke(broken[0], sources)
    if record.missing:
        return f"{len(record.missing)} verdicts that this session owes were never given: that is red, too."
    if not found:
        return f"All {len(record.cases)} cases are green." if len(record.cases) > 1 else "The case is green."
    first = found[0]
    count = len(first.runs)
    if first.is_new:
        was = "has" if count == 1 else "have"
        return f"Nothing broke; {count} of {len(record.cases)} cases {was} no baseline yet: record them."
    return f"Nothing broke; {count} of {len(record.cases)} cases were not run: resume the session."


def _listed(cause: Cause) -> str:
    """What is red, in which cases; and why, where no metric says so."""
    worst = cause.runs[0]
    why = flat(worst.failure.message) if worst.failure and cause.verdict(worst) is None else ""
    return ": ".join(filter(None, (cause.title(), _named(cause), clipped(why, MAX_REASON))))


def _named(cause: Cause) -> str:
    """The worst of its cases, and how many others there are."""
    others = len(cause.runs) - 1
    return f"{cause.runs[0].id} and {others} more" if others else cause.runs[0].id


def _what_broke(cause: Cause, sources: PageSources) -> str:
    worst, others = cause.runs[0], len(cause.runs) - 1
    more = f" and {others} more {'case' if others == 1 else 'cases'}" if others else ""
    verdict = cause.verdict(worst)
    if verdict is None or not cause.metric:
        reason = verdict.reason if verdict else worst.failure.message if worst.failure else worst.reason
        return f"{worst.id}{more}: {cause.status.value}: {clipped(flat(reason), MAX_REASON)}"
    unit = UNITS.get(verdict.metric, "")
    change = f" by {format_change(verdict.change_pct)}" if verdict.change_pct is not None else ""
    limit = f", limit {format_value(verdict.limit, unit)}" if verdict.limit is not None else ""
    numbers = f" ({format_value(verdict.measured, unit)}{limit})" if verdict.measured is not None else ""
    attribution = sources.attribution(worst, verdict.metric)
    whose = _since(worst, sources) if attribution is None else f"; {attribution.sentence}"
    when = earlier.since(worst, verdict.metric, sources.earlier.nights)
    said = f"{cause.status.value}{change}{numbers}{f', {when}' if when else ''}{whose}"
    return f"{verdict.metric} of {worst.id}{more}: {said.removesuffix('.')}."


def _since(run: Run, sources: PageSources) -> str:
    accepted = sources.accepted.get(run.id)
    if accepted is None or not run.processes:
        return ""
    changes = remedies.differences(accepted.provenance, run.processes[0].environment)
    what = "the base" if sources.base else "its baseline"
    since = f"; since {what} of {accepted.provenance.recorded_at[:10]}"
    if not changes:
        return f"{since} nothing else on record has changed"
    more = f" and {len(changes) - MAX_CHANGES} more" if len(changes) > MAX_CHANGES else ""
    return f"{since}: {', '.join(changes[:MAX_CHANGES])}{more}"


# Order and names


def _worst_first(runs: Iterable[Run], sources: PageSources) -> list[Run]:
    def badness(run: Run) -> tuple[bool, int, float]:
        severity = SEVERITY.index(run.status) if run.status in SEVERITY else 0
        changes = [abs(each.change_pct) for each in symptoms.red(run) if each.change_pct is not None]
        return (not sources.is_red(run), severity, -max(changes, default=0.0))

    return sorted(runs, key=badness)


def _anchors(runs: Sequence[Run]) -> Mapping[str, str]:
    """Case id -> the name of its place in the page."""
    taken = Counter(ANCHOR.sub("_", run.id) for run in runs)
    return {
        run.id: f"case-{ANCHOR.sub('_', run.id)}"
        + (f".{number}" if taken[ANCHOR.sub("_", run.id)] > 1 else "")
        for number, run in enumerate(runs)
    }


def _legend(tables: Iterable[MatrixTable]) -> tuple[tuple[StatusMark, int], ...]:
    counted = Counter(cell.mark.kind for table in tables for cell in table.cells)
    return tuple((StatusMark(kind, name), counted[kind]) for kind, name in NAMES.items() if counted[kind])


def _date(record: RunRecord) -> str:
    return record.created_at[: len("2026-01-31T10:00")].replace("T", " ")


# Beside the cases


def _remarks(record: RunRecord) -> Iterator[str]:
    cut_short = [run for run in record.cases if run.progress in (Progress.PLANNED, Progress.INTERRUPTED)]
    if cut_short:
        of_all = f"{len(cut_short)} of {len(record.cases)} cases"
        yield f"{of_all} were not measured to their end: the session was stopped"
    injected = [run for run in record.cases if run.injected]
    if injected:
        yield f"a fire drill: faults were injected into {len(injected)} of {len(record.cases)} cases"
    if record.missing:
        named = ", ".join(record.missing[:MAX_MISSING])
        more = f" and {len(record.missing) - MAX_MISSING} more" if len(record.missing) > MAX_MISSING else ""
        yield f"selected, but no verdict was given: {named}{more}"
    not_compared = sum(each.status is Status.NOT_COMPARED for run in record.cases for each in run.verdicts)
    if not_compared:
        yield f"{not_compared} values were not compared: their baselines are of other versions"


def _tables(record: RunRecord, sources: PageSources) -> Iterator[PageTable]:
    yield PageTable(title="This session", head=("what", "value"), rows=tuple(_session(record, sources)))
    yield PageTable(title="Cards and processors", head=CARDS, rows=tuple(_cards(record)))
    packages = _packages(record)
    if packages:
        yield PageTable(title="Versions", head=("package", "version"), rows=packages)
    if record.comparisons:
        lines = ab_report.table(record.comparisons, UNITS)
        yield PageTable(
            title="A/B", head=("as the terminal prints it",), rows=tuple((line,) for line in lines)
        )


def _session(record: RunRecord, sources: PageSources) -> Iterator[tuple[str, str]]:
    yield "began", record.created_at
    yield "command", record.command
    yield "record", f"{sources.where}/run.json"
    spent = sum(sum(costs.seconds(run).values()) for run in (*record.cases, *record.references))
    yield "seconds of the device, all processes", f"{spent:,.0f}"
    if record.plan is not None:
        yield "commit", record.plan.commit or "outside of a checkout"
        if record.plan.shard is not None:
            yield "part", f"{record.plan.shard[0]} of {record.plan.shard[1]}"
        yield "parts", str(len(record.plan.parts) or 1)


CARDS = ("unit", "name", "memory", "power limit", "driver", "processes", "control gemm", "control attention")


def _cards(record: RunRecord) -> Iterator[tuple[str, ...]]:
    """One line for each card or processor, with the median of the fixed kernels timed before each build."""
    processes = [process for run in (*record.cases, *record.references) for process in run.processes]
    for unit in dict.fromkeys(process.environment.unit for process in processes):
        here = [process for process in processes if process.environment.unit == unit]
        gpu = here[0].environment.gpu
        described = (
            (gpu.name, f"{gpu.memory_gib:.1f} GiB", f"{gpu.power_limit_w:.0f} W", gpu.driver)
            if gpu
            else (f"{here[0].environment.cpu_count} processors", "-", "-", "-")
        )
        controls = (
            [process.build.values[name] for process in here if name in process.build.values]
            for name in ("control_gemm_ms", "control_attention_ms")
        )
        yield (unit, *described, str(len(here)), *(_median_ms(values) for values in controls))


def _median_ms(values: Sequence[float]) -> str:
    return format_value(sorted(values)[len(values) // 2] if values else None, "ms")


def _packages(record: RunRecord) -> tuple[tuple[str, str], ...]:
    """Package -> version; several where the parts of a record differ."""
    found: dict[str, dict[str, None]] = {}
    environments: list[Environment] = [
        process.environment for run in record.cases for process in run.processes
    ] or ([record.environment] if record.environment else [])
    for environment in environments:
        for name, version in ({"python": environment.python} | environment.packages).items():
            found.setdefault(name, {})[version] = None
    return tuple((name, ", ".join(versions)) for name, versions in found.items())
