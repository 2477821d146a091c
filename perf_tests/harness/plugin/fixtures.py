"""The fixtures of the suite's tests. They look things up in the session, and own nothing."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, NoReturn, TypeVar

import pytest

from perf_tests.harness.plugin import known_issues
from perf_tests.harness.plugin.collection import EXPLAINED, SESSION, judged_group
from perf_tests.harness.plugin.judging import can_be_judged
from perf_tests.harness.plugin.options import Options
from perf_tests.harness.plugin.session import UNWRITABLE, PerfSession
from perf_tests.harness.report import failure
from perf_tests.harness.report import pytest_benchmark as replaying
from perf_tests.harness.runs.record import Run, Status
from perf_tests.protocol.errors import PerfError
from perf_tests.tables.cases import Case
from perf_tests.tables.known_issues import KnownIssue
from perf_tests.tables.metrics.spec import Group

if TYPE_CHECKING:
    from pytest_benchmark.fixture import BenchmarkFixture

T = TypeVar("T")


class Judged:
    """One case under one test."""

    def __init__(self, session: PerfSession, run: Run, group: Group | None, item: pytest.Item) -> None:
        self._session = session
        self._run = run
        self._group = group
        self._item = item

    def check_build(self) -> None:
        """Fail once for a case that could not be measured as asked; skip one that need not be supported."""
        __tracebackhide__ = True
        self._session.settle_build(self._run)
        unbuilt = self._run.failure is not None or self._run.status is Status.NOT_RUN
        outcome = self._run.status if unbuilt else Status.PASS
        self._item.user_properties.append(("build", outcome.value))
        if self._run.status is Status.NOT_RUN:
            self._skip(f"{self._run.status.value}: {self._run.reason}")
        if self._session.judging.is_green(self._run):
            if self._run.status is Status.UNSUPPORTED:
                self._skip(self._run.reason)
            return
        self._fail(failure.explain_failure(run=self._run, run_path=str(self._session.options.out)))

    def replay(self, benchmark: BenchmarkFixture) -> None:
        """Show the device times of the generations in pytest-benchmark; an unproven build has none."""
        __tracebackhide__ = True
        if self._run.failure is not None or self._run.status is Status.NOT_RUN:
            self._skip(self._see_build())
        seconds = replaying.device_latencies_s(self._run)
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
            self._fail(self._session.explain(self._run, red))
        if not verdicts:
            self._skip(self._see_build())

    def _skip_unmeasured(self) -> None:
        __tracebackhide__ = True
        if not can_be_judged(self._run):
            self._skip(self._see_build())

    def _fail(self, text: str) -> NoReturn:
        __tracebackhide__ = True
        self._item.config.stash[EXPLAINED].add(self._item.nodeid)
        pytest.fail(text, pytrace=False)

    def _skip(self, why: str) -> NoReturn:
        __tracebackhide__ = True
        self._item.config.stash[EXPLAINED].add(self._item.nodeid)
        pytest.skip(why)

    def _see_build(self) -> str:
        return f"{self._run.status.value}: see test_build[{self._run.id}]"


@pytest.fixture
def judged(request: pytest.FixtureRequest, case: Case) -> Judged:
    """The case of the test's parameter, measured: the first test that asks pays for it."""
    session = request.config.stash[SESSION]
    run = _or_stop(session, partial(session.measure, case.id))
    return Judged(session, run, judged_group(request.node), request.node)


def _or_stop(session: PerfSession, ask: Callable[[], T]) -> T:
    """The answer of `ask`; for a PerfError, end the session: where the run directory cannot be written, every
    further measurement would be lost."""
    try:
        return ask()
    except PerfError as error:
        session.problem = str(error)
        pytest.exit(UNWRITABLE, returncode=pytest.ExitCode.TESTS_FAILED)


class Watched:
    """One known issue under its test."""

    def __init__(self, issue: KnownIssue, options: Options, item: pytest.Item) -> None:
        self._issue = issue
        self._options = options
        self._item = item

    def check(self) -> None:
        """Fail where the issue is fixed, or can no longer be reproduced as its row says."""
        __tracebackhide__ = True
        log = self._options.out / "logs" / f"{self._issue.id}.log"
        try:
            finding = known_issues.watch(self._issue, self._options.python, log)
        except PerfError as error:
            pytest.fail(str(error), pytrace=False)
        self._item.user_properties.append(("known_issue", finding.text))
        if not finding.as_expected:
            pytest.fail(finding.text, pytrace=False)


@pytest.fixture
def watched(request: pytest.FixtureRequest, known_issue: KnownIssue) -> Watched:
    """The known issue of the test's parameter."""
    return Watched(known_issue, request.config.stash[SESSION].options, request.node)
