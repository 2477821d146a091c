"""Recording the rows that lack processes in one command, seen from outside."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from perf_tests.harness.baselines import files
from perf_tests.harness.compare import published
from perf_tests.harness.runs.record import Status
from perf_tests.unit.builders import store_baselines
from perf_tests.unit.conftest import FP8DQROW, ROOT, Plug, Suite, rebaseline
from perf_tests.unit.harness.plugin.sessions import BUILD, collected, screen

UNSETTLED = ("-m", "h100 and unsettled")
WO, DQ = "flux1-dev-b1-int8wo-eager", "flux1-dev-b1-fp8dq-eager"
TWO = (f"--perf-case={WO}", f"--perf-case={DQ}")


@pytest.fixture
def h100(suite: Suite, plug_gpu: Plug) -> Suite:
    """A suite on an H100 with a copy of its baselines, in which one row has one process, and of what was
    published."""
    plug_gpu()
    suite.baselines = Path(shutil.copytree(suite.baselines, suite.folder / "baselines"))
    shutil.copytree(ROOT / "baselines" / "published", suite.baselines / "published")
    return suite


def _settle(suite: Suite) -> None:
    before = files.read(suite.baselines, "h100", "flux1-dev")
    entry = before.cases[FP8DQROW]
    thrice = {name: values * 3 if len(values) == 1 else values for name, values in entry.metrics.items()}
    settled = msgspec.structs.replace(entry, metrics=thrice, processes=3)
    store_baselines(suite.baselines, msgspec.structs.replace(before, cases={FP8DQROW: settled}))
    assert rebaseline(["rewrite", "--baselines", str(suite.baselines)]) == 0  # the noise they show


def test_rows_of_fewer_than_three_processes_lack_some(h100: Suite) -> None:
    assert FP8DQROW in collected(h100.run(*UNSETTLED, "--collect-only", "-q", tests=(BUILD,)))
    _settle(h100)
    left = collected(h100.run(*UNSETTLED, "--collect-only", "-q", tests=(BUILD,)))
    assert FP8DQROW not in left
    assert WO in left


def test_rows_of_a_cpu_are_not_asked_for(h100: Suite) -> None:
    result = h100.run("-m", "cpu and unsettled", "--collect-only", "-q", tests=(BUILD,))
    assert result.ret == pytest.ExitCode.NO_TESTS_COLLECTED


def _order(result: pytest.RunResult) -> Iterator[str]:
    return (line.partition("[")[2].rstrip("]") for line in result.outlines if "::test_build[" in line)


def test_published_rows_are_measured_before_the_rest(h100: Suite) -> None:
    ids = list(_order(h100.run(*UNSETTLED, "--collect-only", "-q", tests=(BUILD,))))
    known = published.latencies_s(h100.baselines / "published")
    was_published = [published.PUBLISHED_IDS[case] in known for case in ids]
    assert was_published == sorted(was_published, reverse=True)
    assert 0 < sum(was_published) < len(ids)


def test_two_sessions_within_a_budget_record_all_rows(h100: Suite) -> None:
    first = h100.run(*UNSETTLED, *TWO, "--perf-processes=3", "--perf-budget=1s", tests=(BUILD,))
    assert first.ret == pytest.ExitCode.TESTS_FAILED
    assert {run.status for run in h100.record().cases} == {Status.NOT_RUN}, screen(first)

    h100.run(*UNSETTLED, *TWO, "--perf-processes=3", "--perf-resume")
    assert [len(run.processes) for run in h100.record().cases] == [3, 3]
    accept = ("apply", str(h100.out), "--only", "*", "--reason", "first numbers", "--write")
    assert rebaseline([*accept, "--baselines", str(h100.baselines)]) == 0
    assert not collected(h100.run(*UNSETTLED, *TWO, "--collect-only", "-q", tests=(BUILD,)))


def test_several_cards_record_each_row_on_one_of_them(h100: Suite, plug_gpus: Plug) -> None:
    plug_gpus(2)
    rows = ("--perf-case=flux1-schnell-b1-bf16-*", "--perf-case=sd3-medium-b1-bf16-*")
    h100.run(*UNSETTLED, *rows, "--perf-processes=3", "--perf-gpus=all", tests=(BUILD,))
    units = [{process.environment.unit for process in run.processes} for run in h100.record().cases]
    assert len(units) > 3
    assert {len(each) for each in units} == {1}
    assert len(set().union(*units)) == 2


def test_a_store_that_cannot_be_read_is_one_usage_error(h100: Suite) -> None:
    files.path_of(h100.baselines, "h100", "flux1-dev", FP8DQROW).write_text("{")
    result = h100.run(*UNSETTLED, "--collect-only", "-q", tests=(BUILD,))
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert "is not JSON" in screen(result)
