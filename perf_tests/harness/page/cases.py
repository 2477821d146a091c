"""One run in, all that the page says about its case out; pure."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from pathlib import PurePath

from perf_tests.harness.attribution.symptoms import red
from perf_tests.harness.baselines.entry import Accepted
from perf_tests.harness.compare.published import PublishedMatch, PublishedQuantity
from perf_tests.harness.page import charts, earlier
from perf_tests.harness.page.charts import Band, Chart
from perf_tests.harness.page.marks import PHASES, Kind, StatusMark, mark_of
from perf_tests.harness.page.matrix import place_of
from perf_tests.harness.page.pictures import Album
from perf_tests.harness.page.sources import PageSources
from perf_tests.harness.page.view import FigureBeside, PageCase, PageMetric, PageMetrics
from perf_tests.harness.rebaseline.candidates import CASES
from perf_tests.harness.report import ab_comparison, costs, failure
from perf_tests.harness.report.evidence import lines as evidence_report
from perf_tests.harness.report.wording import flat, format_change, format_value
from perf_tests.harness.runs.directory import is_evidence
from perf_tests.harness.runs.record import Run, Status, Verdict
from perf_tests.harness.verdicts.case_status import leading
from perf_tests.harness.verdicts.gates import as_judged
from perf_tests.tables.metrics.rows import METRIC_BY_NAME, NOISY, UNITS
from perf_tests.tables.metrics.spec import STEP, Metric
from perf_tests.tables.platforms import PLATFORM_BY_ID, Device

MAX_LOGS = 8
NO_NUMBER = "-"
FOLDED = {Status.NO_BASELINE: "without a baseline", Status.PASS: "passed"}
"""Verdicts that need no reading, each, and what they are called: their reasons are all alike."""


def page_case(run: Run, sources: PageSources, *, anchor: str, rank: int, is_open: bool) -> PageCase:
    """All about the case of `run`; `rank` is its place among all, the worst first."""
    place, accepted = place_of(run), sources.accepted.get(run.id)
    album = sources.albums.get(run.id, Album())
    seconds, found = costs.seconds(run), red(run)
    over_runs = earlier.trend(
        run,
        found[0].metric if found else "",
        sources.earlier.nights,
        lambda metric: band_of(run, metric, accepted),
    )
    return PageCase(
        id=run.id,
        anchor=anchor,
        mark=case_mark(run, sources),
        pipeline=place.pipeline,
        scheme=place.scheme,
        group=place.group,
        headline=headline(run, sources),
        is_open=is_open,
        rank=rank,
        change_pct=_largest_change(run),
        seconds=sum(seconds.values()),
        failure=_failure(run, sources),
        metrics=tuple(_metric(each) for each in leading(run.verdicts) if each.status not in FOLDED),
        folded=tuple(_folded(run)),
        shown=_shown(run),
        steps=_steps(run, accepted, sources.base.get(run.id)),
        trend=over_runs.chart if over_runs else None,
        trend_title=f"{over_runs.metric} over the runs" if over_runs else "",
        trend_lines=over_runs.lines if over_runs else "",
        costs=charts.bar(seconds, "s", PHASES),
        costs_title=_costs_title(run),
        roofline=_roofline(run),
        figures=tuple(_figures(sources.published.get(run.id, ()))),
        pictures=album.pictures,
        pictures_note=album.note,
        facts=tuple(_facts(run, accepted, sources)),
        files=tuple(_files(run, sources)),
    )


def case_mark(run: Run, sources: PageSources) -> StatusMark:
    """The mark of its status; broken where a status that is green elsewhere makes this session red."""
    mark = mark_of(run.status)
    if run.status.is_green and not sources.is_green(run):
        return StatusMark(Kind.BROKEN, f"{mark.label}, which is required here")
    return mark


def headline(run: Run, sources: PageSources) -> str:
    """The red verdict that leads and by how much, or why there is none; empty where all passed."""
    found = red(run)
    if run.status is Status.NO_BASELINE and found:
        return f"{sum(each.status is Status.NO_BASELINE for each in found)} metrics"
    if found and sources.is_green(run):
        change = format_change(found[0].change_pct) if found[0].change_pct is not None else ""
        more = f"and {len(found) - 1} more" if len(found) > 1 else ""
        return ", ".join(filter(None, (" ".join(filter(None, (found[0].metric, change))), more)))
    return flat(run.failure.message if run.failure else run.reason)


def _largest_change(run: Run) -> float:
    changes = (
        abs(each.change_pct) for each in run.verdicts if each.metric in NOISY and each.change_pct is not None
    )
    return max(changes, default=0.0)


# Text and table


def _failure(run: Run, sources: PageSources) -> str:
    """The text of what is red about it, as a failed test prints it; empty where nothing is."""
    if not sources.is_red(run):
        return ""
    found = [verdict for verdict in red(run) if verdict.metric in METRIC_BY_NAME]
    if found and run.id in sources.base:
        return "\n".join(f"{each.metric} {each.status.value}: {each.reason}" for each in found)
    if not found or run.id not in CASES:
        return failure.explain_failure(run=run, run_path=sources.where)
    comparison = next((each for each in sources.record.comparisons if each.id == run.id), None)
    first, metric = found[0], _as_judged(run, found[0])
    text = failure.explain(
        run=run,
        verdict=first,
        metric=metric,
        accepted=sources.accepted.get(run.id),
        environment=run.processes[0].environment if run.processes else None,
        heat_maps=None,  # they are on the page
        run_path=sources.where,
        is_answered=ab_comparison.is_answered(run.id, metric, comparison, sources.record.attributions),
    )
    compared = ab_comparison.explanation(first, metric, comparison) if comparison else ()
    known = evidence_report.lines(sources.record.evidence, run.id, sources.where)
    return "\n".join((text, *compared, *known))


def _as_judged(run: Run, verdict: Verdict) -> Metric:
    return as_judged(METRIC_BY_NAME[verdict.metric], CASES[run.id].case)


def _metric(verdict: Verdict) -> PageMetric:
    unit, interval = UNITS.get(verdict.metric, ""), verdict.ci_pct
    change = format_change(verdict.change_pct)
    if unit == "dB" and verdict.measured is not None and verdict.baseline is not None:
        change = f"{verdict.measured - verdict.baseline:+.2f} dB"
    return PageMetric(
        name=verdict.metric,
        mark=mark_of(verdict.status),
        baseline=format_value(verdict.baseline, unit),
        now=format_value(verdict.measured, unit),
        change=change,
        interval="" if interval is None else f"{interval[0]:+.2f} to {interval[1]:+.2f} %",
        limit=format_value(verdict.limit, unit),
        reason=verdict.reason,
        is_red=not verdict.status.is_green,
    )


def _folded(run: Run) -> Iterable[PageMetrics]:
    for status, said in FOLDED.items():
        found = tuple(_metric(each) for each in run.verdicts if each.status is status)
        if found:
            yield PageMetrics(
                title=f"{len(found)} {'metric' if len(found) == 1 else 'metrics'} {said}", metrics=found
            )


def _shown(run: Run) -> tuple[tuple[str, str], ...]:
    judged = {verdict.metric for verdict in run.verdicts}
    return tuple(
        (name, format_value(value, UNITS.get(name, "")))
        for name, value in run.measured.items()
        if name not in judged
    )


# Charts


def _steps(run: Run, accepted: Accepted | None, base: Run | None) -> Chart | None:
    """The steps of all processes, those of the base first where there is one."""
    before = base.processes if base else ()
    by_process = [
        [value for sample in process.samples for value in sample.values.get(STEP, ())]
        for process in (*before, *run.processes)
    ]
    names = [f"base {number + 1}" for number in range(len(before))] if base else []
    names += [f"candidate {number + 1}" for number in range(len(run.processes))] if base else []
    band = band_of(run, STEP, accepted)
    return charts.steps(by_process, UNITS[STEP], band, names) if by_process else None


def band_of(run: Run, name: str, accepted: Accepted | None) -> Band | None:
    """What the values of a metric are held against; None where nothing was accepted for this case, or only
    times on another processor."""
    if accepted is None or accepted.entry.digest != run.digest or not run.processes:
        return None
    environment, metric = run.processes[0].environment, METRIC_BY_NAME[name]
    fitting = accepted.fitting(metric, environment.settings)
    elsewhere = metric.per_unit and environment.gpu is None and fitting.provenance.unit != environment.unit
    values = fitting.entry.metrics.get(name, ())
    if elsewhere or not values:
        return None
    limit = next((verdict.limit for verdict in run.verdicts if verdict.metric == name), None)
    return Band(low=min(values), high=max(values), limit=limit)


def _costs_title(run: Run) -> str:
    platform = PLATFORM_BY_ID.get(run.platform)
    return "CPU seconds" if platform is not None and platform.device is Device.CPU else "GPU seconds"


def _roofline(run: Run) -> str:
    floors = [each.build.roofline_ms for each in run.processes if each.build.roofline_ms]
    step_ms = run.measured.get(STEP)
    if not floors or not step_ms:
        return ""
    floor_ms = statistics.median(floors)
    return (
        f"a denoise step takes {format_value(step_ms, 'ms')} and at least {format_value(floor_ms, 'ms')}: "
        f"{100 * floor_ms / step_ms:.0f} % of what the device states for that work"
    )


# Beside it


def _figures(matches: Sequence[PublishedMatch]) -> Iterable[FigureBeside]:
    for match in matches:
        remarks = [
            f"published on {match.row.gpu}",
            *([] if match.same_gpu else ["another GPU than ours"]),
            *(["ours is composed from the stages of a shorter generation"] if match.projected else []),
            *(f"{of}: {why.text}" for of, why in match.exceeded.items() if why is not None),
            *(f"{of} is beyond its limit, and nothing explains it" for of in match.unexplained),
        ]
        for what, unit, quantity in (
            ("latency", "s", match.latency_s),
            ("memory of the model", "GiB", match.model_memory_gib),
            ("peak memory", "GiB", match.peak_memory_gib),
        ):
            if quantity.theirs is not None:
                yield _figure(what, unit, quantity, "; ".join(remarks))


def _figure(what: str, unit: str, quantity: PublishedQuantity, remark: str) -> FigureBeside:
    ratio = quantity.ratio
    return FigureBeside(
        what=what,
        ours=format_value(quantity.ours, unit),
        theirs=format_value(quantity.theirs, unit),
        ratio=NO_NUMBER if ratio is None else f"{ratio:.3f}",
        remark=remark,
    )


def _facts(run: Run, accepted: Accepted | None, sources: PageSources) -> Iterable[tuple[str, str]]:
    yield "platform", run.platform
    yield "repeat it", f"pytest --perf-case '{run.id}'"
    for verdict in red(run):
        if (attribution := sources.attribution(run, verdict.metric)) is not None:
            yield f"where {verdict.metric} comes from", attribution.sentence
    if run.injected:
        yield "fire drill", ", ".join(run.injected)
    if run.reference is not None:
        yield "reference", run.reference
    if accepted is not None:
        origin = accepted.provenance
        yield "baseline", f"{origin.recorded_at[:10]}, {accepted.entry.processes} processes: {origin.reason}"
    yield from _measured_by(run, sources.where)


def _files(run: Run, sources: PageSources) -> Iterable[tuple[str, str]]:
    """What was recorded of it, as far as the record names files where a session keeps them."""
    for evidence in sources.record.evidence:
        if evidence.id != run.id:
            continue
        found = {
            "a script of its steps, which needs nothing of this suite": evidence.script,
            **{
                f"one step of the {side} stack, for ui.perfetto.dev": file
                for side, file in evidence.traces.items()
            },
            "a memory snapshot, unpacked for pytorch.org/memory_viz": evidence.snapshot,
        }
        yield from ((what, file) for what, file in found.items() if file and is_evidence(file))


def _measured_by(run: Run, where: str) -> Iterable[tuple[str, str]]:
    for unit in dict.fromkeys(process.environment.unit for process in run.processes):
        yield "measured on", unit
    logs = [str(PurePath(where, process.log)) for process in run.processes if process.log]
    if logs:
        more = f" and {len(logs) - MAX_LOGS} more" if len(logs) > MAX_LOGS else ""
        yield "logs", " ".join(logs[:MAX_LOGS]) + more
    if run.looks:
        yield "sampling", ", ".join(run.looks)
