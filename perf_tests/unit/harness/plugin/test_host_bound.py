"""A row whose steps wait for the host: a quiet host and a busy one agree on it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from perf_tests.harness.runs.record import Status
from perf_tests.unit.conftest import ROOT, Misbehave, Plug, Suite, rebaseline
from perf_tests.unit.harness.plugin.sessions import screen

SLIM = "flux1-dev-slim-b1-fp8dqrow-regional"
LATENCY = str(ROOT / "perf_tests" / "test_latency.py")
ROW = ("-m", "h100", f"--perf-case={SLIM}")
BUSY_HOST = f"busy-host:60@{SLIM},slower:70@{SLIM}"
"""Tasks wait for a core 60 % of the time, and each step takes 1.7 times as long."""


@pytest.fixture(scope="module")
def accepted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for the baseline of a quiet host, which is recorded once."""
    return tmp_path_factory.mktemp("accepted") / "baselines"


@pytest.fixture
def recorded_quiet(suite: Suite, plug_gpu: Plug, accepted: Path) -> Suite:
    plug_gpu()
    if not accepted.exists():
        shutil.copytree(suite.baselines, accepted)
        suite.baselines = accepted
        suite.run(*ROW, "--perf-processes=3")
        accept = ("apply", str(suite.out), "--only", SLIM, "--reason", "a quiet host", "--write")
        assert rebaseline([*accept, "--baselines", str(accepted)]) == 0
    suite.baselines = accepted
    return suite


@pytest.mark.parametrize(
    ("switches", "busy", "wall"),
    [
        pytest.param("", Status.PASS, Status.PASS, id="quiet"),
        pytest.param(BUSY_HOST, Status.PASS, Status.NOT_COMPARED, id="busy"),
    ],
)
def test_unchanged_code_is_green(
    recorded_quiet: Suite, misbehave: Misbehave, switches: str, busy: Status, wall: Status
) -> None:
    misbehave(switches)
    result = recorded_quiet.run(*ROW, tests=(LATENCY,))

    assert result.ret == pytest.ExitCode.OK, screen(result)
    statuses = recorded_quiet.statuses(SLIM)
    assert (statuses["step_busy_ms"], statuses["denoise_step_ms"]) == (busy, wall)
    (run,) = (each for each in recorded_quiet.record().cases if each.id == SLIM)
    instead = {each.metric for each in run.verdicts if "is judged instead" in each.reason}
    of_steps = {"denoise_step_ms", "speedup_vs_bf16"}
    assert instead == (of_steps if wall is Status.NOT_COMPARED else set())
    assert statuses["speedup_vs_bf16"] is wall


@pytest.mark.parametrize("host", ["", f",{BUSY_HOST}"], ids=["quiet", "busy"])
def test_slower_kernels_are_red(recorded_quiet: Suite, misbehave: Misbehave, host: str) -> None:
    misbehave(f"reports:step_busy_ms=6.5@{SLIM}{host}")  # 4 % more than 6.25 ms
    result = recorded_quiet.run(*ROW, tests=(LATENCY,))

    assert result.ret == pytest.ExitCode.TESTS_FAILED
    assert recorded_quiet.statuses(SLIM)["step_busy_ms"] is Status.REGRESSED


def test_a_change_of_kind_of_the_wall_clock_is_red_on_a_quiet_host(
    recorded_quiet: Suite, misbehave: Misbehave
) -> None:
    misbehave(f"slower:160@{SLIM}")
    recorded_quiet.run(*ROW, tests=(LATENCY,))
    assert recorded_quiet.statuses(SLIM)["denoise_step_ms"] is Status.REGRESSED


def test_a_time_of_the_device_that_was_not_recorded_is_red(
    recorded_quiet: Suite, misbehave: Misbehave
) -> None:
    misbehave(f"missing-metric:step_busy_ms@{SLIM}")
    recorded_quiet.run(*ROW, tests=(LATENCY,))
    assert recorded_quiet.statuses(SLIM)["step_busy_ms"] is Status.INCONCLUSIVE
