"""Each compile mode marks its modules for compilation; the main job of the CI does compile."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
import torch

from perf_tests.tables.cases import Case
from perf_tests.tables.pipelines.auraflow import AURAFLOW_MINI
from perf_tests.tables.pipelines.cogvideox import COGVIDEOX_MINI
from perf_tests.tables.pipelines.flux import FLUX_MINI
from perf_tests.tables.pipelines.pixart import PIXART_MINI
from perf_tests.tables.pipelines.sd3 import SD3_MINI
from perf_tests.tables.pipelines.spec import PipelineSpec
from perf_tests.tables.recipes import NO_ONEDNN, CompileMode, Recipe
from perf_tests.tables.schemes.rows import BF16
from perf_tests.unit.conftest import ROOT
from perf_tests.worker.model import compile, inductor_settings
from perf_tests.worker.model.compiled.cuda_graph import GraphedForward

REPRO = ROOT / "tools" / "repro" / "int8wo_compile.py"

Make = Callable[..., Any]


def marked(root: Any) -> list[str]:
    """Names of the modules that compile when they are next called."""
    return [name for name, module in root.named_modules() if module._compiled_call_impl is not None]


FLUX_BLOCKS = [
    *(f"transformer_blocks.{index}" for index in range(2)),
    *(f"single_transformer_blocks.{index}" for index in range(4)),
]


@pytest.mark.parametrize(
    ("spec", "mode", "modules"),
    [
        pytest.param(FLUX_MINI, CompileMode.EAGER, [], id="eager"),
        pytest.param(FLUX_MINI, CompileMode.REGIONAL, FLUX_BLOCKS, id="blocks that diffusers declares"),
        pytest.param(
            COGVIDEOX_MINI,
            CompileMode.REGIONAL,
            ["transformer_blocks.0", "transformer_blocks.1"],
            id="blocks that the row names, where diffusers declares none",
        ),
        pytest.param(
            SD3_MINI,
            CompileMode.REGIONAL,
            [f"transformer_blocks.{index}" for index in range(3)],
            id="blocks of sd3",
        ),
        pytest.param(
            PIXART_MINI,
            CompileMode.REGIONAL,
            [f"transformer_blocks.{index}" for index in range(3)],
            id="blocks of pixart",
        ),
        pytest.param(
            AURAFLOW_MINI,
            CompileMode.REGIONAL,
            [
                *(f"joint_transformer_blocks.{index}" for index in range(2)),
                *(f"single_transformer_blocks.{index}" for index in range(2)),
            ],
            id="two lists of blocks",
        ),
        pytest.param(FLUX_MINI, CompileMode.FULL, [""], id="the whole transformer"),
        pytest.param(FLUX_MINI, CompileMode.MAX_AUTOTUNE, [""], id="the whole transformer, tuned"),
        pytest.param(FLUX_MINI, CompileMode.AOTI, [], id="blocks that another process compiled"),
    ],
)
def test_each_mode_marks_its_modules(
    make_pipeline: Make,
    make_case: Callable[..., Case],
    spec: PipelineSpec,
    mode: CompileMode,
    modules: list[str],
) -> None:
    recipe = Recipe(scheme=BF16, compile=mode)
    pipeline = make_pipeline(recipe, pipeline=spec)
    compile.apply(pipeline, make_case(recipe, pipeline=spec).build)
    assert sorted(marked(pipeline.transformer)) == sorted(modules)


@pytest.mark.parametrize(
    ("recipe", "times"),
    [
        pytest.param(Recipe(scheme=BF16), 0, id="eager"),
        pytest.param(Recipe(scheme=BF16, compile=CompileMode.REGIONAL), 1, id="blocks"),
        pytest.param(Recipe(scheme=BF16, compile=CompileMode.MAX_AUTOTUNE), 1, id="tuned"),
    ],
)
def test_what_compiles_assembles_kernels_as_the_pool_does(
    make_pipeline: Make,
    make_case: Callable[..., Case],
    monkeypatch: pytest.MonkeyPatch,
    recipe: Recipe,
    times: int,
) -> None:
    taken: list[None] = []
    monkeypatch.setattr(inductor_settings, "use_ptxas_of_pool", lambda: taken.append(None))
    compile.apply(make_pipeline(recipe), make_case(recipe).build)
    assert len(taken) == times


@pytest.mark.parametrize("is_on", [True, False])
def test_the_decoder_is_compiled_only_where_the_recipe_says(
    make_pipeline: Make, make_case: Callable[..., Case], is_on: bool
) -> None:
    recipe = Recipe(scheme=BF16, compile_vae=is_on)
    pipeline = make_pipeline(recipe)
    compile.apply(pipeline, make_case(recipe).build)
    # torch.compile keeps the wrapped function under this name.
    assert hasattr(pipeline.vae.decode, "_torchdynamo_orig_callable") is is_on
    assert recipe.compiles is is_on


@pytest.mark.parametrize("is_on", [True, False])
def test_the_transformer_is_replayed_only_where_the_recipe_says(
    make_pipeline: Make, make_case: Callable[..., Case], is_on: bool
) -> None:
    recipe = Recipe(scheme=BF16, compile=CompileMode.REGIONAL, cuda_graph=is_on)
    pipeline = make_pipeline(recipe)
    compile.apply(pipeline, make_case(recipe).build)
    assert isinstance(pipeline.transformer.forward, GraphedForward) is is_on
    assert sorted(marked(pipeline.transformer)) == sorted(FLUX_BLOCKS)


def test_settings_are_made_before_anything_compiles(
    make_pipeline: Make, make_case: Callable[..., Case]
) -> None:
    recipe = Recipe(scheme=BF16, settings=(NO_ONEDNN,))
    assert torch.backends.mkldnn.enabled
    try:
        compile.apply(make_pipeline(recipe), make_case(recipe).build)
        assert not torch.backends.mkldnn.enabled
    finally:
        torch.backends.mkldnn.set_flags(True)


def _repro(*arguments: str) -> dict[str, Any]:
    """The last line that the script prints on a CPU, where the rewritten layer is not slower."""
    command = [sys.executable, str(REPRO), "--tokens", "32", *arguments]
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=120)
    found: dict[str, Any] = msgspec.json.decode(done.stdout.splitlines()[-1])
    return found


def test_the_repro_shows_the_rewritten_layer() -> None:
    found = _repro("--slowdown")
    assert found["slowdown"] > 0.0
    assert (found["bf16"]["rewritten"], found["default"]["rewritten"]) == (0, 1)
    assert found["bf16"]["sqnr_db"] is None
    assert found["default"]["sqnr_db"] > 40.0


def test_the_repro_shows_that_the_setting_leaves_the_layer_as_it_is() -> None:
    found = _repro("--variant", "no-onednn")
    assert found["rewritten"] == 0
    assert found["sqnr_db"] > 40.0
