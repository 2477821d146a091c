"""Recipes that train: what their ids say, which layers they convert, and which metrics are about them."""

from __future__ import annotations

from typing import Any

import pytest

from perf_tests.tables.cases import Case
from perf_tests.tables.matrix import MATRIX
from perf_tests.tables.metrics.expected import gradient_error_vs_redrawn, gradient_error_vs_rounded
from perf_tests.tables.metrics.rows import METRICS
from perf_tests.tables.pipelines.flux import FLUX1_DEV
from perf_tests.tables.platforms import A100
from perf_tests.tables.recipes import Activity, CompileMode, Loader
from perf_tests.tables.schemes.rows import INT8WO
from perf_tests.tables.training.spec import Float8Recipe, Training
from perf_tests.unit.builders import MINI_BF16, make_case

TENSORWISE = Training(float8=Float8Recipe.TENSORWISE)


def training(**changes: object) -> Case:
    return make_case(training=Training(**changes))  # type: ignore[arg-type] # test data


@pytest.mark.parametrize(
    ("case", "case_id"),
    [
        (training(), "flux-mini-b1-bf16-eager-lora"),
        (training(float8=Float8Recipe.TENSORWISE), "flux-mini-b1-bf16-eager-lora-fp8tensor"),
        (training(float8=Float8Recipe.ROWWISE), "flux-mini-b1-bf16-eager-lora-fp8row"),
        (training(checkpointing=True), "flux-mini-b1-bf16-eager-lora-ckpt"),
        (
            make_case(FLUX1_DEV, compile=CompileMode.REGIONAL, training=TENSORWISE),
            "flux1-dev-b1-bf16-regional-lora-fp8tensor",
        ),
    ],
)
def test_id_says_that_a_case_trains_and_in_what(case: Case, case_id: str) -> None:
    assert case.id == case_id
    assert case.is_training
    assert case.steps == 8


def test_a_case_that_generates_has_no_steps_of_training() -> None:
    assert not MINI_BF16.is_training
    assert MINI_BF16.steps == 4


@pytest.mark.parametrize(
    ("float8", "redrawn", "rounded"),
    [(None, (0.0, 1.0), None), *((each, None, (0.7, 1.4)) for each in Float8Recipe)],
)
def test_a_gradient_in_bf16_is_held_against_noise_and_one_in_float8_against_rounding(
    float8: Float8Recipe | None, redrawn: tuple[float, float] | None, rounded: tuple[float, float] | None
) -> None:
    case = training(float8=float8)
    for implied, limits in (
        (gradient_error_vs_redrawn(case), redrawn),
        (gradient_error_vs_rounded(case), rounded),
    ):
        assert (None if implied is None else (implied.low, implied.high)) == limits


def test_reference_of_training_trains_the_same_in_bf16() -> None:
    case = training(float8=Float8Recipe.ROWWISE, checkpointing=True)
    assert case.reference.build.recipe.training == Training(checkpointing=True)
    assert case.reference.is_reference
    assert not case.is_reference


def test_what_is_trained_shares_its_worker_with_no_other_case() -> None:
    assert training().worker_key[-1] == "flux-mini-b1-bf16-eager-lora"


def test_how_far_the_loss_may_be_off_makes_no_other_case() -> None:
    assert training(largest_loss_difference_pct=1.5).digest == training().digest
    assert training(rank=8).digest != training().digest


@pytest.mark.parametrize(
    ("name", "in_features", "out_features", "is_converted"),
    [
        ("transformer_blocks.0.attn.to_q", 256, 256, True),
        ("x_embedder", 16, 256, True),
        ("x_embedder", 8, 256, False),
        ("x_embedder", 16, 24, False),
        ("proj_out", 256, 16, False),
        ("single_transformer_blocks.0.proj_out", 1280, 256, True),
    ],
)
def test_layers_are_converted_unless_their_sizes_or_their_names_forbid_it(
    name: str, in_features: int, out_features: int, is_converted: bool
) -> None:
    assert TENSORWISE.is_converted(name, in_features, out_features) is is_converted


def test_nothing_is_converted_in_bf16() -> None:
    assert not Training().is_converted("transformer_blocks.0.attn.to_q", 256, 256)


@pytest.mark.parametrize(
    ("name", "is_adapted"),
    [
        ("transformer_blocks.0.attn.to_q", True),
        ("transformer_blocks.0.attn.to_out.0", True),
        ("single_transformer_blocks.3.attn.to_v", True),
        ("transformer_blocks.0.attn.add_q_proj", False),
        ("transformer_blocks.0.ff.net.2", False),
    ],
)
def test_the_projections_of_attention_are_adapted(name: str, is_adapted: bool) -> None:
    assert Training().is_adapted(name) is is_adapted


def test_metrics_of_pictures_are_not_about_training_nor_the_reverse() -> None:
    of_training = {metric.name for metric in METRICS if metric.applies(training(float8=Float8Recipe.ROWWISE))}
    assert {"train_step_ms", "train_speedup_vs_bf16", "loss_difference_pct", "float8_modules"} <= of_training
    assert {"load_s", "peak_allocated_mib", "compiled_graphs", "model_memory_mib"} <= of_training
    assert not {"denoise_step_ms", "psnr_db", "transformer_calls", "quantized_modules"} & of_training
    of_pictures = [metric for metric in METRICS if metric.applies(MINI_BF16)]
    assert all(Activity.GENERATING in metric.activities for metric in of_pictures)


def test_metrics_of_float8_are_not_about_bf16() -> None:
    named = {metric.name for metric in METRICS if metric.applies(training())}
    assert not {"float8_modules", "float8_gemms_forward", "train_speedup_vs_bf16"} & named


def test_rows_that_train_run_where_float8_is_multiplied_with_no_setting_and_one_is_not_exhaustive() -> None:
    rows = [row for row in MATRIX if row.recipe.training is not None]
    assert not any(A100 in row.platforms or row.recipe.settings for row in rows)
    assert {row.pipeline.family for row in rows} == {"flux"}
    regular = [row for row in rows if row.pipeline.miniature_of and not row.exhaustive]
    assert [row.recipe.id for row in regular] == ["bf16-eager-lora-fp8tensor"]
    assert all(
        row.recipe.training.largest_loss_difference_pct == (1.5 if row.pipeline.miniature_of else 3.0)
        for row in rows
        if row.recipe.training is not None
    )


@pytest.mark.parametrize(
    ("other", "named"),
    [
        ({"scheme": INT8WO}, "a scheme that quantizes"),
        ({"compile_vae": True, "fuse_qkv": True}, "fuse_qkv, compile_vae"),
        ({"loader": Loader.TORCH_SAVE}, "loader"),
        ({"compile": CompileMode.AOTI}, "aoti"),
    ],
)
def test_training_excludes_what_is_about_generating(other: dict[str, Any], named: str) -> None:
    with pytest.raises(ValueError, match=f"a recipe that trains excludes {named}: leave it out"):
        make_case(training=Training(), **other)
