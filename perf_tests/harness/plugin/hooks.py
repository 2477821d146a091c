"""Options, fixtures and hooks: the pytest side of a session. Fixtures look up; they own nothing."""

from __future__ import annotations

import datetime
import signal
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from types import FrameType
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import pytest

from perf_tests.harness.execution.gpu_lock import GpuLock
from perf_tests.harness.execution.machine import Target
from perf_tests.harness.plugin import known_issues, options
from perf_tests.harness.plugin.session import Session, check_selection
from perf_tests.harness.report import ab_comparison as against_report
from perf_tests.harness.report import costs, terminal
from perf_tests.harness.report import plan as plan_report
from perf_tests.harness.report import pytest_benchmark as replaying
from perf_tests.harness.runs.record import Run, RunRecord, Status
from perf_tests.harness.verdicts.judge import gated_metrics
from perf_tests.protocol.errors import PerfError, UsageError
from perf_tests.tables.cases import Case, Row, Weights
from perf_tests.tables.known_issues import KNOWN_ISSUES, KnownIssue
from perf_tests.tables.matrix import MATRIX
from perf_tests.tables.metrics import METRICS, Group
from perf_tests.tables.pipelines.rows import PIPELINES
from perf_tests.tables.platforms import PLATFORMS, Device, Platform

if TYPE_CHECKING:
    from pytest_benchmark.fixture import BenchmarkFixture

T = TypeVar("T")

SESSION = pytest.StashKey[Session]()
TARGET = pytest.StashKey["Target"]()
SELECTED = pytest.StashKey[tuple[list[tuple[Case, Platform]], frozenset[str]]]()
UNWRITABLE = "the run directory cannot be written"
EXHAUSTIVE_GROUPS = (None, Group.NUMERICS)
"""What the tests of the cross product judge: the build, and what the tables imply without a baseline."""


# Options


def pytest_addoption(parser: pytest.Parser) -> None:
    """Declare the public options."""
    # Before it knows these options, pytest looks for its configuration beside every argument that exists.
    title = "performance of quantized and compiled diffusion pipelines (paths with =: --perf-out=DIR)"
    options.declare(parser.getgroup("perf", title))


def pytest_configure(config: pytest.Config) -> None:
    """Read the options and look at the machine, once."""
    for marker in _markers():
        config.addinivalue_line("markers", marker)
    try:
        chosen = options.read(config.option)
        check_selection(chosen, [*_rows(chosen.weights), *(issue.id for issue in KNOWN_ISSUES)])
        config.stash[TARGET] = Target.of_this_machine()
    except PerfError as error:
        raise pytest.UsageError(str(error)) from None
    config.stash[SESSION] = Session(chosen, tuple(config.invocation_params.args), config.stash[TARGET].unit)


def _markers() -> Iterator[str]:
    """What `-m` can select, with its description: platforms and families are those of the tables."""
    yield "judges(group): the group of metrics a test asserts; none: the build"
    yield 'exhaustive: the cross product of schemes and miniatures, where asked for ("cpu and exhaustive")'
    for platform in PLATFORMS:
        machine = platform.gpu.name if platform.gpu else "the CPU of any machine"
        yield f"{platform.id}: cases measured on {machine}"
    for family in dict.fromkeys(pipeline.family for pipeline in PIPELINES):
        yield f"{family}: pipelines of the family {family}"


# Collection


def _rows(weights: Weights) -> Mapping[str, tuple[Row, Case]]:
    """Case id -> its row of the matrix, and the case."""
    cases = ((row, row.case(weights)) for row in MATRIX)
    return {case.id: (row, case) for row, case in cases}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """One test per case, marked with its platforms and its pipeline's family; one per known issue."""
    if "known_issue" in metafunc.fixturenames:
        _generate_known_issues(metafunc)
    if "case" not in metafunc.fixturenames or not metafunc.definition.get_closest_marker("judges"):
        return
    asked, target = metafunc.config.stash[SESSION].options, metafunc.config.stash[TARGET]
    group = _judged_group(metafunc.definition)
    chosen = [
        (row, case)
        for row, case in _rows(asked.weights).values()
        if asked.selects(case.id) and _is_judged_by(group, row, case)
    ]
    metafunc.parametrize(
        "case",
        [pytest.param(case, id=case.id, marks=_marks(row, target)) for row, case in chosen],
    )


def _generate_known_issues(metafunc: pytest.Metafunc) -> None:
    asked, target = metafunc.config.stash[SESSION].options, metafunc.config.stash[TARGET]
    metafunc.parametrize(
        "known_issue",
        [
            pytest.param(issue, id=issue.id, marks=_platform_marks(target.platforms(issue), target))
            for issue in KNOWN_ISSUES
            if asked.selects(issue.id)
        ],
    )


def _is_judged_by(group: Group | None, row: Row, case: Case) -> bool:
    """Whether a test of `group` has anything to say about the case."""
    if row.exhaustive and group not in EXHAUSTIVE_GROUPS:
        return False
    return group is None or any(gated_metrics(case, platform, group) for platform in row.platforms)


def _marks(row: Row, target: Target) -> list[pytest.MarkDecorator]:
    names = (row.pipeline.family, *(["exhaustive"] if row.exhaustive else []))
    marks = [getattr(pytest.mark, name) for name in names]
    return [*marks, *_platform_marks(target.platforms(row), target)]


def _platform_marks(platforms: Sequence[Platform], target: Target) -> list[pytest.MarkDecorator]:
    """The platforms' markers, and a skip where this machine is none of them."""
    marks = [getattr(pytest.mark, platform.id) for platform in platforms]
    if not any(target.can_measure(platform) for platform in platforms):
        wanted = " or ".join(platform.id for platform in platforms)
        marks.append(pytest.mark.skip(reason=f"needs {wanted}; this machine has {target.found}"))
    return marks


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out the cross product unless it is asked for, and what belongs to other shards."""
    session = config.stash[SESSION]
    items[:] = [item for item in items if not _lacks_its_parameter(item)]
    kept = [item for item in items if not item.get_closest_marker("exhaustive") or _is_asked_for(item)]
    if session.options.shard is not None:
        judging = [item for item in kept if item.get_closest_marker("judges")]
        mine = _or_usage_error(partial(session.shard, _selected(config, judging), _exhaustive(judging)))
        kept = [item for item in kept if not item.get_closest_marker("judges") or _case(item).id in mine]
    left_out = [item for item in items if item not in kept]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = kept


def _selected(config: pytest.Config, items: Sequence[pytest.Item]) -> list[tuple[Case, Platform]]:
    """The cases of `items`, each once, with the platform it is filed under: this machine's or another's."""
    target, rows = config.stash[TARGET], _rows(config.stash[SESSION].options.weights)
    cases = {_case(item).id: _case(item) for item in items}
    return [(case, target.platforms(rows[case_id][0])[0]) for case_id, case in cases.items()]


def _exhaustive(items: Sequence[pytest.Item]) -> frozenset[str]:
    """The ids of those that belong to the cross product."""
    return frozenset(_case(item).id for item in items if item.get_closest_marker("exhaustive"))


def _or_usage_error(ask: Callable[[], T]) -> T:
    try:
        return ask()
    except PerfError as error:
        raise pytest.UsageError(str(error)) from None


def _is_asked_for(item: pytest.Item) -> bool:
    """Whether a test of the cross product is named: by its marker, its whole case id or its own name."""
    option = item.config.option
    by_name = any("::" in argument for argument in item.config.args)
    return "exhaustive" in option.markexpr or _case(item).id in option.perf_case or by_name


@pytest.hookimpl(tryfirst=True)  # before the terminal asks for `pytest_report_collectionfinish`
def pytest_collection_finish(session: pytest.Session) -> None:
    """Enter what was selected into the books, now that every plugin has deselected what it wants to."""
    judging = [item for item in session.items if item.get_closest_marker("judges")]
    session.config.stash[SELECTED] = (_selected(session.config, judging), _exhaustive(judging))
    if not judging:
        return
    _or_usage_error(partial(_enter, session.config, judging))


def _enter(config: pytest.Config, items: Sequence[pytest.Item]) -> None:
    _refuse_parallel(config)
    _plan(config, items)
    _lock_gpu(config)


def _lock_gpu(config: pytest.Config) -> None:
    """One suite on one GPU, until pytest ends."""
    session, target = config.stash[SESSION], config.stash[TARGET]
    if session.is_on_gpu and target.unit is not None and not config.option.collectonly:
        config.add_cleanup(GpuLock(target.unit).release)


def _refuse_parallel(config: pytest.Config) -> None:
    if hasattr(config, "workerinput") or getattr(config.option, "numprocesses", None):
        raise UsageError("pytest-xdist runs tests side by side, and they would share one GPU: run with -n 0")


def _plan(config: pytest.Config, items: Sequence[pytest.Item]) -> None:
    session, target = config.stash[SESSION], config.stash[TARGET]
    rows = _rows(session.options.weights)
    on_gpu = False
    for item in items:
        case = _case(item)
        platforms = target.platforms(rows[case.id][0])
        if target.problem and all(platform.device is Device.CUDA for platform in platforms):
            raise UsageError(target.problem)
        here = [platform for platform in platforms if target.can_measure(platform)]
        on_gpu = on_gpu or any(platform.device is Device.CUDA for platform in here)
        for platform in here[:1]:
            exhaustive = rows[case.id][0].exhaustive
            session.plan(case, platform, _judged_group(item), exhaustive=exhaustive)
    if session.options.require_gpu and not on_gpu:
        raise UsageError(
            f"--perf-require-gpu: no selected case can run here; this machine has {target.found}"
        )
    session.check_plan()


def _lacks_its_parameter(item: pytest.Item) -> bool:
    """Whether this is what pytest makes of a test without a single case or known issue."""
    parameters = (
        item.callspec.params if isinstance(item, pytest.Function) and hasattr(item, "callspec") else {}
    )
    types = {"case": Case, "known_issue": KnownIssue}
    return any(not isinstance(parameters[name], types[name]) for name in types.keys() & parameters.keys())


def _case(item: pytest.Item) -> Case:
    case = item.callspec.params["case"] if isinstance(item, pytest.Function) else None
    assert isinstance(case, Case), f"{item.nodeid} judges no case"
    return case


def _judged_group(item: pytest.Item) -> Group | None:
    marker = item.get_closest_marker("judges")
    return marker.args[0] if marker and marker.args else None


# Fixtures


class Judged:
    """One case under one test."""

    def __init__(self, session: Session, run: Run, group: Group | None, item: pytest.Item) -> None:
        self._session = session
        self._run = run
        self._group = group
        self._item = item

    def check_build(self) -> None:
        """Fail once for a case that could not be measured as asked; skip one that need not be supported."""
        __tracebackhide__ = True
        self._session.say_built(self._run)
        unbuilt = self._run.failure is not None or self._run.status is Status.NOT_RUN
        outcome = self._run.status if unbuilt else Status.PASS
        self._item.user_properties.append(("build", outcome.value))
        if self._run.status is Status.NOT_RUN:
            pytest.skip(f"{self._run.status.value}: {self._run.reason}")
        if self._session.is_green(self._run):
            if self._run.status is Status.UNSUPPORTED:
                pytest.skip(self._run.reason)
            return
        pytest.fail(self._session.explain_failure(self._run), pytrace=False)

    def replay(self, benchmark: BenchmarkFixture) -> None:
        """Show the device times of the generations in pytest-benchmark; an unproven build has none."""
        __tracebackhide__ = True
        if self._run.failure is not None or self._run.status is Status.NOT_RUN:
            pytest.skip(self._see_build())
        seconds = [
            second
            for process in self._run.processes
            for sample in process.samples
            for second in sample.values.get("device_latency_s", ())
        ]
        # The id instead of the repr of a whole table row; the rest follows when the session ends.
        benchmark.params = {"case": self._run.id}
        benchmark.extra_info["case"] = self._run.id
        if seconds:
            replaying.replay(benchmark, seconds)

    def check(self) -> None:
        """Judge the group's metrics and fail with one text that holds all violations."""
        __tracebackhide__ = True
        self._skip_unmeasured()
        assert self._group is not None, "test_build has its own check"
        verdicts = _or_stop(self._session, partial(self._session.judge, self._run, self._group))
        self._item.user_properties += [(v.metric, f"{v.status.value}: {v.reason}") for v in verdicts]
        red = [v for v in verdicts if not v.status.is_green]
        if red:
            pytest.fail(self._session.explain_all(self._run, red), pytrace=False)
        if not verdicts:
            pytest.skip(self._see_build())

    def _skip_unmeasured(self) -> None:
        __tracebackhide__ = True
        failed = self._run.failure is not None and self._run.status is not Status.UNPROVEN
        if failed or self._run.status is Status.NOT_RUN:
            pytest.skip(self._see_build())

    def _see_build(self) -> str:
        return f"{self._run.status.value}: see test_build[{self._run.id}]"


@pytest.fixture
def judged(request: pytest.FixtureRequest, case: Case) -> Judged:
    """The case, measured: the first test that asks pays for it."""
    session = request.config.stash[SESSION]
    run = _or_stop(session, partial(session.measure, case.id))
    return Judged(session, run, _judged_group(request.node), request.node)


class Watched:
    """One known issue under its test."""

    def __init__(self, issue: KnownIssue, asked: options.Options, item: pytest.Item) -> None:
        self._issue = issue
        self._asked = asked
        self._item = item

    def check(self) -> None:
        """Fail where the issue is mended, has expired, or cannot be shown any more."""
        __tracebackhide__ = True
        log = self._asked.out / "logs" / f"{self._issue.id}.log"
        try:
            finding = known_issues.watch(self._issue, self._asked.python, log, datetime.date.today())
        except PerfError as error:
            pytest.fail(str(error), pytrace=False)
        self._item.user_properties.append(("known_issue", finding.text))
        if not finding.as_expected:
            pytest.fail(finding.text, pytrace=False)


@pytest.fixture
def watched(request: pytest.FixtureRequest, known_issue: KnownIssue) -> Watched:
    """The known issue of the test's parameter."""
    return Watched(known_issue, request.config.stash[SESSION].options, request.node)


def _or_stop(session: Session, ask: Callable[[], T]) -> T:
    """The answer; where the run directory cannot be written, every further measurement would be lost."""
    try:
        return ask()
    except PerfError as error:
        session.problem = str(error)
        pytest.exit(UNWRITABLE, returncode=pytest.ExitCode.TESTS_FAILED)


# Session


@pytest.hookimpl(wrapper=True)
def pytest_runtestloop(session: pytest.Session) -> Iterator[None]:
    """While tests run, SIGTERM means what Ctrl-C means: stop, and lose nothing that was measured."""
    if threading.current_thread() is not threading.main_thread():
        return (yield)
    before = signal.signal(signal.SIGTERM, _interrupt)
    try:
        return (yield)
    finally:
        signal.signal(signal.SIGTERM, before)


def _interrupt(number: int, frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt(signal.Signals(number).name)


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Close the books: a planned pair without verdict, or a failed case without a failed test, is red."""
    perf = session.config.stash[SESSION]
    if not _owes_verdicts(session.config, exitstatus):
        return
    interrupted = exitstatus == pytest.ExitCode.INTERRUPTED
    try:
        record = perf.close(interrupted=interrupted)
    except PerfError as error:
        perf.problem = str(error)
        record = None
    failed = record is not None and not perf.is_all_green(record)
    if exitstatus == pytest.ExitCode.OK and (perf.ledger.missing() or failed or perf.problem):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def _owes_verdicts(config: pytest.Config, exitstatus: int) -> bool:
    """Whether the session was to measure anything at all."""
    refused = exitstatus == pytest.ExitCode.USAGE_ERROR
    return config.stash[SESSION].is_planned and not config.option.collectonly and not refused


def pytest_report_collectionfinish(config: pytest.Config) -> list[str]:
    """What the session is expected to cost."""
    session = config.stash[SESSION]
    if not session.options.plan:
        return []
    selected, once = config.stash[SELECTED]
    return ["", *plan_report.table(_or_usage_error(partial(session.expected, selected, once))), ""]


def pytest_report_header(config: pytest.Config) -> list[str]:
    """Where numbers come from and go to."""
    target, asked = config.stash[TARGET], config.stash[SESSION].options
    lines = [
        f"perf: {target.problem or target.found}; run directory {asked.out}; baselines {asked.baselines}"
    ]
    if asked.compile_cache is not None:
        lines.append(f"perf: compile caches from {asked.compile_cache}: compile_cold_s is not judged")
    if asked.against is not None:
        lines.append(
            f"perf: A/B of regressed times, and of those without a baseline, against {asked.against}"
        )
    if asked.autoquant_plans is not None:
        lines.append(f"perf: autoquant follows the plans in {asked.autoquant_plans}")
    return lines


@pytest.hookimpl(trylast=True)
def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, exitstatus: int, config: pytest.Config
) -> None:
    """What it cost, the table of verdicts, and what is missing: last, where one looks."""
    perf = config.stash[SESSION]
    record = perf.record
    if record is not None:
        terminalreporter.section("performance")
        _write_performance(terminalreporter, perf, record, config.stash[SELECTED])
    missing = perf.ledger.missing() if _owes_verdicts(config, exitstatus) else ()
    if missing:
        terminalreporter.section("planned, but no verdict was given", red=True)
        _write(terminalreporter, _by_case(missing))
    if perf.problem:
        terminalreporter.section(UNWRITABLE, red=True)
        _write(terminalreporter, [perf.problem])


def _write_performance(
    terminalreporter: pytest.TerminalReporter,
    perf: Session,
    record: RunRecord,
    selected: tuple[list[tuple[Case, Platform]], frozenset[str]],
) -> None:
    control = perf.control()
    if control is not None and control.moved:
        _write(terminalreporter, [control.text])
    units = {metric.name: metric.unit for metric in METRICS}
    _write(terminalreporter, costs.table(record.cases, record.references))
    if perf.options.plan:
        _write(terminalreporter, plan_report.accuracy(perf.accuracy(*selected)))
    if perf.noisy_metrics:
        _write(terminalreporter, [terminal.error_rates(perf.noisy_metrics, perf.level)])
    _write(terminalreporter, terminal.table(record.cases, units))
    _write(terminalreporter, against_report.table(record.comparisons, units))
    provisional = terminal.provisional(record.cases, perf.entries())
    if provisional:
        _write(
            terminalreporter,
            [f"provisional baselines (fewer than 3 processes): {', '.join(provisional)}"],
        )
    if not perf.problem:
        _write(terminalreporter, [f"raw samples: {perf.options.out}/run.json"])


def _by_case(pairs: Sequence[str]) -> list[str]:
    metrics: dict[str, list[str]] = {}
    for pair in pairs:
        case_id, _, metric = pair.partition(": ")
        metrics.setdefault(case_id, []).append(metric)
    return [f"{case_id}: {', '.join(names)}" for case_id, names in metrics.items()]


def _write(terminalreporter: pytest.TerminalReporter, lines: Sequence[str]) -> None:
    for line in lines:
        terminalreporter.write_line(line)
    if lines:
        terminalreporter.write_line("")


@pytest.hookimpl(optionalhook=True)
def pytest_benchmark_update_machine_info(config: pytest.Config, machine_info: dict[str, Any]) -> None:
    """The GPU and the stack instead of what pytest-benchmark sees of the host."""
    record = config.stash[SESSION].record
    if record is not None and record.environment is not None:
        machine_info.update(replaying.machine_info(record.environment))


@pytest.hookimpl(optionalhook=True, tryfirst=True)
def pytest_benchmark_compare_machine_info(
    machine_info: dict[str, Any], compared_benchmark: dict[str, Any]
) -> None:
    """pytest-benchmark compares machines before anything is measured, when no worker has described this one
    yet: without this, each comparison would begin with a warning about another machine."""
    saved = compared_benchmark["machine_info"]
    machine_info.update({name: saved[name] for name in replaying.MACHINE_INFO if name in saved})


@pytest.hookimpl(optionalhook=True)
def pytest_benchmark_update_json(config: pytest.Config, output_json: dict[str, Any]) -> None:
    """What is known of each case at the end: its latency was not yet judged when its times were replayed."""
    record = config.stash[SESSION].record
    runs = {run.id: run for run in record.cases} if record else {}
    for each in output_json["benchmarks"]:
        if run := runs.get(each["extra_info"].get("case", "")):
            each["extra_info"].update(replaying.extra_info(run))
