"""A stage that does its work twice is red in a night on another torch than that of the baselines."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest

from perf_tests.harness.runs.record import Status
from perf_tests.unit.conftest import COMPILED, FP8DQROW, INT8WO, Misbehave, Plug, Suite
from perf_tests.unit.harness.plugin.sessions import UUID, screen

WORK = {
    INT8WO: ("operators_per_encode", "operators_per_step", "operators_per_decode", "operators_in_quantize"),
    COMPILED: ("generated_kernels", "extern_calls", "step_tflop"),
    FP8DQROW: (
        *("kernels_per_encode", "kernels_per_step", "kernels_per_decode", "step_tflop"),
        *("text_encoder_calls", "text_encoder_2_calls", "decode_calls", "transformer_calls"),
        *("text_encoder_2_bytes", "weight_bytes"),
    ),
}
HALVES = [(case_id, names[first::2]) for case_id, names in WORK.items() for first in (0, 1)]
"""A session for every other metric, as one that read its neighbour's count would otherwise not be seen."""


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


@pytest.mark.parametrize(("case_id", "metrics"), HALVES)
def test_work_that_is_done_twice_is_red_by_its_metrics(
    suite: Suite, upgraded: Callable[..., pytest.RunResult], case_id: str, metrics: tuple[str, ...]
) -> None:
    result = upgraded(case_id, f"doubles:{'+'.join(metrics)}")

    assert result.ret == pytest.ExitCode.TESTS_FAILED, screen(result)
    statuses = suite.statuses(case_id)
    red = {name: status for name, status in statuses.items() if not status.is_green}
    assert red == dict.fromkeys(metrics, Status.REGRESSED)
    heading = rf"{case_id} on {suite.case(case_id).platform}: "
    explained = re.findall(
        rf"^(?:{heading}| +also +)(\w+) regressed", screen(result), re.IGNORECASE | re.MULTILINE
    )
    assert set(explained) == set(metrics)


@pytest.mark.parametrize("case_id", WORK)
def test_unchanged_work_on_another_torch_is_green(
    suite: Suite, upgraded: Callable[..., pytest.RunResult], case_id: str
) -> None:
    result = upgraded(case_id, "")

    assert result.ret == pytest.ExitCode.OK, screen(result)
    assert suite.case(case_id).processes[0].environment.packages["torch"] == "2.14.0"
