"""Quantization takes effect, and the evidence tells when it did not."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
import torch

from perf_tests.harness.errors import WorkerError
from perf_tests.harness.protocol import FailureKind, ModuleGroup
from perf_tests.tables.cases import Build
from perf_tests.tables.lazy import Lazy
from perf_tests.tables.pipelines import FLUX_MINI
from perf_tests.tables.recipes import Recipe
from perf_tests.tables.schemes import BF16, FP8DQROW, FP8WO, INT8DQ, INT8WO, Scheme
from perf_tests.worker import memory, quantize

Make = Callable[..., Any]

# FLUX miniature: 62 linear modules, 14 of which see one row per image (8 norms, 6 embedders).
ALL, BATCH_ROWS = 62, 15


def flux_mini(recipe: Recipe) -> Build:
    return Build(pipeline=FLUX_MINI, recipe=recipe)


def transformer_groups(groups: tuple[ModuleGroup, ...]) -> dict[tuple[str, str, str | None, bool], int]:
    return {
        (g.subclass, g.dtype, g.scale, g.dynamic_activation): g.count
        for g in groups
        if g.component == "transformer"
    }


@pytest.mark.parametrize(
    ("scheme", "expected"),
    [
        pytest.param(INT8WO, {("Int8Tensor", "int8", "per-row", False): ALL}, id="int8wo"),
        pytest.param(FP8WO, {("Float8Tensor", "float8_e4m3fn", "per-row", False): ALL}, id="fp8wo"),
        pytest.param(
            INT8DQ,
            {
                ("Int8Tensor", "int8", "per-row", True): ALL - BATCH_ROWS,
                ("Parameter", "bfloat16", None, False): BATCH_ROWS,
            },
            id="int8dq",
        ),
        pytest.param(BF16, {("Parameter", "bfloat16", None, False): ALL}, id="bf16"),
    ],
)
def test_each_module_of_the_filter_is_what_the_scheme_says(
    make_pipeline: Make, scheme: Scheme, expected: dict[tuple[str, str, str | None, bool], int]
) -> None:
    evidence = quantize.apply(make_pipeline(), flux_mini(Recipe(scheme=scheme)))
    assert transformer_groups(evidence.groups) == expected
    assert evidence.unquantized == ()


def test_exclusions_are_counted_by_pattern(make_pipeline: Make) -> None:
    evidence = quantize.apply(make_pipeline(), flux_mini(Recipe(scheme=INT8DQ)))
    assert evidence.expected_modules == ALL - BATCH_ROWS
    assert evidence.excluded == {"*norm*.linear": 9, "time_*embed*": 6}


def test_text_encoders_and_vae_are_left_alone(make_pipeline: Make) -> None:
    evidence = quantize.apply(make_pipeline(), flux_mini(Recipe(scheme=INT8WO)))
    others = {g.subclass for g in evidence.groups if g.component != "transformer"}
    assert others == {"Parameter"}


def test_a_dropped_module_is_named(make_pipeline: Make) -> None:
    recipe = Recipe(scheme=INT8WO)
    evidence = quantize.apply(make_pipeline(), flux_mini(recipe), drop=1)
    assert evidence.unquantized == ("transformer.time_text_embed.timestep_embedder.linear_1",)
    assert quantize.count_as_asked(evidence, recipe) == ALL - 1


def test_a_shape_that_a_scheme_passes_over_in_silence_is_named(make_pipeline: Make) -> None:
    pipeline = make_pipeline()
    # 8 is no multiple of 16: torchao's float8 configs return such a weight as it is, without a word.
    pipeline.transformer.x_embedder = torch.nn.Linear(8, 256, dtype=torch.bfloat16)
    config = Lazy(target="perf_tests.unit.worker.test_quantize:passes_over", kwargs={})
    evidence = quantize.apply(pipeline, flux_mini(Recipe(scheme=dataclasses.replace(INT8WO, config=config))))
    assert evidence.unquantized == ("transformer.x_embedder",)


def passes_over() -> Any:
    """int8 weight-only, except for a width of 8: as torchao passes over shapes that do not fit."""
    from torchao.core.config import AOBaseConfig
    from torchao.quantization import Int8WeightOnlyConfig
    from torchao.quantization.transform_module import (
        _QUANTIZE_CONFIG_HANDLER,
        register_quantize_module_handler,
    )

    def handle(module: torch.nn.Linear, config: Any) -> torch.nn.Module:
        if module.in_features == 8:
            return module
        inner = Int8WeightOnlyConfig(set_inductor_config=False)
        quantized: torch.nn.Module = _QUANTIZE_CONFIG_HANDLER[Int8WeightOnlyConfig](module, inner)
        return quantized

    config_class = type("Config", (AOBaseConfig,), {})
    register_quantize_module_handler(config_class)(handle)
    return config_class()


def test_fused_projections_are_quantized_beside_the_separate_ones(make_pipeline: Make) -> None:
    evidence = quantize.apply(make_pipeline(), flux_mini(Recipe(scheme=INT8WO, fuse_qkv=True)))
    # Two double blocks gain two fused projections each, four single blocks one each.
    assert evidence.expected_modules == ALL + 2 * 2 + 4
    assert evidence.unquantized == ()


@pytest.mark.parametrize(("scheme", "bytes_per_weight"), [(INT8WO, 1.0), (FP8WO, 1.0), (BF16, 2.0)])
def test_weight_bytes_are_what_the_bit_width_implies(
    make_pipeline: Make, scheme: Scheme, bytes_per_weight: float
) -> None:
    pipeline = make_pipeline()
    weights = sum(p.numel() for p in pipeline.transformer.parameters())
    quantize.apply(pipeline, flux_mini(Recipe(scheme=scheme)))
    assert memory.weight_bytes(pipeline, ("transformer",)) == pytest.approx(
        weights * bytes_per_weight, rel=0.02
    )


def test_a_scheme_the_device_refuses_is_unsupported(make_pipeline: Make) -> None:
    with pytest.raises(WorkerError, match="fp8dqrow is refused by this stack") as caught:
        quantize.apply(make_pipeline(), flux_mini(Recipe(scheme=FP8DQROW)))
    assert caught.value.failure.kind is FailureKind.UNSUPPORTED


def test_a_scheme_torchao_no_longer_has_is_unsupported(make_pipeline: Make) -> None:
    gone = dataclasses.replace(INT8WO, id="autoquant", config=Lazy(target="torchao.quantization:autoquant"))
    with pytest.raises(WorkerError, match="autoquant is refused by this stack: AttributeError") as caught:
        quantize.apply(make_pipeline(), flux_mini(Recipe(scheme=gone)))
    assert caught.value.failure.kind is FailureKind.UNSUPPORTED
