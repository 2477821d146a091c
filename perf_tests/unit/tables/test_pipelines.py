from __future__ import annotations

import importlib
import pkgutil
import re
from pathlib import Path

import pytest

from perf_tests.tables import pipelines
from perf_tests.tables.pipelines.flux import FLUX1_DEV, FLUX1_DEV_SLIM, FLUX_MINI
from perf_tests.tables.pipelines.rows import FAMILIES, FULL_SIZE, MINIATURES, PIPELINES
from perf_tests.tables.pipelines.spec import PROMPTS, PipelineSpec

ANCHORS = Path(__file__).parents[3] / "baselines" / "anchors"
BY_ID = {pipeline.id: pipeline for pipeline in PIPELINES}
PUBLISHED = [pipeline for pipeline in PIPELINES if not pipeline.repo.startswith("perf-tests/")]


def _named(pipeline: PipelineSpec) -> str:
    return pipeline.id


@pytest.mark.parametrize("name", [each.name for each in pkgutil.iter_modules(pipelines.__path__)])
def test_module_with_rows_is_one_of_the_families(name: str) -> None:
    module = importlib.import_module(f"perf_tests.tables.pipelines.{name}")
    has_rows = any(isinstance(value, PipelineSpec) for value in vars(module).values())
    assert has_rows == (module in FAMILIES), (
        f"add {name} to FAMILIES in perf_tests/tables/pipelines/rows.py, with its import"
    )


@pytest.mark.parametrize("pipeline", PIPELINES, ids=_named)
def test_pipeline_is_pinned_to_a_commit(pipeline: PipelineSpec) -> None:
    assert re.fullmatch(r"[0-9a-f]{40}", pipeline.revision)


def test_pipelines_are_told_apart() -> None:
    assert len({pipeline.id for pipeline in PIPELINES}) == len(PIPELINES)
    assert len({(pipeline.repo, pipeline.revision) for pipeline in PIPELINES}) == len(PIPELINES)


def test_pipelines_are_those_of_published_checkpoints_the_slim_one_and_the_miniatures() -> None:
    assert (*FULL_SIZE, FLUX1_DEV_SLIM, *MINIATURES) == PIPELINES
    assert list(FULL_SIZE) == PUBLISHED


@pytest.mark.parametrize("pipeline", PIPELINES, ids=_named)
def test_family_is_a_marker(pipeline: PipelineSpec, pytestconfig: pytest.Config) -> None:
    markers = {line.partition(":")[0] for line in pytestconfig.getini("markers")}
    assert pipeline.family in markers


@pytest.mark.parametrize("pipeline", PUBLISHED, ids=_named)
def test_published_pipeline_has_one_miniature(pipeline: PipelineSpec) -> None:
    found = [mini.id for mini in MINIATURES if mini.miniature_of == pipeline.id]
    assert len(found) == 1, (
        f"{pipeline.id} has the miniatures {found}: add one row, with miniature_of=ITS_ROW.id, below "
        "its own in perf_tests/tables/pipelines/"
    )


@pytest.mark.parametrize("mini", MINIATURES, ids=_named)
def test_miniature_differs_from_its_pipeline_in_size_only(mini: PipelineSpec) -> None:
    def kind(pipeline: PipelineSpec) -> dict[str, object]:
        same = ("family", "cls", "scheduler", "batch_argument", "output", "blocks", "arguments", "single_row")
        return {
            **{name: getattr(pipeline, name) for name in same},
            "modules": {name: (row.cls, row.config_cls) for name, row in pipeline.modules.items()},
            "tokenizers": set(pipeline.tokenizers),
            "call": set(pipeline.workload.arguments),
        }

    assert kind(mini) == kind(BY_ID[mini.miniature_of or ""])
    assert (mini.repo, mini.licence) == (f"perf-tests/{mini.id}", None), (
        f'set repo="perf-tests/{mini.id}", licence=None and a revision of its own on the row of {mini.id}'
    )


@pytest.mark.parametrize("pipeline", [*MINIATURES, FLUX1_DEV_SLIM], ids=_named)
def test_small_pipeline_has_an_anchor_and_its_floor(pipeline: PipelineSpec) -> None:
    files = [ANCHORS / f"{pipeline.id}{suffix}" for suffix in (".json", ".npz")]
    assert all(path.is_file() for path in files), f"run python tools/anchor.py write --only {pipeline.id}"
    assert pipeline.anchor is not None, (
        f"add anchor=AnchorFloors(...) to the row of {pipeline.id}, with low_db=30.0 for each stage; then "
        f"pytest --perf-case '{pipeline.id}-b1-bf16-eager' shows its anchor_*_db: put low_db 2 dB below"
    )


def test_anchors_belong_to_small_pipelines() -> None:
    committed = {path.stem for path in ANCHORS.iterdir()}
    assert committed == {pipeline.id for pipeline in PIPELINES if pipeline.anchor is not None}


PUBLISHED_WORKLOADS = {
    "flux1-dev": (1024, 1024, None, 28, 28, 3.5),
    "flux1-schnell": (1024, 1024, None, 4, 4, 0.0),
    "cogvideox-5b": (480, 720, 49, 50, 6, 6.0),
    "cogvideox-2b": (480, 720, 49, 50, 6, 6.0),
    "sd3-medium": (1024, 1024, None, 28, 28, 7.0),
    "pixart-sigma": (1024, 1024, None, 20, 20, 4.5),
    "auraflow": (1024, 1024, None, 50, 6, 3.5),
}


@pytest.mark.parametrize("pipeline", FULL_SIZE, ids=_named)
def test_default_workload_is_the_published_one_and_few_of_many_steps_are_measured(
    pipeline: PipelineSpec,
) -> None:
    work = pipeline.workload
    asked = (work.height, work.width, work.num_frames, work.steps, work.generated_steps)
    assert (*asked, work.arguments["guidance_scale"]) == PUBLISHED_WORKLOADS.get(pipeline.id), (
        f"add what the model card of {pipeline.repo} asks for to PUBLISHED_WORKLOADS in "
        "perf_tests/unit/tables/test_pipelines.py: height, width, frames, steps, generated steps, "
        "guidance_scale"
    )


def test_module_changes_its_sizes_without_changing_the_row() -> None:
    row = FLUX1_DEV.modules["transformer"]
    small = row.with_config(num_layers=1)
    assert (small.cls, small.config["num_layers"], small.config["patch_size"]) == (row.cls, 1, 1)
    assert row.config["num_layers"] == 19


def test_prompts_have_a_seed_each_and_the_first_is_the_workload() -> None:
    workload = FLUX_MINI.workload
    asked = [workload.of_prompt(pair) for pair in range(PROMPTS)]
    assert PROMPTS == 4
    assert asked[0] == workload
    assert len({each.prompt for each in asked}) == len({each.seed for each in asked}) == 4
    assert {(each.height, each.width, each.steps) for each in asked} == {
        (workload.height, workload.width, workload.steps)
    }
