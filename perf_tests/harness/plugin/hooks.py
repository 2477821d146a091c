"""The hooks through which pytest runs a session of the suite."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Generator, Iterator, Mapping, Sequence
from functools import partial
from types import FrameType
from typing import Any, NoReturn

import pytest

from perf_tests.harness.lanes.machine import Target
from perf_tests.harness.plugin import collection, options, summary
from perf_tests.harness.plugin.collection import (
    COLLECTED,
    EXPLAINED,
    ROWS,
    SELECTION,
    SESSION,
    TARGET,
    or_usage_error,
)
from perf_tests.harness.plugin.selection import check_globs
from perf_tests.harness.plugin.session import UNWRITABLE, PerfSession, explain_red
from perf_tests.harness.report import plan as plan_report
from perf_tests.harness.report import progress
from perf_tests.harness.report import pytest_benchmark as replaying
from perf_tests.harness.report.brief import Brief
from perf_tests.harness.runs.record import RunRecord
from perf_tests.protocol.errors import PerfError
from perf_tests.tables.known_issues import KNOWN_ISSUES

pytest_plugins = ["perf_tests.harness.plugin.fixtures"]

DISPLAY = pytest.StashKey[progress.Lines | progress.LiveLines]()
"""Where signs of life appear; absent where nothing is measured."""
TestStatus = tuple[str, str, str | tuple[str, Mapping[str, bool]]]
"""Category, letter and word of a test report."""
LOG_WIDTH = 120


# Options


def pytest_addoption(parser: pytest.Parser) -> None:
    """Declare the options of the suite."""
    options.declare(parser.getgroup("perf", "performance of quantized and compiled diffusion pipelines"))


def pytest_configure(config: pytest.Config) -> None:
    """Read the options and look at the machine, once."""
    for marker in collection.markers():
        config.addinivalue_line("markers", marker)
    chosen, target = or_usage_error(partial(_read, config))
    config.stash[TARGET] = target
    _silence_benchmark(config, chosen)
    config.stash[COLLECTED] = set()
    config.stash[EXPLAINED] = set()
    config.stash[SESSION] = or_usage_error(
        partial(PerfSession, chosen, config.invocation_params.args, target.unit, target.cards)
    )
    config.add_cleanup(config.stash[SESSION].release)


def _silence_benchmark(config: pytest.Config, chosen: options.Options) -> None:
    """Leave out pytest-benchmark's table, which says what ours says, unless something is asked of it."""
    asked = any(argument.startswith("--benchmark") for argument in config.invocation_params.args)
    if not (asked or chosen.show_all) and hasattr(config.option, "benchmark_quiet"):
        config.option.benchmark_quiet = True


def _read(config: pytest.Config) -> tuple[options.Options, Target]:
    options.check_interpreter(config.invocation_params.args)
    chosen = options.read(config.option)
    rows = collection.rows(chosen.weights)
    check_globs(chosen.case_globs, [*rows, *(issue.id for issue in KNOWN_ISSUES)])
    config.stash[ROWS] = {case_id: row for case_id, row in rows.items() if chosen.selects(case_id)}
    return chosen, Target.of_this_machine() if chosen.gpus is None else Target.of_several(chosen.gpus)


# Collection


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Make one test per case, marked with its platforms and pipeline family, and one per known issue."""
    if "known_issue" in metafunc.fixturenames:
        collection.generate_known_issues(metafunc)
    if "case" in metafunc.fixturenames and metafunc.definition.get_closest_marker("judges"):
        collection.generate_cases(metafunc)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out the cross product unless it is asked for, and what belongs to other shards."""
    items[:] = [item for item in items if not collection.lacks_its_parameter(item)]
    kept = or_usage_error(partial(collection.kept_items, config, items))
    left_out = [item for item in items if item not in kept]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
    items[:] = kept


def pytest_deselected(items: Sequence[pytest.Item]) -> None:
    """Keep in mind which cases `not unrecorded` leaves out: a night says how many it does not measure."""
    for item in items:
        if "unrecorded" in item.config.option.markexpr and item.get_closest_marker("unrecorded"):
            item.config.stash[SESSION].left_out.add(collection.case_of(item).id)


@pytest.hookimpl(tryfirst=True)  # before the terminal asks for `pytest_report_collectionfinish`
def pytest_collection_finish(session: pytest.Session) -> None:
    """Tell the session what was selected, now that every plugin has deselected what it wants to."""
    session.config.stash[SELECTION] = collection.selection_of(session.config, session.items)
    judging = list(filter(collection.is_judging, session.items))
    if judging and not hasattr(session.config, "workerinput"):  # else the process in charge refuses them all
        or_usage_error(partial(collection.prepare, session.config, judging))
        if not session.config.option.collectonly:
            _show_life(session.config)


def _show_life(config: pytest.Config) -> None:
    """Print a line for each phase of each worker, which says more than the letters of tests."""
    reporter = config.pluginmanager.getplugin("terminalreporter")
    if reporter is None:
        return
    stream = progress.uncaptured(sys.stdout)
    if stream is not sys.stdout:
        config.add_cleanup(stream.close)
    display = progress.display_on(stream, partial(_finish_line, reporter))
    config.add_cleanup(display.close)
    config.stash[SESSION].display = config.stash[DISPLAY] = display
    if not _is_verbose(config):
        reporter.showfspath = False


def _finish_line(reporter: pytest.TerminalReporter) -> str:
    """What ends the line that pytest has begun with the name of a test."""
    if reporter.currentfspath is None:
        return ""
    reporter.currentfspath = None
    return "\n"


def _is_verbose(config: pytest.Config) -> bool:
    return config.get_verbosity(pytest.Config.VERBOSITY_TEST_CASES) > 0


@pytest.hookimpl(wrapper=True)
def pytest_report_teststatus(
    report: pytest.TestReport | pytest.CollectReport, config: pytest.Config
) -> Generator[None, TestStatus, TestStatus]:
    """Print no letter for a judging test: the lines of the phases tell how far the session is."""
    status = yield
    if DISPLAY in config.stash and "judges" in report.keywords and not _is_verbose(config):
        return (status[0], "", status[2])
    return status


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_node_collection_finished(node: Any, ids: Sequence[str]) -> None:
    """Refuse to measure side by side, in the process in charge: an error of its workers is a traceback."""
    or_usage_error(partial(collection.refuse_side_by_side, node.config, ids))


def pytest_report_collectionfinish(config: pytest.Config) -> list[str]:
    """With `--perf-plan`, print what the session is expected to cost."""
    session = config.stash[SESSION]
    if not session.options.show_plan:
        return []
    forecast = or_usage_error(partial(session.forecaster.forecast, config.stash[SELECTION]))
    return ["", *plan_report.table(forecast), ""]


# Running


@pytest.hookimpl(wrapper=True)
def pytest_runtestloop(session: pytest.Session) -> Generator[None, object, object]:
    """While tests run, SIGTERM means what Ctrl-C means: stop, and lose nothing that was measured."""
    if threading.current_thread() is not threading.main_thread():
        return (yield)
    before = signal.signal(signal.SIGTERM, _interrupt)
    try:
        result = yield
        explain_red(session.config.stash[SESSION])
        return result
    finally:
        signal.signal(signal.SIGTERM, before)


def _interrupt(number: int, frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt(signal.Signals(number).name)


@pytest.hookimpl(wrapper=True, tryfirst=True)  # around all others: none of them may forgive what is red
def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> Iterator[None]:
    """Close the ledger, and fail the session where the record does, whatever became of its tests."""
    if display := session.config.stash.get(DISPLAY, None):
        display.close()
    cut_short = exitstatus == pytest.ExitCode.INTERRUPTED or bool(session.shouldfail)  # that is -x
    perf = session.config.stash[SESSION]
    is_red = _owes_verdicts(session.config, exitstatus) and _is_red(perf, cut_short=cut_short)
    try:
        return (yield)
    finally:
        if is_red and session.exitstatus in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED):
            session.exitstatus = pytest.ExitCode.TESTS_FAILED


def _is_red(perf: PerfSession, *, cut_short: bool) -> bool:
    """Close the session; whether a verdict is red or still owed, or a case failed."""
    try:
        record = perf.close(cut_short=cut_short)
    except PerfError as error:
        perf.problem = str(error)
        return True
    owes = bool(perf.judging.ledger.missing() or perf.problem)
    return owes or (record is not None and not perf.judging.is_all_green(record))


def _owes_verdicts(config: pytest.Config, exitstatus: int) -> bool:
    """Whether the session was to measure anything at all."""
    refused = exitstatus == pytest.ExitCode.USAGE_ERROR
    return bool(config.stash[SESSION].selection.cases) and not config.option.collectonly and not refused


# The terminal


def pytest_report_header(config: pytest.Config) -> list[str]:
    """Print where the numbers come from, and where they go."""
    return summary.header(config.stash[SESSION].options, config.stash[TARGET])


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, exitstatus: int, config: pytest.Config
) -> Iterator[None]:
    """Print the verdicts, what explains them and what is missing, after everything else: there one looks
    first. What they explain, pytest need not print, too."""
    stats, everything = terminalreporter.stats, dict(terminalreporter.stats)
    if not config.stash[SESSION].options.show_all:
        for category, reports in everything.items():
            stats[category] = [each for each in reports if not _is_explained(config, each)]
    yield
    stats.update(everything)
    _report(terminalreporter, exitstatus, config)


def _report(terminalreporter: pytest.TerminalReporter, exitstatus: int, config: pytest.Config) -> None:
    perf, width, taken = config.stash[SESSION], _width(config), 0
    if missing := perf.judging.ledger.missing() if _owes_verdicts(config, exitstatus) else ():
        terminalreporter.section("selected, but no verdict was given", red=True)
        uncollected = summary.uncollected(collection.uncollected_groups(config))
        by_case = summary.by_case(missing) if perf.options.show_all else summary.missing(missing, width)
        for paragraph in (uncollected, by_case):
            _write(terminalreporter, paragraph)
        taken = len(("", *uncollected, "", *by_case, ""))
    if perf.record is not None:
        _report_record(terminalreporter, config, perf.record, taken)
        if exitstatus == pytest.ExitCode.INTERRUPTED:
            terminalreporter.section("stopped before the end", yellow=True)
            _write(terminalreporter, summary.stopped(perf))
    if perf.problem:
        terminalreporter.section(UNWRITABLE, red=True)
        _write(terminalreporter, [perf.problem])


def _report_record(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config, record: RunRecord, taken: int
) -> None:
    """On the terminal, next to lines that are `taken`, and in brief on the page of the job on GitHub."""
    perf, selection = config.stash[SESSION], config.stash[SELECTION]
    show_all = perf.options.show_all
    is_brief = bool(os.environ.get("GITHUB_STEP_SUMMARY")) or not show_all
    taken = 0 if show_all else taken
    brief = summary.brief(perf, record, selection, _width(config), taken=taken) if is_brief else None
    if brief:
        summary.write_page(brief)
    terminalreporter.section("performance")
    if show_all or brief is None:
        for lines in summary.everything(perf, record, selection):
            _write(terminalreporter, lines)
    else:
        _write_brief(terminalreporter, brief, perf)


def _is_explained(config: pytest.Config, report: Any) -> bool:
    return getattr(report, "when", None) == "call" and report.nodeid in config.stash[EXPLAINED]


def _write_brief(terminalreporter: pytest.TerminalReporter, brief: Brief, perf: PerfSession) -> None:
    _write(terminalreporter, brief.remarks)
    for line in brief.table:
        terminalreporter.write_line(line.text, **({line.colour: True} if line.colour else {}))
    if brief.causes:
        terminalreporter.section("why it is red", red=True)
    for heading, *lines in brief.causes:
        terminalreporter.write_line(heading, bold=True)
        _write(terminalreporter, lines)
    if not perf.problem:
        _write(terminalreporter, [f"{brief.title}; {summary.where(perf)}"])


def _width(config: pytest.Config) -> int:
    """Of the terminal; of a log, which has none, as much as its readers show."""
    is_told = "COLUMNS" in os.environ or sys.stdout.isatty()
    return config.get_terminal_writer().fullwidth if is_told else LOG_WIDTH


def _write(terminalreporter: pytest.TerminalReporter, lines: Sequence[str]) -> None:
    for line in lines:
        terminalreporter.write_line(line)
    if lines:
        terminalreporter.write_line("")


# pytest-benchmark


@pytest.hookimpl(optionalhook=True)
def pytest_benchmark_update_machine_info(config: pytest.Config, machine_info: dict[str, Any]) -> None:
    """Report the GPU and the stack instead of what pytest-benchmark sees of the host."""
    record = config.stash[SESSION].record
    if record is not None and record.environment is not None:
        machine_info.update(replaying.machine_info(record.environment))


@pytest.hookimpl(optionalhook=True, tryfirst=True)
def pytest_benchmark_compare_machine_info(
    machine_info: dict[str, Any], compared_benchmark: dict[str, Any]
) -> None:
    """Do not let pytest-benchmark warn of another machine: it compares machines before anything is measured,
    when no worker has described this one yet."""
    saved = compared_benchmark["machine_info"]
    machine_info.update({name: saved[name] for name in replaying.MACHINE_INFO if name in saved})


@pytest.hookimpl(optionalhook=True)
def pytest_benchmark_update_json(config: pytest.Config, output_json: dict[str, Any]) -> None:
    """Add what is known of each case at the end: it was not yet judged when its times were replayed."""
    record = config.stash[SESSION].record
    runs = {run.id: run for run in record.cases} if record else {}
    for each in output_json["benchmarks"]:
        if run := runs.get(each["extra_info"].get("case", "")):
            each["extra_info"].update(replaying.extra_info(run))
