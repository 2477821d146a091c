"""The exit code follows the record, not what pytest and its plugins think of the tests."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import pytest

from perf_tests.harness.runs.record import Status
from perf_tests.unit.conftest import BF16, ROOT, Suite
from perf_tests.unit.harness.plugin.sessions import BUILD, LATENCY, ONLY_BF16, RATIO, screen

SLOWER = "--perf-inject=latency:+150%"
SUITE = (str(ROOT / "perf_tests"), f"--ignore={ROOT / 'perf_tests' / 'unit'}")
"""The folder that the whole suite lies in, named as a user would."""


class Relabels:
    """Reports every failure as a pass, like a plugin that knows better."""

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self) -> Generator[None, Any, Any]:
        report = yield
        if report.outcome == "failed":
            report.outcome = "passed"
        return report


class Excuses:
    """Marks every test as expected to fail."""

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        for item in items:
            item.add_marker(pytest.mark.xfail(reason="known", strict=False))


class Skips:
    """Turns every failure into a skip."""

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self) -> Generator[None, Any, Any]:
        report = yield
        if report.outcome == "failed":
            report.outcome, report.longrepr = "skipped", (str(ROOT), 1, "quarantined")
        return report


class Quarantines:
    """Forgives the whole session once it is over."""

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        session.exitstatus = pytest.ExitCode.OK


class ForgivesLate:
    """Forgives the session from outside of the other hooks."""

    @pytest.hookimpl(wrapper=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> Generator[None]:
        yield
        session.exitstatus = pytest.ExitCode.OK


@pytest.mark.parametrize("plugin", [Relabels, Excuses, Skips, Quarantines, ForgivesLate])
def test_a_red_verdict_fails_the_session_whatever_a_plugin_makes_of_the_test(
    suite: Suite, plugin: type
) -> None:
    result = suite.run(ONLY_BF16, SLOWER, tests=(LATENCY,), plugins=(plugin(),))

    assert suite.statuses(BF16)[RATIO] is Status.REGRESSED
    assert result.ret == pytest.ExitCode.TESTS_FAILED


@pytest.mark.parametrize("plugin", [Relabels, Excuses, Skips, Quarantines])
def test_a_failed_case_fails_the_session_whatever_a_plugin_makes_of_its_tests(
    suite: Suite, plugin: type
) -> None:
    result = suite.run(ONLY_BF16, "--perf-inject=oom", tests=(BUILD,), plugins=(plugin(),))

    assert result.ret == pytest.ExitCode.TESTS_FAILED


def test_a_green_record_stays_green_beside_such_a_plugin(suite: Suite) -> None:
    assert suite.run(ONLY_BF16, plugins=(Excuses(),)).ret == pytest.ExitCode.OK


# The ledger is planned from the tables


def test_the_whole_suite_is_green(suite: Suite) -> None:
    assert suite.run(ONLY_BF16, tests=SUITE).ret == pytest.ExitCode.OK


GONE = {
    "build": f"{BF16}: build",
    "latency": f"{BF16}: {RATIO}",
    "memory": f"{BF16}: model_memory_mib",
    "fidelity": f"{BF16}: distinct_outputs",
}
"""What a file of tests judges -> a verdict that is missing without it."""


def test_the_verdicts_of_files_that_are_gone_are_missing(suite: Suite) -> None:
    ignored = (f"--ignore={ROOT / 'perf_tests' / f'test_{group}.py'}" for group in GONE)
    result = suite.run(ONLY_BF16, *ignored, tests=SUITE)

    assert result.ret == pytest.ExitCode.TESTS_FAILED
    assert set(GONE.values()) <= set(suite.record().missing)
    printed = screen(result)
    assert [group for group in GONE if f"no test was collected that judges {group}" not in printed] == []


@pytest.mark.parametrize(
    "arguments",
    [("-k", "test_latency"), (f"--deselect={ROOT}/perf_tests/test_memory.py",)],
    ids=["keyword", "deselect"],
)
def test_the_verdicts_of_tests_that_were_deselected_are_not_owed(
    suite: Suite, arguments: tuple[str, ...]
) -> None:
    assert suite.run(ONLY_BF16, *arguments, tests=SUITE).ret == pytest.ExitCode.OK


def test_the_whole_suite_is_green_without_pytests_cache(suite: Suite) -> None:
    # Without the cache, the folder that the fixture sets for it is an unknown option.
    without = (
        "-p",
        "no:cacheprovider",
        "-o",
        "strict_config=false",
        "-W",
        "ignore::pytest.PytestConfigWarning",
    )
    assert suite.run(ONLY_BF16, *without, tests=SUITE).ret == pytest.ExitCode.OK


def test_the_last_failed_of_the_whole_suite_alone_owe_a_verdict(suite: Suite) -> None:
    suite.run(ONLY_BF16, SLOWER, tests=SUITE)
    again = suite.run(ONLY_BF16, "--lf", tests=SUITE)

    assert again.ret == pytest.ExitCode.OK
    again.assert_outcomes(passed=1)
