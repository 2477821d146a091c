from __future__ import annotations

import re
import subprocess
import sys

import pytest

from perf_tests.tables.cases import Case, Row, Weights
from perf_tests.tables.matrix import MATRIX, UNCOMPILABLE
from perf_tests.tables.pipelines.llama import LLAMA_MINI
from perf_tests.tables.pipelines.rows import FULL_SIZE, MINIATURES
from perf_tests.tables.pipelines.spec import PipelineSpec
from perf_tests.tables.platforms import CPU, H100, PLATFORMS, Device, Platform
from perf_tests.tables.recipes import OFFLOADS, Decoding, Loader, Offload
from perf_tests.tables.schemes.rows import SCHEMES
from perf_tests.tables.schemes.spec import Scheme
from perf_tests.unit.builders import for_each

CASES = tuple(row.case(weights) for row in MATRIX for weights in Weights)
GPU_ROWS = [row for row in MATRIX if any(platform.device is Device.CUDA for platform in row.platforms)]


def _named(row: PipelineSpec | Platform | Scheme) -> str:
    return row.id


def test_case_ids_are_unique() -> None:
    ids = [case.id for case in CASES]
    assert sorted(set(ids)) == sorted(ids)


@for_each(CASES)
def test_case_id_can_be_a_test_id_and_a_pattern(case: Case) -> None:
    assert re.fullmatch(r"[a-z0-9._-]+", case.id)


@for_each(MATRIX)
def test_row_runs_on_known_platforms(row: Row) -> None:
    assert row.platforms
    assert set(row.platforms) <= set(PLATFORMS)


@pytest.mark.parametrize("platform", PLATFORMS, ids=_named)
def test_platform_has_rows(platform: Platform) -> None:
    assert any(platform in row.platforms for row in MATRIX), (
        f"no row runs on {platform.id}: add it to `gpu_platforms` in perf_tests/tables/matrix.py, or rows of "
        "its own"
    )


@pytest.mark.parametrize("scheme", SCHEMES, ids=_named)
def test_scheme_is_measured_on_a_gpu(scheme: Scheme) -> None:
    assert any(row.recipe.scheme == scheme for row in GPU_ROWS), (
        f"no GPU measures {scheme.id}: add it to a tuple of recipes which COMBINATIONS names, such as "
        "*_regional(...) in FLUX_FURTHER, in perf_tests/tables/matrix.py"
    )


@pytest.mark.parametrize("pipeline", FULL_SIZE, ids=_named)
def test_full_size_pipeline_is_measured_on_a_gpu(pipeline: PipelineSpec) -> None:
    assert any(row.pipeline == pipeline for row in GPU_ROWS), (
        f"no GPU measures {pipeline.id}: add (ITS_ROW, 1, EVERY_SIZE) to COMBINATIONS in "
        "perf_tests/tables/matrix.py"
    )


def test_cross_product_has_every_scheme_on_every_miniature() -> None:
    ids = {row.case(Weights.SYNTHETIC).id for row in MATRIX if CPU in row.platforms}
    eager = {f"{pipeline.id}-b1-{scheme.id}-eager" for pipeline in MINIATURES for scheme in SCHEMES}
    compiled = {
        f"{pipeline.id}-b1-{scheme}-regional" for pipeline in MINIATURES for scheme in CPU.required_schemes
    }
    uncompilable = {
        f"{each.pipeline.id}-b1-{scheme.id}-regional" for each in UNCOMPILABLE for scheme in each.schemes
    }
    assert eager | compiled - uncompilable <= ids
    assert not uncompilable & ids
    assert "flux-mini-b1-fp8dq-regional" not in ids


def test_what_cannot_be_compiled_names_the_versions_that_were_tried() -> None:
    (pixart,) = UNCOMPILABLE
    assert [scheme.id for scheme in pixart.schemes] == ["int8dq", "int4dq", "autoquant"]
    assert "what torch 2.10, 2.11, 2.13, 2.14.1 and 2.15 alike generate" in pixart.reason


def test_cross_product_alone_is_exhaustive() -> None:
    exhaustive = [row for row in MATRIX if row.exhaustive]
    assert {platform.id for row in exhaustive for platform in row.platforms} == {"cpu"}
    assert {row.pipeline.id for row in exhaustive} == {pipeline.id for pipeline in (*MINIATURES, LLAMA_MINI)}
    assert all(row.workload is None for row in exhaustive)


WITHOUT_TORCH = (
    "perf_tests.tables.matrix",
    "perf_tests.tables.metrics",
    "perf_tests.harness.rebaseline.proposal",
)
IMPORTS = """
import importlib, sys
for module in sys.argv[1:]:
    importlib.import_module(module)
    print(module, "torch" in sys.modules)
"""


@pytest.fixture(scope="module")
def imports_torch() -> dict[str, str]:
    """Module -> whether torch is imported once it is, and those before it; in one process for all."""
    command = [sys.executable, "-c", IMPORTS, *WITHOUT_TORCH]
    lines = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
    return dict(line.split() for line in lines)


@pytest.mark.parametrize("module", WITHOUT_TORCH)
def test_tables_and_judging_import_no_torch(imports_torch: dict[str, str], module: str) -> None:
    assert imports_torch[module] == "False"


def test_every_scheme_of_a_cpu_is_loaded_in_some_way_but_those_that_a_search_chooses() -> None:
    loaded = {row.recipe.scheme.id for row in MATRIX if CPU in row.platforms and row.recipe.is_loaded}
    assert set(CPU.required_schemes) - loaded == {"autoquant"}


@pytest.mark.parametrize("loader", [each for each in Loader if each is not Loader.BUILT], ids=str)
def test_every_way_to_load_is_measured(loader: Loader) -> None:
    assert any(row.recipe.loader is loader for row in MATRIX)


@pytest.mark.parametrize("offload", OFFLOADS, ids=lambda each: each.id)
@pytest.mark.parametrize("platform", [CPU, H100], ids=_named)
def test_every_offload_is_measured(platform: Platform, offload: Offload) -> None:
    assert any(row.recipe.offload == offload for row in MATRIX if platform in row.platforms)


def test_steps_of_the_published_ladder_are_rows_and_so_is_what_tiles_and_slices_change() -> None:
    ids = {row.case(Weights.SYNTHETIC).id for row in MATRIX if H100 in row.platforms}
    assert {
        "cogvideox-5b-b1-bf16-eager",
        "cogvideox-5b-b1-int8wo-eager-qte",
        "cogvideox-5b-b1-int8wo-eager-qte-modeloffload",
        "cogvideox-5b-b1-int8wo-eager-qte-modeloffload-tiled",
        "cogvideox-5b-b1-bf16-eager-seqoffload-tiled",
        "cogvideox-5b-b1-int8wo-eager-qte-seqoffload-tiled",
        "cogvideox-5b-b1-bf16-eager-tiled",
        "flux1-dev-b4-bf16-eager-sliced",
    } <= ids


def test_batches_alone_are_sliced() -> None:
    sliced = [row for row in MATRIX if row.recipe.decoding is Decoding.SLICED]
    assert sliced
    assert all(row.case(Weights.SYNTHETIC).workload.batch_size > 1 for row in sliced)
