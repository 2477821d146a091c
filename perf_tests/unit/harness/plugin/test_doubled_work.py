"""A stage that does its work twice is red in a night on another torch than that of the baselines."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from perf_tests.harness.runs.record import Status
from perf_tests.unit.conftest import COMPILED, FP8DQROW, INT8WO, Misbehave, Plug, Suite
from perf_tests.unit.harness.plugin.sessions import UUID, screen

WORK = (
    *((INT8WO, name) for name in ("operators_per_encode", "operators_per_step", "operators_per_decode")),
    (INT8WO, "operators_in_quantize"),
    *((COMPILED, name) for name in ("generated_kernels", "extern_calls", "step_tflop")),
    *((FP8DQROW, name) for name in ("kernels_per_encode", "kernels_per_step", "kernels_per_decode")),
    (FP8DQROW, "step_tflop"),
    *((FP8DQROW, name) for name in ("text_encoder_calls", "text_encoder_2_calls", "decode_calls")),
    *((FP8DQROW, name) for name in ("transformer_calls", "text_encoder_2_bytes", "weight_bytes")),
)


@pytest.fixture
def upgraded(suite: Suite, plug_gpu: Plug, misbehave: Misbehave) -> Callable[..., pytest.RunResult]:
    """Run a case under torch 2.14.0, with baselines of 2.13.0 and a switch of the fake workers."""
    plug_gpu(uuid=UUID)

    def run(case_id: str, switch: str) -> pytest.RunResult:
        marker = suite.folder / "upgraded"
        marker.touch()
        misbehave(f"new-torch:{marker},{switch}")
        return suite.run(f"--perf-case={case_id}")

    return run


@pytest.mark.parametrize(("case_id", "metric"), WORK)
def test_work_that_is_done_twice_is_red_by_its_metric(
    suite: Suite, upgraded: Callable[..., pytest.RunResult], case_id: str, metric: str
) -> None:
    result = upgraded(case_id, f"doubles:{metric}")

    assert result.ret == pytest.ExitCode.TESTS_FAILED, screen(result)
    statuses = suite.statuses(case_id)
    red = {name for name, status in statuses.items() if not status.is_green}
    assert (statuses[metric], red) == (Status.REGRESSED, {metric})
    assert f"{case_id} on {suite.case(case_id).platform}: {metric} " in screen(result)


@pytest.mark.parametrize("case_id", [INT8WO, COMPILED, FP8DQROW])
def test_unchanged_work_on_another_torch_is_green(
    suite: Suite, upgraded: Callable[..., pytest.RunResult], case_id: str
) -> None:
    result = upgraded(case_id, "")

    assert result.ret == pytest.ExitCode.OK, screen(result)
    assert suite.case(case_id).processes[0].environment.packages["torch"] == "2.14.0"
