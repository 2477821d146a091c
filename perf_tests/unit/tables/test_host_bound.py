from __future__ import annotations

from fnmatch import fnmatchcase

import pytest

from perf_tests.harness.verdicts.gates import gated_metrics, shown_metrics
from perf_tests.tables.cases import Weights
from perf_tests.tables.matrix import GPU_ROWS
from perf_tests.tables.metrics.host_bound import (
    BUSY_TIMED,
    HOST_BOUND,
    is_host_bound,
    unsteady_of,
)
from perf_tests.tables.metrics.spec import BUSY_TIMES, STEP, STEP_BUSY, TRAIN_BUSY
from perf_tests.tables.platforms import H100, Device
from perf_tests.unit.conftest import CASES

SLIM = "flux1-dev-slim-b1-fp8dqrow-regional"
SLIM_PACKAGED = "flux1-dev-slim-b1-fp8dqrow-aoti"
SLIM_BF16 = "flux1-dev-slim-b1-bf16-regional"
WHOLE = "flux1-dev-b1-fp8dqrow-regional"
TRAINED = "flux1-dev-b1-bf16-regional-lora-fp8tensor-ckpt"
TRAINED_BF16 = "flux1-dev-b1-bf16-regional-lora-ckpt"
GPU_CASES = [row.case(Weights.SYNTHETIC) for row in GPU_ROWS]


@pytest.mark.parametrize("glob", [BUSY_TIMED, *(each.cases for each in HOST_BOUND)])
def test_every_glob_matches_rows_of_a_gpu(glob: str) -> None:
    assert [case.id for case in GPU_CASES if fnmatchcase(case.id, glob)]


def test_what_is_host_bound_has_the_time_of_its_device_recorded() -> None:
    assert {case.id for case in GPU_CASES if is_host_bound(case)} == {
        SLIM,
        f"{SLIM}-reshaped",
        f"{SLIM}-reshaped-dynamic",
        SLIM_PACKAGED,
        TRAINED,
        "flux1-dev-b1-bf16-regional-lora-fp8row-ckpt",
        "flux1-dev-slim-b1-bf16-regional-lora-fp8tensor",
        "flux1-dev-slim-b1-bf16-regional-lora-fp8row",
    }
    for case in filter(is_host_bound, GPU_CASES):
        gated = {each.name for each in gated_metrics(case, H100)}
        assert BUSY_TIMES[case.build.activity] in gated, case.id


@pytest.mark.parametrize(
    ("case_id", "busy", "is_gated"),
    [
        (SLIM, STEP_BUSY, True),
        (SLIM_BF16, STEP_BUSY, False),
        (TRAINED, TRAIN_BUSY, True),
        (TRAINED_BF16, TRAIN_BUSY, False),
    ],
)
def test_time_of_the_device_fails_host_bound_rows_alone(case_id: str, busy: str, is_gated: bool) -> None:
    case = CASES[case_id]
    gated, shown = gated_metrics(case, H100), shown_metrics(case, H100)
    assert (busy in {each.name for each in gated}) is is_gated
    assert (busy in {each.name for each in shown}) is not is_gated


def test_time_of_the_device_is_not_asked_of_other_rows() -> None:
    every = (*gated_metrics(CASES[WHOLE], H100), *shown_metrics(CASES[WHOLE], H100))
    assert STEP_BUSY not in {each.name for each in every}


def test_single_images_that_stall_fail_no_host_bound_row() -> None:
    watching = {"stalled_images", "slowing_pct"}
    assert watching <= {each.name for each in gated_metrics(CASES[SLIM_BF16], H100)}
    assert not watching & {each.name for each in gated_metrics(CASES[SLIM], H100)}


def test_wall_clock_of_a_host_bound_row_has_a_wide_limit() -> None:
    wall = unsteady_of(CASES[SLIM])
    assert wall is not None
    (step,) = (each for each in gated_metrics(CASES[SLIM], H100) if each.name == STEP)
    (gate,) = step.gates.values()
    assert gate.tolerance.relative_pct == wall.slower_pct == 150.0
    assert unsteady_of(CASES[SLIM_BF16]) is None


@pytest.mark.parametrize(
    ("case_id", "step_pct", "speedup_pct"),
    [
        ("flux1-dev-slim-b1-bf16-regional-lora-fp8row", 150.0, 60.0),
        ("flux1-dev-b1-bf16-regional-lora-fp8row-ckpt", 20.0, 20.0 / 1.2),
        (TRAINED, 20.0, 20.0 / 1.2),
    ],
)
def test_trained_steps_have_a_wide_limit_where_the_host_decides_them(
    case_id: str, step_pct: float, speedup_pct: float
) -> None:
    gated = {each.name: each for each in gated_metrics(CASES[case_id], H100)}
    limits = {name: gated[name].gates[Device.CUDA] for name in ("train_step_ms", "train_speedup_vs_bf16")}
    assert {name: gate.tolerance.relative_pct for name, gate in limits.items()} == pytest.approx(
        {"train_step_ms": step_pct, "train_speedup_vs_bf16": speedup_pct}
    )


def test_trained_steps_of_bf16_have_the_limit_of_every_time() -> None:
    (step,) = (each for each in gated_metrics(CASES[TRAINED_BF16], H100) if each.name == "train_step_ms")
    assert step.gates[Device.CUDA].tolerance.relative_pct == 1.0
