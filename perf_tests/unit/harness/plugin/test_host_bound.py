"""Rows whose steps wait for the host: a quiet host and a busy one agree on them."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest

from perf_tests.harness.runs.record import Status
from perf_tests.unit.conftest import ROOT, Misbehave, Plug, Suite, rebaseline
from perf_tests.unit.harness.plugin.sessions import screen

LATENCY = str(ROOT / "perf_tests" / "test_latency.py")


@dataclass(frozen=True, kw_only=True)
class HostBoundRow:
    """A case whose steps wait for the host, and what its time is called."""

    case: str
    step: str
    speedup: str
    busy: str
    busy_ms: float
    """Of the fake GPU."""

    @property
    def selected(self) -> tuple[str, ...]:
        return ("-m", "h100", f"--perf-case={self.case}")

    @property
    def busy_host(self) -> str:
        """Tasks wait for a core 60 % of the time, and each step takes 1.7 times as long."""
        return f"busy-host:60@{self.case},slower:70@{self.case}"


ROWS = (
    HostBoundRow(
        case="flux1-dev-slim-b1-fp8dqrow-regional",
        step="denoise_step_ms",
        speedup="speedup_vs_bf16",
        busy="step_busy_ms",
        busy_ms=6.25,
    ),
    HostBoundRow(
        case="flux1-dev-b1-bf16-regional-lora-fp8tensor-ckpt",
        step="train_step_ms",
        speedup="train_speedup_vs_bf16",
        busy="train_busy_ms",
        busy_ms=20.0,
    ),
)


@pytest.fixture(scope="module", params=ROWS, ids=lambda row: row.busy)
def row(request: pytest.FixtureRequest) -> HostBoundRow:
    found: HostBoundRow = request.param
    return found


@pytest.fixture(scope="module")
def accepted(tmp_path_factory: pytest.TempPathFactory, row: HostBoundRow) -> Path:
    """A folder for the baseline of a quiet host, which is recorded once."""
    return tmp_path_factory.mktemp(row.busy) / "baselines"


@pytest.fixture
def recorded_quiet(suite: Suite, plug_gpu: Plug, accepted: Path, row: HostBoundRow) -> Suite:
    plug_gpu()
    if not accepted.exists():
        shutil.copytree(suite.baselines, accepted)
        suite.baselines = accepted
        suite.run(*row.selected, "--perf-processes=3")
        accept = ("apply", str(suite.out), "--only", row.case, "--reason", "a quiet host", "--write")
        assert rebaseline([*accept, "--baselines", str(accepted)]) == 0
    suite.baselines = accepted
    return suite


@pytest.mark.parametrize(
    ("is_busy", "wall"), [(False, Status.PASS), (True, Status.NOT_COMPARED)], ids=["quiet", "busy"]
)
def test_unchanged_code_is_green(
    recorded_quiet: Suite, misbehave: Misbehave, row: HostBoundRow, is_busy: bool, wall: Status
) -> None:
    misbehave(row.busy_host if is_busy else "")
    result = recorded_quiet.run(*row.selected, tests=(LATENCY,))

    assert result.ret == pytest.ExitCode.OK, screen(result)
    statuses = recorded_quiet.statuses(row.case)
    assert statuses[row.busy] is Status.PASS
    assert (statuses[row.step], statuses[row.speedup]) == (wall, wall)
    (run,) = (each for each in recorded_quiet.record().cases if each.id == row.case)
    instead = {each.metric for each in run.verdicts if f"{row.busy} is judged instead" in each.reason}
    assert instead == ({row.step, row.speedup} if is_busy else set())


@pytest.mark.parametrize("is_busy", [False, True], ids=["quiet", "busy"])
def test_slower_kernels_are_red(
    recorded_quiet: Suite, misbehave: Misbehave, row: HostBoundRow, is_busy: bool
) -> None:
    slower = f"reports:{row.busy}={1.04 * row.busy_ms:g}@{row.case}"
    misbehave(f"{slower},{row.busy_host}" if is_busy else slower)
    result = recorded_quiet.run(*row.selected, tests=(LATENCY,))

    assert result.ret == pytest.ExitCode.TESTS_FAILED
    assert recorded_quiet.statuses(row.case)[row.busy] is Status.REGRESSED


def test_a_change_of_kind_of_the_wall_clock_is_red_on_a_quiet_host(
    recorded_quiet: Suite, misbehave: Misbehave, row: HostBoundRow
) -> None:
    misbehave(f"slower:160@{row.case}")
    recorded_quiet.run(*row.selected, tests=(LATENCY,))
    assert recorded_quiet.statuses(row.case)[row.step] is Status.REGRESSED


def test_a_time_of_the_device_that_was_not_recorded_is_red(
    recorded_quiet: Suite, misbehave: Misbehave, row: HostBoundRow
) -> None:
    misbehave(f"missing-metric:{row.busy}@{row.case}")
    recorded_quiet.run(*row.selected, tests=(LATENCY,))
    assert recorded_quiet.statuses(row.case)[row.busy] is Status.INCONCLUSIVE
