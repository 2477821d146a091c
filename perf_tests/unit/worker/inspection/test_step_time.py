"""The time of a step by what its kernels do."""

from __future__ import annotations

import runpy

import pytest

from perf_tests.unit.conftest import ROOT
from perf_tests.worker.inspection.kernels import Event
from perf_tests.worker.inspection.step_time import busy_ms, class_of, step_time


def event(name: str, start_us: float, us: float, category: str = "kernel") -> Event:
    return {"ph": "X", "cat": category, "name": name, "ts": start_us, "dur": us}


@pytest.mark.parametrize(
    ("kernel", "does"),
    [
        ("triton_tem_fused__int_mm_add_mul_3", "GEMM"),
        ("void cutlass::Kernel2<cutlass_80_tensorop_i16832gemm_s8_128x256>", "GEMM"),
        ("nvjet_hsh_128x256_64x4_2x1_v_bz_coopA_NNT", "GEMM"),
        ("cudnn_generated_fort_native_sdpa_sm90_flash_fprop_wgmma_f16_knob", "attention"),
        ("triton_red_fused__to_copy_abs_amax_clamp_mul_0", "quantization and scales"),
        ("triton_poi_fused__scaled_mm__to_copy_cat_clamp_div_gelu_permute_5", "quantization and scales"),
        ("triton_red_fused__fused_rms_norm__scaled_dot_product_cudnn_attention_add_2", "pointwise and norms"),
        ("triton_poi_fused_gelu_1", "pointwise and norms"),
        ("triton_red_fused_native_layer_norm_2", "pointwise and norms"),
    ],
)
def test_a_kernel_is_what_its_name_says(kernel: str, does: str) -> None:
    assert class_of(kernel) == does


def test_parts_and_gaps_add_up_to_the_step() -> None:
    found = step_time(
        [
            event("aten::mm", 0.0, 9000.0, "cpu_op"),
            event("triton_poi_fused_gelu_1", 6500.0, 500.0),
            event("triton_tem_fused__int_mm_0", 1000.0, 3000.0),
            event("Memset (Device)", 4000.0, 250.0, "gpu_memset"),
            event("triton_tem_fused__int_mm_0", 4500.0, 2000.0),
        ]
    )
    assert found.parts_ms == {"GEMM": 5.0, "copies and fills": 0.25, "pointwise and norms": 0.5}
    assert found.gaps_ms == 0.25
    assert found.total_ms == 6.0
    assert found.kernels == (
        ("triton_tem_fused__int_mm_0", 5.0, 2),
        ("triton_poi_fused_gelu_1", 0.5, 1),
        ("Memset (Device)", 0.25, 1),
    )


def test_a_gpu_is_busy_while_anything_runs_however_much_at_once() -> None:
    events = [
        event("aten::mm", 0.0, 9000.0, "cpu_op"),
        event("gemm_a", 1000.0, 2000.0),
        event("gemm_b", 1500.0, 500.0),  # beside it
        event("Memcpy HtoD", 2500.0, 1000.0, "gpu_memcpy"),  # begins beside it
        event("gelu", 10_000.0, 250.0),
    ]
    assert busy_ms(events) == 2.75


def test_the_gaps_of_a_slow_host_do_not_make_a_gpu_busier() -> None:
    quick = [event("gemm", start, 500.0) for start in (0.0, 500.0, 1000.0)]
    slow = [event("gemm", start, 500.0) for start in (0.0, 9000.0, 90_000.0)]
    assert busy_ms(quick) == busy_ms(slow) == 1.5


def test_a_recording_without_kernels_is_not_an_idle_gpu() -> None:
    with pytest.raises(ValueError, match="nothing ran on the GPU"):
        busy_ms([event("aten::mm", 0.0, 9000.0, "cpu_op")])


def test_kernels_that_overlap_leave_no_gap_between_them() -> None:
    found = step_time(
        [event("gemm_a", 0.0, 4000.0), event("gemm_b", 1000.0, 1000.0), event("x", 5000.0, 1.0)]
    )
    assert found.gaps_ms == 1.0


def test_a_step_in_which_nothing_ran_on_the_gpu_has_no_time() -> None:
    with pytest.raises(ValueError, match="nothing ran on the GPU"):
        step_time([event("aten::mm", 0.0, 9000.0, "cpu_op")])


# tools/step_time.py, as far as it works without a GPU

TOOL = runpy.run_path(str(ROOT / "tools" / "step_time.py"))


def test_the_table_of_the_tool_says_what_the_sum_is_of_a_timed_step() -> None:
    found = step_time([event("gemm_a", 0.0, 70_000.0), event("flash", 72_000.0, 24_000.0)])
    lines = list(TOOL["table"](found, 97.0, {"GEMM": 30.1, "attention": 15.03}, kernels=1))
    assert lines == [
        "part                            ms  % of step  at peak",
        "GEMM                         70.00       72.2     30.1",
        "attention                    24.00       24.7     15.0",
        "gaps                          2.00        2.1        -",
        "sum                          96.00; a step without the profiler 97.00 ms (-1.0 %)",
        "    70.00 ms     1 x  gemm_a",
    ]


def test_the_floor_of_int8_products_is_the_peak_of_the_data_sheet() -> None:
    case = TOOL["_case"]("flux1-dev-b4-int8dq-regional-tuned")
    assert case.workload.generated_steps == 8
    assert TOOL["floors_ms"](case, 74.4, 14.9) == pytest.approx({"GEMM": 120.3, "attention": 60.2}, rel=1e-3)


def test_a_case_that_does_not_exist_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert TOOL["main"](["flux1-dev-b1-int8dq"]) == 2
    assert "flux1-dev-b1-int8dq-regional" in capsys.readouterr().err


def test_a_case_that_loads_what_another_process_saved_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert TOOL["main"](["flux1-schnell-b1-int8wo-eager-torchsave"]) == 2
    assert (
        "flux1-schnell-b1-int8wo-eager-torchsave loads a transformer that another process has saved: measure "
        "flux1-schnell-b1-int8wo-eager, which has the same tensors"
    ) in capsys.readouterr().err
