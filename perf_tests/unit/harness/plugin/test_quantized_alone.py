"""A model that is only quantized and moved: green as it is, and red for what can go wrong."""

from __future__ import annotations

import pytest

from perf_tests.harness.runs.record import Status
from perf_tests.unit.conftest import QUANTIZED, Misbehave, Suite
from perf_tests.unit.harness.plugin.sessions import failed_tests

ONLY = f"--perf-case={QUANTIZED}"


def red(suite: Suite) -> dict[str, Status]:
    return {metric: each for metric, each in suite.statuses(QUANTIZED).items() if not each.is_green}


def test_a_model_is_green_without_pictures_and_without_any_other_case(suite: Suite) -> None:
    result = suite.run(ONLY)

    assert result.ret == pytest.ExitCode.OK
    record = suite.record()
    assert [run.id for run in record.cases] == [QUANTIZED]
    assert record.references == ()
    (process,) = record.cases[0].processes
    assert (len(process.samples), process.captures, process.twin_samples) == (1, (), ())
    assert process.build.placement is not None
    assert process.build.placement.plain == {"Embedding": 1, "LlamaRMSNorm": 7}
    assert process.build.built_twin is not None
    assert {"quantize_s", "quantize_peak_allocated_mib", "outputs_unlike_built", "weight_bytes"} <= (
        suite.statuses(QUANTIZED).keys()
    )


@pytest.mark.parametrize(
    ("switch", "sentence"),
    [
        ("left-behind", "1048576 bytes of the model were on meta, and all were to be on cpu"),
        ("unreported-placement", "the worker did not say where the weights of the model were"),
        ("other-tensor", "1 of 2 tensors are not those of the built twin: transformer.proj_out.weight"),
        ("stays-on-device", "quantizes weights of the host, and they were on cuda"),
        ("dequantizes", "24 Linear modules of transformer were Int8Tensor"),
    ],
)
def test_a_model_that_is_not_what_was_asked_for_is_unproven(
    suite: Suite, misbehave: Misbehave, switch: str, sentence: str
) -> None:
    misbehave(f"{switch}@{QUANTIZED}")
    result = suite.run(ONLY)

    assert failed_tests(result) == [f"test_build[{QUANTIZED}]"]
    assert suite.case(QUANTIZED).status is Status.UNPROVEN
    assert sentence in suite.case(QUANTIZED).reason


def test_a_module_that_was_left_unquantized_is_unproven_and_named(suite: Suite) -> None:
    suite.run(ONLY, "--perf-inject=drop-quantization:1")

    run = suite.case(QUANTIZED)
    assert run.status is Status.UNPROVEN
    assert "23 of 24 Linear modules are quantized as int8wo says" in run.reason
    assert red(suite)["quantized_modules"] is Status.REGRESSED


@pytest.mark.parametrize(
    ("switch", "metric"),
    [
        ("reports:quantize_peak_allocated_mib=60", "quantize_peak_allocated_mib"),
        ("reports:weight_bytes=1", "weight_bytes"),
        ("reports:operators_in_quantize=4899", "operators_in_quantize"),
        ("reports:answer_sqnr_db=39.4", "answer_sqnr_db"),
        ("other-picture", "outputs_unlike_built"),
    ],
)
def test_a_number_of_a_model_that_is_off_has_regressed(
    suite: Suite, misbehave: Misbehave, switch: str, metric: str
) -> None:
    misbehave(f"{switch}@{QUANTIZED}")
    suite.run(ONLY)

    assert red(suite) == {metric: Status.REGRESSED}


# On a GPU

ON_DEVICE = "llama-7b-b1-int8wo-eager"
ON_H100 = ("-m", "h100 and llama", "--perf-case=llama-7b-*")


def test_a_model_on_a_gpu_is_measured_in_all_three_ways(suite: Suite, plug_gpu: object) -> None:
    plug_gpu()  # type: ignore[operator] # a fixture
    suite.run(*ON_H100)

    record = suite.record()
    assert record.references == ()
    assert [run.id for run in record.cases] == [ON_DEVICE, f"{ON_DEVICE}-onhost", f"{ON_DEVICE}-bymodule"]
    for run in record.cases:
        assert run.reference is None
        assert {each.status for each in run.verdicts} <= {Status.NO_BASELINE, Status.PASS}
        assert suite.statuses(run.id)["quantize_peak_vs_needed"] is Status.PASS
        assert {"quantize_s", "quantize_peak_reserved_mib", "model_memory_mib"} <= run.measured.keys()
    assert ["move_s" in run.measured for run in record.cases] == [True, True, False]


@pytest.mark.parametrize(
    ("switch", "sentence"),
    [
        ("left-behind", "1048576 bytes of the model were on cpu, and all were to be on cuda"),
        ("stays-on-host", "quantizes weights of the device, cuda, and they were on cpu"),
    ],
)
def test_a_model_that_was_not_moved_as_asked_for_is_unproven(
    suite: Suite, misbehave: Misbehave, plug_gpu: object, switch: str, sentence: str
) -> None:
    plug_gpu()  # type: ignore[operator] # a fixture
    misbehave(f"{switch}@{ON_DEVICE}")
    suite.run("-m", "h100 and llama", f"--perf-case={ON_DEVICE}")

    assert suite.case(ON_DEVICE).status is Status.UNPROVEN
    assert sentence in suite.case(ON_DEVICE).reason


def test_a_second_copy_has_regressed_without_any_baseline(
    suite: Suite, misbehave: Misbehave, plug_gpu: object
) -> None:
    plug_gpu()  # type: ignore[operator] # a fixture
    misbehave(f"reports:quantize_peak_vs_needed=1.01@{ON_DEVICE}")
    suite.run("-m", "h100 and llama", f"--perf-case={ON_DEVICE}")

    assert suite.statuses(ON_DEVICE)["quantize_peak_vs_needed"] is Status.REGRESSED
