"""The kernels of a step tell whether a setting took effect."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from perf_tests.protocol.reports import SettingReport
from perf_tests.tables.recipes import INT8_GEMM, NO_ONEDNN, CompileMode, Recipe
from perf_tests.tables.schemes.rows import INT8DQ, INT8WO
from perf_tests.worker.inspection import setting_effects

TUNED = Recipe(scheme=INT8DQ, compile=CompileMode.REGIONAL, settings=(INT8_GEMM,))


@pytest.mark.parametrize(
    ("step", "kernels"),
    [
        pytest.param({"triton_tem_fused__int_mm_add_mul_3": 57, "triton_poi_fused_0": 19}, 57, id="fused"),
        pytest.param({"triton_tem_fused_addmm_0": 2, "sm90_xmma_gemm_i8i32": 57}, 0, id="of-a-library"),
        pytest.param(None, None, id="not-recorded"),
    ],
)
def test_kernels_that_tell_are_counted(step: Mapping[str, int] | None, kernels: int | None) -> None:
    assert setting_effects.report(TUNED, step)["tuned"].kernels == kernels


def test_a_setting_of_something_else_has_no_kernel_and_no_value() -> None:
    recipe = Recipe(scheme=INT8WO, compile=CompileMode.REGIONAL, settings=(NO_ONEDNN,))
    assert setting_effects.report(recipe, {"triton_poi_fused_gelu_1": 19}) == {
        "noonednn": SettingReport(inductor={}, kernels=None)
    }


def test_a_recipe_without_settings_reports_none() -> None:
    assert setting_effects.report(Recipe(scheme=INT8DQ), {}) == {}
