"""A case that trains: green as it is, and red for what can go wrong."""

from __future__ import annotations

import pytest

from perf_tests.harness.runs.record import Status
from perf_tests.unit.conftest import TRAINED, Misbehave, Suite
from perf_tests.unit.harness.plugin.sessions import failed_tests

ONLY = f"--perf-case={TRAINED}"


def red(suite: Suite) -> dict[str, Status]:
    return {metric: each for metric, each in suite.statuses(TRAINED).items() if not each.is_green}


def test_a_case_that_trains_is_green_without_pictures_and_without_any_other_case(suite: Suite) -> None:
    result = suite.run(ONLY)

    assert result.ret == pytest.ExitCode.OK
    record = suite.record()
    assert [run.id for run in record.cases] == [TRAINED]
    assert record.references == ()
    (process,) = record.cases[0].processes
    assert (len(process.samples), process.captures, process.twin_samples) == (1, (), ())
    assert process.build.training is not None
    assert process.build.training.expected_float8 == 24
    assert {
        "loss_difference_pct",
        "gradient_error_vs_rounded",
        "gradient_cosine",
        "float8_modules",
        "float8_gemms_backward",
        "adapter_elements",
        "compiled_graphs",
    } <= suite.statuses(TRAINED).keys()


@pytest.mark.parametrize(
    ("switch", "sentence"),
    [
        ("idle-adapter", "1 of 40 adapters had no finite gradient other than 0, or did not move"),
        ("thaws", "1 of 140 frozen weights changed while the adapters were trained"),
        ("no-float8:backward", "multiplies in float8, and no product of the backward pass did"),
        ("unreported-training", "the worker did not report what it has trained"),
    ],
)
def test_training_that_is_not_what_was_asked_for_is_unproven(
    suite: Suite, misbehave: Misbehave, switch: str, sentence: str
) -> None:
    misbehave(f"{switch}@{TRAINED}")
    result = suite.run(ONLY)

    assert failed_tests(result) == [f"test_build[{TRAINED}]"]
    assert suite.case(TRAINED).status is Status.UNPROVEN
    assert sentence in suite.case(TRAINED).reason


def test_a_linear_module_that_was_not_converted_is_unproven_and_named(suite: Suite) -> None:
    suite.run(ONLY, "--perf-inject=drop-quantization:1")

    run = suite.case(TRAINED)
    assert run.status is Status.UNPROVEN
    assert "23 Linear modules multiply in float8" in run.reason
    assert "transformer_blocks.0.attn.to_q" in run.reason
    assert red(suite) == {"float8_modules": Status.REGRESSED}


@pytest.mark.parametrize(
    ("reported", "metric"),
    [
        ("loss_difference_pct=1.6", "loss_difference_pct"),
        ("gradient_error_vs_rounded=1.5", "gradient_error_vs_rounded"),
        ("gradient_error_vs_rounded=0.6", "gradient_error_vs_rounded"),
        ("gradient_cosine=0.98", "gradient_cosine"),
        ("float8_gemms_backward=23", "float8_gemms_backward"),
        ("adapter_elements=163839", "adapter_elements"),
    ],
)
def test_a_number_of_training_that_is_off_has_regressed(
    suite: Suite, misbehave: Misbehave, reported: str, metric: str
) -> None:
    misbehave(f"reports:{reported}@{TRAINED}")
    suite.run(ONLY)

    assert red(suite) == {metric: Status.REGRESSED}


@pytest.mark.parametrize(("error", "limit"), [(0.6, 0.7), (1.5, 1.4)])
def test_a_gradient_that_float8_moves_too_little_or_too_far_is_held_against_that_end(
    suite: Suite, misbehave: Misbehave, error: float, limit: float
) -> None:
    misbehave(f"reports:gradient_error_vs_rounded={error}@{TRAINED}")
    suite.run(ONLY)

    (verdict,) = (each for each in suite.case(TRAINED).verdicts if each.status is Status.REGRESSED)
    assert (verdict.metric, verdict.measured, verdict.limit) == ("gradient_error_vs_rounded", error, limit)


# On a GPU

SLIM = "flux1-dev-slim-b1-bf16-regional-lora"
ON_H100 = ("-m", "h100 and flux", f"--perf-case={SLIM}", f"--perf-case={SLIM}-fp8row")


def test_training_on_a_gpu_is_timed_beside_the_same_in_bf16(suite: Suite, plug_gpu: object) -> None:
    plug_gpu()  # type: ignore[operator] # a fixture
    suite.run(*ON_H100)

    run = suite.case(f"{SLIM}-fp8row")
    assert run.reference == SLIM
    assert run.measured["train_step_ms"] == pytest.approx(22.5)
    assert run.measured["train_speedup_vs_bf16"] == pytest.approx(4 / 3)
    assert run.measured["train_busy_ms"] == pytest.approx(20.0)
    assert run.measured["trained_samples_per_s"] == pytest.approx(1000 / 22.5)
    assert len(run.processes[0].samples) >= 5
    assert {"peak_allocated_mib", "kernels_per_train_step"} <= run.measured.keys()
    assert {each.status for each in run.verdicts} <= {Status.NO_BASELINE, Status.PASS}


def test_float8_may_move_a_gradient_further_than_redrawn_noise_and_bf16_may_not(
    suite: Suite, plug_gpu: object, misbehave: Misbehave
) -> None:
    plug_gpu()  # type: ignore[operator] # a fixture
    misbehave(f"reports:gradient_error_vs_redrawn=1.1@{SLIM}")
    suite.run(*ON_H100)

    in_bf16, in_float8 = (
        {each.metric: each.status for each in suite.case(case_id).verdicts}
        for case_id in (SLIM, f"{SLIM}-fp8row")
    )
    assert in_bf16["gradient_error_vs_redrawn"] is Status.REGRESSED
    assert "gradient_error_vs_rounded" not in in_bf16
    assert in_float8["gradient_error_vs_rounded"] is Status.PASS
    assert "gradient_error_vs_redrawn" not in in_float8
