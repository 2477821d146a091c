"""A case whose shapes change between calls: green as it is, and red for what is compiled twice or no more."""

from __future__ import annotations

from pathlib import Path

import pytest

from perf_tests.harness.runs.record import Status
from perf_tests.unit.conftest import Misbehave, Plug, Suite, rebaseline

RESHAPED = "flux-mini-b1-bf16-regional-reshaped"
ONLY = f"--perf-case={RESHAPED}"
REGULAR = "pixart-mini-b1-bf16-regional-reshaped-dynamic"
ON_H100 = "flux1-dev-slim-b1-fp8dqrow-regional-reshaped"


def test_a_case_of_several_shapes_is_green(suite: Suite) -> None:
    result = suite.run(ONLY)

    assert result.ret == pytest.ExitCode.OK
    assert suite.statuses(RESHAPED)["graphs_on_return"] is Status.PASS
    assert suite.case(RESHAPED).measured["graphs_of_changes"] == 6.0


@pytest.mark.parametrize("metric", ["graphs_on_return", "eager_blocks_after_change"])
def test_a_shape_that_is_compiled_again_or_no_longer_has_regressed(
    suite: Suite, misbehave: Misbehave, metric: str
) -> None:
    misbehave(f"reports:{metric}=1@{RESHAPED}")
    suite.run(ONLY)

    statuses = suite.statuses(RESHAPED)
    assert {name for name, status in statuses.items() if not status.is_green} == {metric}


@pytest.fixture
def accepted(suite: Suite, tmp_path: Path) -> Suite:
    """Sessions judged by a baseline of the row that `pytest -m cpu` has, which is dynamic."""
    suite.baselines = tmp_path / "accepted"
    suite.baselines.mkdir()
    suite.run(f"--perf-case={REGULAR}")
    accept = ["apply", str(suite.out), "--only", REGULAR, "--reason", "first", "--write"]
    assert rebaseline([*accept, "--baselines", str(suite.baselines)]) == 0
    return suite


def test_the_row_of_the_main_job_takes_one_sample_and_needs_no_reference(accepted: Suite) -> None:
    result = accepted.run(f"--perf-case={REGULAR}")

    assert result.ret == pytest.ExitCode.OK
    assert accepted.record().references == ()
    (process,) = accepted.case(REGULAR).processes
    assert (len(process.samples), len(process.twin_samples)) == (1, 0)
    assert accepted.statuses(REGULAR)["graphs_of_changes"] is Status.PASS


@pytest.mark.parametrize(
    "count", [pytest.param(3, id="a graph for each shape"), pytest.param(0, id="a graph of another shape")]
)
def test_one_graph_more_or_less_than_recorded_has_regressed(
    accepted: Suite, misbehave: Misbehave, count: int
) -> None:
    misbehave(f"reports:graphs_of_changes={count}@{REGULAR}")
    accepted.run(f"--perf-case={REGULAR}")

    statuses = accepted.statuses(REGULAR)
    assert {name for name, status in statuses.items() if not status.is_green} == {"graphs_of_changes"}


def test_changes_on_a_gpu_are_counted_exactly_and_timed(suite: Suite, plug_gpu: Plug) -> None:
    plug_gpu()
    suite.run("-m", "h100 and flux", f"--perf-case={ON_H100}*")

    static, dynamic = suite.case(ON_H100), suite.case(f"{ON_H100}-dynamic")
    assert static.measured["graphs_of_changes"] == 6.0
    assert dynamic.measured["graphs_of_changes"] == 2.0
    owed = {verdict.metric: verdict.status for verdict in static.verdicts}
    assert owed["graphs_of_changes"] is Status.NO_BASELINE
    assert owed["first_image_after_change_s"] is Status.NO_BASELINE
