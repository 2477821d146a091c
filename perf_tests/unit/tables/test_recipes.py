"""What recipes exclude, and what a case with blocks from packages is compared with."""

from __future__ import annotations

from typing import Any

import pytest

from perf_tests.tables.recipes import (
    MODEL_OFFLOAD,
    CompileMode,
    Loader,
    QuantizedOn,
    Recipe,
    bf16_twin,
)
from perf_tests.tables.schemes.rows import AUTOQUANT, BF16, FP8DQROW

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
