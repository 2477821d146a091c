"""Kernels of two steps are matched although names, numbers and shapes differ."""

from __future__ import annotations

import pytest

from perf_tests.harness.profiles.matching import changes, plain_name, step_change
from perf_tests.harness.records.evidence import KernelChange
from perf_tests.protocol.profiles import KernelTime

GEMM, POINTWISE = "GEMM", "pointwise and norms"


def kernel(name: str, us: float, *, shape: str = "", kind: str = GEMM, launches: int = 1) -> KernelTime:
    return KernelTime(name=name, kind=kind, shape=shape, launches=launches, us=us)


def pairs(found: tuple[KernelChange, ...]) -> list[tuple[tuple[str, ...], tuple[str, ...], float]]:
    return [(each.stable, each.candidate, each.more_us) for each in found]


@pytest.mark.parametrize(
    ("name", "plain"),
    [
        ("triton_poi_fused_add_mul_12", "triton_poi_fused_add_mul"),
        ("triton_poi_fused_add_mul_0d1d2d", "triton_poi_fused_add_mul_0d1d2d"),
        ("triton_tem_fused__int_mm_mul_3_0d1d2de", "triton_tem_fused__int_mm_mul"),
        ("triton_red_fused_native_layer_norm_7", "triton_red_fused_native_layer_norm"),
        ("cpp_fused_gelu_4", "cpp_fused_gelu"),
        ("Torch-Compiled Region: 3/0", "Torch-Compiled Region"),
        ("## Call CompiledFxGraph fmtsoeor6hq6ke6 ##", "## Call CompiledFxGraph"),
        ("nvjet_tst_128x256_64", "nvjet_tst_128x256_64"),
    ],
)
def test_only_what_numbers_the_kernels_of_a_graph_is_left_out(name: str, plain: str) -> None:
    assert plain_name(name) == plain


def test_generated_kernels_match_although_they_are_numbered_otherwise() -> None:
    found = changes(
        [kernel("triton_poi_fused_add_3", 10.0, kind=POINTWISE)],
        [kernel("triton_poi_fused_add_7", 14.0, kind=POINTWISE)],
    )
    assert pairs(found) == [(("triton_poi_fused_add_3",), ("triton_poi_fused_add_7",), 4.0)]


def test_generated_kernels_of_two_places_are_one_change() -> None:
    (found,) = changes(
        [kernel("triton_poi_fused_add_3", 10.0), kernel("triton_poi_fused_add_4", 20.0, launches=2)],
        [kernel("triton_poi_fused_add_0", 33.0, launches=3)],
    )
    assert found.stable == ("triton_poi_fused_add_4", "triton_poi_fused_add_3")
    assert (found.stable_us, found.candidate_us) == (30.0, 33.0)
    assert (found.stable_launches, found.candidate_launches) == (3, 3)


def test_a_renamed_kernel_takes_the_place_of_the_one_at_the_same_work() -> None:
    (found,) = changes(
        [kernel("sm90_xmma_gemm", 100.0, shape="4096x3072")], [kernel("nvjet_tst", 130.0, shape="4096x3072")]
    )
    assert (found.stable, found.candidate, found.shape) == (("sm90_xmma_gemm",), ("nvjet_tst",), "4096x3072")


def test_one_kernel_is_replaced_by_two() -> None:
    (found,) = changes(
        [kernel("scaled_gemm", 100.0, shape="64x64")],
        [kernel("gemm", 90.0, shape="64x64"), kernel("splitk_reduce_gemm", 30.0, shape="64x64")],
    )
    assert (found.stable, found.candidate) == (("scaled_gemm",), ("gemm", "splitk_reduce_gemm"))
    assert found.more_us == 20.0


def test_the_same_kernel_at_another_shape_is_matched_by_name_once_equal_shapes_are() -> None:
    found = changes(
        [kernel("gemm", 10.0, shape="8x8"), kernel("gemm", 40.0, shape="16x8")],
        [kernel("gemm", 11.0, shape="8x8"), kernel("gemm", 60.0, shape="32x8")],
    )
    assert [(each.shape, each.more_us) for each in found] == [("8x8", 1.0), ("", 20.0)]


def test_a_kernel_that_is_renamed_at_one_shape_alone_is_not_confused_with_its_others() -> None:
    found = changes(
        [kernel("gemm", 10.0, shape="8x8"), kernel("gemm", 40.0, shape="16x8")],
        [kernel("gemm", 10.0, shape="8x8"), kernel("nvjet", 60.0, shape="16x8")],
    )
    assert pairs(found) == [(("gemm",), ("gemm",), 0.0), (("gemm",), ("nvjet",), 20.0)]


def test_what_has_no_counterpart_is_new_or_gone() -> None:
    found = step_change(
        [kernel("cast", 7.0, kind=POINTWISE), kernel("gemm", 50.0)],
        [kernel("amax", 9.0, kind="quantization and scales"), kernel("gemm", 50.0)],
    )
    assert (found.new, found.gone, found.gone_us) == (1, 1, 7.0)
    assert (found.stable_us, found.candidate_us) == (57.0, 59.0)
    assert pairs(found.slower) == [((), ("amax",), 9.0)]


def test_operators_without_a_kind_are_never_taken_for_each_other() -> None:
    found = changes(
        [kernel("aten::mm", 5.0, shape="8x8", kind="")], [kernel("aten::add", 5.0, shape="8x8", kind="")]
    )
    assert pairs(found) == [(("aten::mm",), (), -5.0), ((), ("aten::add",), 5.0)]


def test_the_five_that_cost_most_more_are_named_the_worst_first() -> None:
    stable = [kernel(f"k{number}", 10.0) for number in range(8)]
    candidate = [kernel(f"k{number}", 10.0 + number) for number in range(8)]
    found = step_change(stable, candidate)
    assert [each.more_us for each in found.slower] == [7.0, 6.0, 5.0, 4.0, 3.0]


def test_nothing_slower_is_an_answer() -> None:
    assert step_change([kernel("gemm", 5.0)], [kernel("gemm", 4.0)]).slower == ()
