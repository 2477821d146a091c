"""What recipes exclude, and what cases of the other compile modes are compared with."""

from __future__ import annotations

from typing import Any

import pytest

from perf_tests.tables.metrics.rows import METRICS
from perf_tests.tables.metrics.spec import Reader
from perf_tests.tables.recipes import (
    COORDINATE_DESCENT,
    EAGER_CASTS,
    MODEL_OFFLOAD,
    CompileMode,
    Loader,
    QuantizedOn,
    Recipe,
    bf16_twin,
)
from perf_tests.tables.rows.compile_modes import autotuned
from perf_tests.tables.schemes.rows import AUTOQUANT, BF16, FP8DQROW
from perf_tests.unit.builders import make_case

PACKAGED = Recipe(scheme=FP8DQROW, compile=CompileMode.AOTI)


@pytest.mark.parametrize(
    ("other", "named"),
    [
        ({"compile_vae": True}, "compile_vae"),
        ({"loader": Loader.TORCH_SAVE}, "loader"),
        ({"quantized_on": QuantizedOn.HOST}, "quantized_on"),
        ({"offload": MODEL_OFFLOAD}, "offload"),
        ({"scheme": AUTOQUANT}, "a scheme with a search"),
    ],
)
def test_packages_exclude_what_they_cannot_be_measured_with(other: dict[str, Any], named: str) -> None:
    with pytest.raises(
        ValueError, match=rf"exclude {named}: choose another compile mode than aoti, or leave it out"
    ):
        Recipe(**{"scheme": FP8DQROW, "compile": CompileMode.AOTI, **other})


def test_packaged_recipe_compiles_nothing_where_it_is_measured() -> None:
    assert PACKAGED.is_packaged
    assert not PACKAGED.compiles


def test_packaged_recipe_has_the_weights_but_not_the_bits_of_the_one_that_compiles() -> None:
    assert PACKAGED.built_twin == Recipe(scheme=FP8DQROW, compile=CompileMode.REGIONAL)
    assert not PACKAGED.repeats_twin
    assert Recipe(scheme=FP8DQROW, loader=Loader.TORCH_SAVE).repeats_twin


def test_reference_of_packages_compiles_their_blocks_itself() -> None:
    twin = Recipe(scheme=BF16, compile=CompileMode.REGIONAL)
    assert bf16_twin(PACKAGED) == twin
    assert bf16_twin(Recipe(scheme=BF16, compile=CompileMode.AOTI)) == twin


AUTOTUNED = autotuned(FP8DQROW, fuse_qkv=True, compile_vae=True)


def test_tuned_recipe_has_a_reference_that_is_compiled_alike() -> None:
    assert AUTOTUNED.id == "fp8dqrow-maxautotune-fused-cvae-cl-cdt"
    assert bf16_twin(AUTOTUNED) == autotuned(BF16)
    assert bf16_twin(autotuned(BF16)) == autotuned(BF16)


@pytest.mark.parametrize(
    ("mode", "is_floor"),
    [(CompileMode.REGIONAL, True), (CompileMode.FULL, False), (CompileMode.MAX_AUTOTUNE, False)],
)
def test_picture_of_a_whole_compiled_transformer_is_no_floor_of_noise(
    mode: CompileMode, is_floor: bool
) -> None:
    case = make_case(scheme=BF16, compile=mode)
    noise = {metric.name for metric in METRICS if metric.reader is Reader.NOISE}
    applies = {metric.name for metric in METRICS if metric.applies(case)}
    assert noise & applies == (noise if is_floor else set())


def test_whole_transformer_that_is_told_to_rounds_as_eager_code() -> None:
    assert not autotuned(BF16).rounds_as_eager
    assert autotuned(BF16, further=(EAGER_CASTS,)).rounds_as_eager


@pytest.mark.parametrize(
    "other", [{"offload": MODEL_OFFLOAD}, {"compile": CompileMode.MAX_AUTOTUNE}], ids=["offload", "graphs"]
)
def test_no_graph_is_recorded_of_what_moves_or_replays_graphs(other: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="a CUDA graph knows where weights and buffers are"):
        Recipe(**{"scheme": FP8DQROW, "cuda_graph": True, **other})


def test_graph_is_of_the_same_blocks_and_has_the_same_reference() -> None:
    graphed = Recipe(scheme=FP8DQROW, compile=CompileMode.REGIONAL, cuda_graph=True)
    assert graphed.id == "fp8dqrow-regional-graphed"
    assert graphed.built_twin is None
    assert bf16_twin(graphed) == Recipe(scheme=BF16, compile=CompileMode.REGIONAL)


def test_settings_of_torchao_are_those_that_it_sets_itself() -> None:
    assert COORDINATE_DESCENT.inductor == {
        "coordinate_descent_tuning": True,
        "coordinate_descent_check_all_directions": True,
    }
