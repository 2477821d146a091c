"""Quantization takes effect, and the report shows where it did not."""

from __future__ import annotations

import dataclasses
import types
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torchao.quantization import Int8Tensor

from perf_tests.protocol.errors import WorkerError
from perf_tests.protocol.messages import FailureKind, Phase
from perf_tests.protocol.reports import ModuleGroup
from perf_tests.tables.cases import Build
from perf_tests.tables.lazy import Lazy
from perf_tests.tables.pipelines.auraflow import AURAFLOW_MINI
from perf_tests.tables.pipelines.cogvideox import COGVIDEOX_MINI
from perf_tests.tables.pipelines.flux import FLUX_MINI
from perf_tests.tables.recipes import QuantizedOn, Recipe
from perf_tests.tables.schemes.rows import (
    BF16,
    FP8DQ,
    FP8DQROW,
    FP8WO,
    INT4DQ,
    INT4WO,
    INT8DQ,
    INT8WO,
    MXFP8,
    NVFP4,
)
from perf_tests.tables.schemes.spec import Scheme
from perf_tests.worker.measure import memory
from perf_tests.worker.model.lazy import construct
from perf_tests.worker.quantization import apply, state

Make = Callable[..., Any]

# FLUX miniature: 62 linear modules, 14 of which see one row per image (8 norms, 6 embedders).
ALL, BATCH_ROWS = 62, 15
# Its x_embedder has 16 in_features.
NARROW = 1


def flux_mini(recipe: Recipe) -> Build:
    return Build(pipeline=FLUX_MINI, recipe=recipe)


def transformer_groups(groups: tuple[ModuleGroup, ...]) -> dict[apply.Look, int]:
    return {
        (g.subclass, g.dtype, g.scale, g.activation): g.count for g in groups if g.component == "transformer"
    }


@pytest.mark.parametrize(
    ("scheme", "expected"),
    [
        pytest.param(INT8WO, {("Int8Tensor", "int8", "per-row", None): ALL}, id="int8wo"),
        pytest.param(FP8WO, {("Float8Tensor", "float8_e4m3fn", "per-row", None): ALL}, id="fp8wo"),
        pytest.param(
            INT8DQ,
            {
                ("Int8Tensor", "int8", "per-row", "int8 per-row"): ALL - BATCH_ROWS,
                ("Parameter", "bfloat16", None, None): BATCH_ROWS,
            },
            id="int8dq",
        ),
        pytest.param(
            INT4DQ,
            {
                ("IntxUnpackedToInt8Tensor", "int4", "per-group-32", "int8 per-row"): ALL - NARROW,
                ("Parameter", "bfloat16", None, None): NARROW,
            },
            id="int4dq",
        ),
        pytest.param(BF16, {("Parameter", "bfloat16", None, None): ALL}, id="bf16"),
    ],
)
def test_modules_to_quantize_become_what_the_scheme_says(
    make_pipeline: Make, scheme: Scheme, expected: dict[apply.Look, int]
) -> None:
    report = apply.apply(make_pipeline(), flux_mini(Recipe(scheme=scheme)))
    assert transformer_groups(report.groups) == expected
    assert report.unquantized == ()


def test_exclusions_are_counted_by_pattern(make_pipeline: Make) -> None:
    report = apply.apply(make_pipeline(), flux_mini(Recipe(scheme=INT8DQ)))
    assert report.expected_modules == ALL - BATCH_ROWS
    assert report.excluded == {"*norm*.linear": 9, "time_*embed*": 6}


def test_modules_whose_shape_does_not_fit_are_left_alone_and_counted(make_pipeline: Make) -> None:
    report = apply.apply(make_pipeline(), flux_mini(Recipe(scheme=INT4DQ)))
    assert report.expected_modules == ALL - NARROW
    assert report.excluded == {"in_features not a multiple of 32": NARROW}


def test_a_rule_that_no_shape_breaks_is_counted_as_none(make_pipeline: Make) -> None:
    scheme = dataclasses.replace(INT8WO, in_features_multiple=16, out_features_multiple=16)
    report = apply.apply(make_pipeline(), flux_mini(Recipe(scheme=scheme)))
    assert report.expected_modules == ALL
    assert report.excluded == {
        "in_features not a multiple of 16": 0,
        "out_features not a multiple of 16": 0,
    }


def test_text_encoders_and_vae_are_left_alone(make_pipeline: Make) -> None:
    report = apply.apply(make_pipeline(), flux_mini(Recipe(scheme=INT8WO)))
    others = {g.subclass for g in report.groups if g.component != "transformer"}
    assert others == {"Parameter"}


def test_a_dropped_module_is_named(make_pipeline: Make) -> None:
    recipe = Recipe(scheme=INT8WO)
    report = apply.apply(make_pipeline(), flux_mini(recipe), drop=1)
    assert report.unquantized == ("transformer.time_text_embed.timestep_embedder.linear_1",)
    assert apply.count_as_asked(report, recipe) == ALL - 1


def test_a_module_that_a_scheme_skips_silently_is_named(make_pipeline: Make) -> None:
    pipeline = make_pipeline()
    # 8 is not a multiple of 16: torchao's float8 configs silently return such a weight unchanged.
    pipeline.transformer.x_embedder = torch.nn.Linear(8, 256, dtype=torch.bfloat16)
    config = Lazy(target="perf_tests.unit.worker.quantization.test_apply:passes_over", kwargs={})
    report = apply.apply(pipeline, flux_mini(Recipe(scheme=dataclasses.replace(INT8WO, config=config))))
    assert report.unquantized == ("transformer.x_embedder",)


def passes_over() -> Any:
    """int8 weight-only, except for a width of 8: just as torchao skips shapes that do not fit."""
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


def test_fused_projections_are_quantized_and_so_are_the_separate_ones(make_pipeline: Make) -> None:
    report = apply.apply(make_pipeline(), flux_mini(Recipe(scheme=INT8WO, fuse_qkv=True)))
    # Two double blocks gain two fused projections each, four single blocks one each.
    assert report.expected_modules == ALL + 2 * 2 + 4
    assert report.unquantized == ()


def test_other_components_are_quantized_where_the_recipe_names_them(make_pipeline: Make) -> None:
    recipe = Recipe(scheme=INT8WO, quantized_components=("transformer", "text_encoder_2", "vae"))
    report = apply.apply(make_pipeline(), flux_mini(recipe))
    # 14 of the T5 miniature, and the attention of the VAE: 4 each in encoder and decoder.
    assert report.expected_modules == ALL + 14 + 8
    assert report.unquantized == ()


def test_channels_last_lays_out_convolutions_and_changes_no_bytes(make_pipeline: Make) -> None:
    pipeline = make_pipeline()
    before = memory.weight_bytes(pipeline, ("vae",))
    assert not is_channels_last(pipeline.vae.decoder.conv_in.weight)
    apply.apply(pipeline, flux_mini(Recipe(scheme=INT8WO, channels_last=True)))
    assert is_channels_last(pipeline.vae.decoder.conv_in.weight)
    assert memory.weight_bytes(pipeline, ("vae",)) == before


def test_channels_last_passes_over_the_convolutions_of_a_video(make_pipeline: Make) -> None:
    pipeline = make_pipeline(pipeline=COGVIDEOX_MINI)
    build = Build(pipeline=COGVIDEOX_MINI, recipe=Recipe(scheme=BF16, channels_last=True))
    apply.apply(pipeline, build)
    assert is_channels_last(pipeline.transformer.patch_embed.proj.weight)
    # `Module.to` refuses a module with such weights.
    assert 5 in {parameter.ndim for parameter in pipeline.vae.parameters()}


def is_channels_last(weight: torch.Tensor) -> bool:
    # Not `is_contiguous`, which is true for both layouts of a 1x1 convolution.
    return weight.stride(1) == 1 < weight.shape[1]


def test_weights_are_counted_from_their_shapes_before_quantizing(make_pipeline: Make) -> None:
    report = apply.apply(make_pipeline(), flux_mini(Recipe(scheme=INT4DQ)))
    count = report.weights
    assert count is not None
    assert INT4DQ.weight is not None
    assert (count.elements, count.scales) == (9_146_368, 9_146_368 // 32)
    assert apply.implied_bytes(count) == 9_146_368 + 285_824 * 3 + count.other_bytes


@pytest.mark.parametrize("scheme", [INT8WO, INT8DQ, INT4DQ, FP8WO], ids=lambda scheme: scheme.id)
def test_stored_bytes_are_the_implied_ones(make_pipeline: Make, scheme: Scheme) -> None:
    pipeline = make_pipeline()
    recipe = Recipe(scheme=scheme, fuse_qkv=True)
    count = apply.apply(pipeline, flux_mini(recipe)).weights
    assert count is not None
    assert scheme.weight is not None
    assert memory.weight_bytes(pipeline, ("transformer",)) == apply.implied_bytes(count)


def test_weights_are_not_counted_where_nothing_is_quantized(make_pipeline: Make) -> None:
    assert apply.apply(make_pipeline(), flux_mini(Recipe(scheme=BF16))).weights is None


def test_scales_that_are_padded_into_tiles_are_named_as_groups() -> None:
    from torchao.prototype.mx_formats.nvfp4_tensor import NVFP4Tensor, QuantizeTensorToNVFP4Kwargs

    activations = QuantizeTensorToNVFP4Kwargs(is_swizzled_scales=True)
    weight = NVFP4Tensor.to_nvfp4(
        torch.ones(96, 160, dtype=torch.bfloat16), is_swizzled_scales=True, act_quant_kwargs=activations
    )
    assert NVFP4.weight is not None
    assert apply.look(weight, NVFP4.weight) == (
        "NVFP4Tensor",
        "uint8",
        "per-group-16",
        NVFP4.weight.activation,
    )
    # 96 x 160 have 960 scales, which stand in tiles of 128 x 64 and look like 1536 where that is not known.
    assert apply.look(weight)[2] == "per-group-10"


def test_mxfp8_weights_look_as_their_row_says() -> None:
    from torchao.quantization import quantize_

    assert MXFP8.config is not None
    linear = torch.nn.Linear(160, 96, dtype=torch.bfloat16)
    quantize_(torch.nn.Sequential(linear), construct(MXFP8.config))
    assert MXFP8.weight is not None
    assert apply.look(linear.weight, MXFP8.weight) == (
        "MXTensor",
        "float8_e4m3fn",
        "per-group-32",
        MXFP8.weight.activation,
    )


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class TilePacked:
    """The attributes that torchao's tile-packed int4 weight has; its kernels need a GPU."""

    shape: tuple[int, int]
    qdata: torch.Tensor
    scale_and_zero: torch.Tensor


def test_scales_packed_with_their_zero_points_are_counted_once() -> None:
    weight: Any = TilePacked(
        shape=(64, 256),
        qdata=torch.zeros(8, 8, 32, 4, dtype=torch.int32),
        scale_and_zero=torch.zeros(8, 64, 2, dtype=torch.bfloat16),
    )
    assert apply.look(weight, INT4WO.weight) == ("TilePacked", "int32", "per-group-128", None)


@pytest.mark.parametrize(("scheme", "bytes_per_weight"), [(INT8WO, 1.0), (FP8WO, 1.0), (BF16, 2.0)])
def test_weight_bytes_are_what_the_bit_width_implies(
    make_pipeline: Make, scheme: Scheme, bytes_per_weight: float
) -> None:
    pipeline = make_pipeline()
    weights = sum(p.numel() for p in pipeline.transformer.parameters())
    apply.apply(pipeline, flux_mini(Recipe(scheme=scheme)))
    assert memory.weight_bytes(pipeline, ("transformer",)) == pytest.approx(
        weights * bytes_per_weight, rel=0.02
    )


def test_a_refusal_after_the_stack_was_found_to_support_the_scheme_is_a_failure(make_pipeline: Make) -> None:
    with pytest.raises(WorkerError, match="fp8dqrow, which this stack supports, is refused") as caught:
        apply.apply(make_pipeline(), flux_mini(Recipe(scheme=FP8DQROW)))
    failure = caught.value.failure
    assert (failure.kind, failure.phase) == (FailureKind.LOAD, Phase.QUANTIZE)


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Kwargs:
    """Arguments of an unknown class, which state neither dtype nor granularity."""


def test_fp8_activations_are_named_by_dtype_and_granularity() -> None:
    from torchao.quantization import Float8Tensor, PerRow, PerTensor
    from torchao.quantization.quantize_.workflows import QuantizeTensorToFloat8Kwargs

    linear = torch.nn.Linear(64, 32, dtype=torch.bfloat16)
    for scheme, granularity in ((FP8DQROW, PerRow()), (FP8DQ, PerTensor())):
        activations = QuantizeTensorToFloat8Kwargs(granularity=granularity)
        weight = Float8Tensor.from_hp(linear.weight, granularity=granularity, act_quant_kwargs=activations)
        assert scheme.weight is not None
        assert scheme.weight.describes(*apply.look(weight, scheme.weight))
    coarse = QuantizeTensorToFloat8Kwargs(granularity=PerTensor())
    weight = Float8Tensor.from_hp(linear.weight, granularity=PerRow(), act_quant_kwargs=coarse)
    assert apply.look(weight, FP8DQROW.weight)[3] == "float8_e4m3fn per-tensor"
    assert FP8DQROW.weight is not None
    assert not FP8DQROW.weight.describes(*apply.look(weight, FP8DQROW.weight))


def test_activations_that_say_nothing_are_not_taken_for_those_of_a_scheme() -> None:
    weight: Any = types.SimpleNamespace(
        shape=(64, 256), qdata=torch.zeros(64, 256, dtype=torch.int8), act_quant_kwargs=Kwargs()
    )
    assert apply.look(weight)[3] == "? ?"


def test_activations_of_auraflow_have_a_lower_bound_in_fp8dqrow_alone() -> None:
    build = Build(pipeline=AURAFLOW_MINI, recipe=Recipe(scheme=FP8DQROW))
    config = build.config_of(FP8DQROW)
    assert config is not None
    assert construct(config).activation_value_lb == 1e-12
    assert build.config_of(FP8DQ) == FP8DQ.config
    assert build.config_of(BF16) is None


@pytest.mark.parametrize(("lower_bound", "nan_rows"), [(None, 1), (1e-12, 0)])
def test_row_of_zeros_is_nan_without_the_lower_bound(lower_bound: float | None, nan_rows: int) -> None:
    from torchao.quantization import Float8Tensor, PerRow

    rows = torch.stack([torch.zeros(64), torch.ones(64)]).bfloat16()
    quantized = Float8Tensor.from_hp(rows, granularity=PerRow(), hp_value_lb=lower_bound)
    assert int(quantized.dequantize().isnan().any(dim=1).sum()) == nan_rows


# Where it is quantized

META = torch.device("meta")
ELSEWHERE = pytest.mark.parametrize("where", [QuantizedOn.HOST, QuantizedOn.MODULE])


def int8wo_from_host(where: QuantizedOn) -> Build:
    return flux_mini(Recipe(scheme=INT8WO, quantized_on=where))


@ELSEWHERE
def test_what_is_quantized_elsewhere_has_the_same_bits(make_pipeline: Make, where: QuantizedOn) -> None:
    usual, elsewhere = make_pipeline(), make_pipeline()
    apply.apply(usual, flux_mini(Recipe(scheme=INT8WO)))
    apply.move_to_host(elsewhere, int8wo_from_host(where))
    apply.apply(elsewhere, int8wo_from_host(where), device=torch.device("cpu"))
    assert state.hashes(elsewhere, ["transformer"]) == state.hashes(usual, ["transformer"])


@ELSEWHERE
def test_what_is_quantized_elsewhere_ends_on_the_device_as_a_whole(
    make_pipeline: Make, where: QuantizedOn
) -> None:
    pipeline = make_pipeline()
    apply.apply(pipeline, int8wo_from_host(where), device=META)
    found = {
        plain.device.type
        for parameter in pipeline.transformer.parameters()
        for plain in memory.plain_tensors(parameter)
    }
    assert found == {"meta"}


@pytest.mark.parametrize(
    ("where", "device"),
    [(QuantizedOn.DEVICE, "cpu"), (QuantizedOn.HOST, "cpu"), (QuantizedOn.MODULE, "meta")],
)
def test_weights_are_quantized_where_the_recipe_says(
    make_pipeline: Make, monkeypatch: pytest.MonkeyPatch, where: QuantizedOn, device: str
) -> None:
    pipeline, seen = make_pipeline(), set()
    from_hp = Int8Tensor.from_hp

    def noting(weight: torch.Tensor, *others: Any, **keywords: Any) -> Any:
        seen.add(weight.device.type)
        return from_hp(weight, *others, **keywords)

    monkeypatch.setattr(Int8Tensor, "from_hp", noting)
    apply.apply(pipeline, int8wo_from_host(where), device=META)
    assert seen == {device}


def test_report_says_which_device_held_what_was_to_be_quantized(make_pipeline: Make) -> None:
    pipeline = make_pipeline()
    report = apply.apply(pipeline, int8wo_from_host(QuantizedOn.HOST), device=META)
    assert report.weights is not None
    assert report.weights.device == "cpu"


def test_only_a_recipe_that_begins_on_the_host_moves_anything_there(make_pipeline: Make) -> None:
    pipeline = make_pipeline()
    pipeline.transformer.to("meta")
    apply.move_to_host(pipeline, flux_mini(Recipe(scheme=INT8WO)))
    assert {each.device.type for each in pipeline.transformer.parameters()} == {"meta"}
