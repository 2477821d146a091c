"""What a session says in the terminal: the header before, the cost and the verdicts after."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from perf_tests.harness.execution import resuming
from perf_tests.harness.lanes.machine import Target
from perf_tests.harness.plugin.options import Options
from perf_tests.harness.plugin.selection import Selection
from perf_tests.harness.plugin.session import PerfSession, lane_names
from perf_tests.harness.rebaseline.candidates import CASES
from perf_tests.harness.report import ab_comparison as ab_report
from perf_tests.harness.report import brief as briefs
from perf_tests.harness.report import causes, costs, failure, terminal
from perf_tests.harness.report import plan as plan_report
from perf_tests.harness.report.brief import Brief, Detail, Paragraph
from perf_tests.harness.report.causes import Cause
from perf_tests.harness.report.evidence import lines as evidence_report
from perf_tests.harness.report.wording import clipped, refitted
from perf_tests.harness.retention import earlier_runs
from perf_tests.harness.runs.directory import PAGE
from perf_tests.harness.runs.plan import BUILD
from perf_tests.harness.runs.record import RunRecord, Status
from perf_tests.harness.runs.record_file import RECORD
from perf_tests.tables.metrics.rows import METRICS, UNITS
from perf_tests.tables.metrics.spec import Group
from perf_tests.tables.platforms import PLATFORM_BY_ID


def past_session(record: RunRecord, options: Options) -> PerfSession:
    """A session that measures nothing, with the selection and the debts of `record`, to report it with.

    Raises BaselineError where the baselines of its platforms cannot be read.
    """
    assert record.plan is not None, "only a record with a plan is reported"
    session = PerfSession(options, ())
    session.resuming_command = "resume the parts that did not finish with --perf-resume, and merge again"
    measured_on = {run.id: run.platform for run in record.cases}
    for planned in record.plan.cases:
        known = CASES[planned.id]
        platform = PLATFORM_BY_ID[measured_on.get(planned.id, known.platforms[0])]
        session.baselines.of(platform)
        session.selection.add(known.case, platform)
        session.judging.ledger.owe(planned.id, planned.owed or ())
    return session


def header(options: Options, target: Target) -> list[str]:
    """Where the numbers come from, and where they go."""
    lines = [
        f"perf: {target.problem or target.found}; run directory {options.out}; baselines {options.baselines}"
    ]
    if options.compile_cache is not None:
        cold = ", ".join(metric.name for metric in METRICS if metric.cold_caches_only)
        lines.append(
            f"perf: compile caches from {options.compile_cache}: {cold} is judged where nothing was loaded"
        )
    if options.against is not None:
        lines.append(
            f"perf: A/B of regressed times, and of those without a baseline, against {options.against}"
        )
    if options.stacks is not None:
        lines.append(f"perf: red metrics are attributed with {options.stacks.summary}")
    if options.autoquant_plans is not None:
        lines.append(f"perf: autoquant follows the plans in {options.autoquant_plans}")
    return lines


def everything(session: PerfSession, record: RunRecord, selection: Selection) -> Iterator[Paragraph]:
    """What the session cost, how likely a false alarm is, every verdict, and where the raw samples are."""
    judging = session.judging
    yield from ([sentence] for sentence in _circumstances(session, record, selection))
    yield costs.table(record.cases, record.references)
    yield costs.usage(session.asides.usage, lane_names(session.cards))
    yield costs.tuning(record.cases)
    if session.options.show_plan:
        yield plan_report.accuracy(session.forecaster.accuracy(selection, record))
    if judging.noisy_metrics:
        yield [terminal.error_rates(judging.noisy_metrics, judging.level)]
    yield terminal.table(record.cases, UNITS)
    yield ab_report.table(record.comparisons, UNITS)
    yield ab_report.attributed(record.attributions)
    yield evidence_report.table(record.evidence, str(session.options.out))
    yield terminal.not_compared(record.cases)
    provisional = terminal.provisional(record.cases, judging.entries())
    if provisional:
        yield [f"provisional baselines (fewer than 3 processes): {', '.join(provisional)}"]
    if not session.problem:
        yield [where(session)]


def where(session: PerfSession) -> str:
    """Where the raw samples are, and the page about them."""
    page = "" if session.without_page else f"; page: {session.options.out}/{PAGE}"
    return f"raw samples: {session.options.out}/{RECORD}{page}"


def _circumstances(session: PerfSession, record: RunRecord, selection: Selection) -> Iterator[str]:
    """What must not go unsaid, however little is asked for: each sentence is about numbers that are missing,
    old, or not the code's alone."""
    control = session.judging.control(record)
    if control is not None and control.moved:
        yield control.text
    yield from terminal.acknowledged(record.cases)
    if session.kept:
        yield resuming.sentence(session.kept, len(selection.cases), record.created_at)
    asides = session.asides
    if again := asides.measured_again:
        yield (
            "--perf-resume: measured again, since others are compared with their outputs, which are gone: "
            + ", ".join(again)
        )
    if session.removed:
        names = ", ".join(path.name for path in session.removed)
        yield f"removed, so that {earlier_runs.KEPT} runs stay beside {session.options.out}: {names}"
    yield from filter(None, (session.without_page,))
    for unit, why in asides.retired.items():
        yield f"the GPU {unit} was given up: {why}; others measured the rest"
    for why, lanes in Counter(asides.late_imports.values()).items():
        where = f" on {lanes} of {len(session.cards)} GPUs" if session.cards else ""
        yield f"workers{where} import when they are wanted, which costs seconds a case and no verdict: {why}"
    if count := len(session.left_out):
        yield (
            f"{count} {'case was' if count == 1 else 'cases were'} left out because nobody has ever recorded "
            "them: UNRECORDED in perf_tests/tables/tiers.py says why"
        )


def write_page(brief: Brief) -> None:
    """Add the summary to the page of the job, where GitHub runs it."""
    if page := os.environ.get("GITHUB_STEP_SUMMARY"):
        with suppress(OSError), Path(page).open("a", encoding="utf-8") as file:  # the log says the same
            file.write(brief.as_markdown())


def brief(
    session: PerfSession, record: RunRecord, selection: Selection, width: int, *, taken: int = 0
) -> Brief:
    """What is red, by cause, and what else is worth a line, next to lines that are `taken` already.

    No line but A/B's is longer than `width`.
    """
    runs = [run for run in record.cases if run.id in selection.cases]
    found = causes.causes(runs, session.judging.is_green)
    told = [cause for cause in found if not (cause.is_new or cause.status is Status.NOT_RUN)]
    new = [cause for cause in found if cause.is_new]
    not_run = [cause for cause in found if cause.status is Status.NOT_RUN]
    rolled_up = {run.id for cause in (*new, *not_run) for run in cause.runs}
    listed = [run for run in runs if run.id not in rolled_up]
    blocks = terminal.blocks_of(listed, told, UNITS)
    remarks = list(_remarks(session, record, selection, width))
    explanations: dict[int, Paragraph] = {}

    def explained(number: int, cause: Cause) -> Paragraph:
        if number not in explanations:
            explanations[number] = _explained(session, record, number, cause, width)
        return explanations[number]

    def say(detail: Detail) -> Brief:
        numbered = list(enumerate(told, start=1))
        further = numbered[detail.explained :]
        untold = len(further[detail.titled :])
        more = f"and {untold} more causes, whose numbers are in the table: --perf-table=all explains them"
        return Brief(
            title=causes.counts(runs, found),
            remarks=briefs.cut(remarks, detail.remarks),
            table=terminal.overview(blocks, width, further=detail.further, green=detail.green),
            causes=[
                *(explained(*each) for each in numbered[: detail.explained]),
                *(causes.titled(*each, width) for each in further[: detail.titled]),
                *([[clipped(more, width)]] if untold else []),
                *(causes.rolled_up(cause, str(session.options.out), width) for cause in new),
                *(_not_run(session, cause, width) for cause in not_run),
            ],
        )

    return briefs.fitting(say, briefs.MAX_LINES - taken)


def _explained(session: PerfSession, record: RunRecord, number: int, cause: Cause, width: int) -> Paragraph:
    worst = cause.runs[0]
    if verdict := cause.verdict(worst):
        comparison = next((each for each in record.comparisons if each.id == worst.id), None)
        text = session.judging.explain(worst, [verdict], comparison, record.attributions, record.evidence)
    else:
        whose = ab_report.whose(worst.id, None, record.attributions)
        text = "\n".join([failure.explain_failure(run=worst, run_path=str(session.options.out)), *whose])
    return causes.explained(number, cause, text, width)


def _not_run(session: PerfSession, cause: Cause, width: int) -> Paragraph:
    count, reason = len(cause.runs), cause.runs[0].reason
    return [
        clipped(f"{count} {'case was' if count == 1 else 'cases were'} not run: {reason}", width),
        *refitted(f"  go on      {session.resuming_command}", width),
    ]


MAX_REMARK = 4
"""Lines of one sentence, of those that name cases."""


def _remarks(session: PerfSession, record: RunRecord, selection: Selection, width: int) -> Iterator[str]:
    """The lines about the session as a whole, those first that must not go unsaid."""
    judging = session.judging
    for sentence in _circumstances(session, record, selection):
        yield from briefs.cut(refitted(sentence, width), MAX_REMARK)
    yield from costs.briefly(record.cases, record.references, width)
    for line in costs.usage(session.asides.usage, lane_names(session.cards)):
        yield clipped(line, width)
    for sentence in costs.tuning(record.cases):
        yield from refitted(sentence, width)
    if session.options.show_plan:
        yield from plan_report.accuracy_briefly(session.forecaster.accuracy(selection, record), width)
    if judging.noisy_metrics:
        yield from refitted(terminal.error_rates(judging.noisy_metrics, judging.level), width)
    yield from terminal.not_compared_briefly(record.cases, width)
    provisional = terminal.provisional(record.cases, judging.entries())
    if provisional:
        yield clipped(f"provisional baselines (fewer than 3 processes): {len(provisional)} cases", width)
    yield from ab_report.table(record.comparisons, UNITS)
    for line in (*ab_report.attributed(record.attributions), *evidence_report.kept(record.evidence)):
        yield from refitted(line, width)


def stopped(session: PerfSession) -> Paragraph:
    """What a session that was stopped has kept, and how to go on."""
    done, total = len(session.campaign.done), len(session.selection.cases)
    return [
        f"{done} of {total} cases are measured and kept in {session.options.out}, and every process of "
        "another case that was complete",
        f"go on with: {session.resuming_command}",
    ]


def uncollected(groups: Sequence[Group | None]) -> Paragraph:
    """One line per group of metrics that no test of the suite judges."""
    names = [BUILD if group is None else group.value for group in groups]
    return [f"no test was collected that judges {name}: is test_{name}.py there?" for name in names]


MAX_MISSING = 10
"""Cases with missing verdicts that are named where nobody asks for everything."""


def missing(pairs: Sequence[str], width: int) -> Paragraph:
    """The first cases of pairs `case: metric`, and how many more there are."""
    lines = by_case(pairs)
    more = len(lines) - MAX_MISSING
    named = [clipped(line, width) for line in lines[:MAX_MISSING]]
    return [*named, *([f"and {more} more cases: run.json names them all"] if more > 0 else [])]


def by_case(pairs: Sequence[str]) -> Paragraph:
    """One line per case for pairs `case: metric`."""
    metrics: dict[str, list[str]] = {}
    for pair in pairs:
        case_id, _, metric = pair.partition(": ")
        metrics.setdefault(case_id, []).append(metric)
    return [f"{case_id}: {', '.join(names)}" for case_id, names in metrics.items()]
