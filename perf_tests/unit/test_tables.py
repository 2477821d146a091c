from __future__ import annotations

import dataclasses
import re
import subprocess
import sys

import msgspec
import pytest

from perf_tests.tables.cases import Case, Row, Weights
from perf_tests.tables.matrix import MATRIX
from perf_tests.tables.metrics import METRICS, Metric
from perf_tests.tables.pipelines import PIPELINES, PipelineSpec
from perf_tests.tables.platforms import CPU, PLATFORMS, Device
from perf_tests.tables.recipes import CompileMode
from perf_tests.tables.schemes import FP8DQ, INT8WO, SCHEMES, FidelityFloor, Scheme
from perf_tests.unit.builders import MINI_BF16, MINI_INT8WO

CASES = tuple(row.case(weights) for row in MATRIX for weights in Weights)


def _named(row: Row | Case | PipelineSpec | Scheme) -> str:
    return row.case(Weights.SYNTHETIC).id if isinstance(row, Row) else row.id


def _with_workload(**changes: object) -> Case:
    workload = dataclasses.replace(MINI_INT8WO.workload, **changes)  # type: ignore[arg-type] # test data
    return dataclasses.replace(MINI_INT8WO, workload=workload)


def _with_recipe(**changes: object) -> Case:
    recipe = dataclasses.replace(MINI_INT8WO.build.recipe, **changes)  # type: ignore[arg-type] # test data
    return MINI_INT8WO.with_recipe(recipe)


def _with_scheme(**changes: object) -> Case:
    scheme = dataclasses.replace(MINI_INT8WO.build.recipe.scheme, **changes)  # type: ignore[arg-type] # test data
    return _with_recipe(scheme=scheme)


def _with_pipeline(**changes: object) -> Case:
    pipeline = dataclasses.replace(MINI_INT8WO.build.pipeline, **changes)  # type: ignore[arg-type] # test data
    return dataclasses.replace(MINI_INT8WO, build=dataclasses.replace(MINI_INT8WO.build, pipeline=pipeline))


def test_case_ids_are_unique() -> None:
    ids = [case.id for case in CASES]
    assert sorted(set(ids)) == sorted(ids)


@pytest.mark.parametrize("case", CASES, ids=_named)
def test_case_ids_can_be_test_ids_and_patterns(case: Case) -> None:
    assert re.fullmatch(r"[a-z0-9.-]+", case.id)


@pytest.mark.parametrize("row", MATRIX, ids=_named)
def test_every_case_runs_on_some_platform(row: Row) -> None:
    assert row.platforms
    assert set(row.platforms) <= set(PLATFORMS)


@pytest.mark.parametrize("scheme", SCHEMES, ids=_named)
def test_every_exclusion_has_a_reason(scheme: Scheme) -> None:
    assert all(reason.strip() for reason in scheme.exclusions.values())


@pytest.mark.parametrize("scheme", SCHEMES, ids=_named)
def test_a_scheme_that_quantizes_says_how_it_looks_and_how_good_it_must_be(scheme: Scheme) -> None:
    said = {scheme.config is None, scheme.weight is None, scheme.floor is None}
    assert len(said) == 1


@pytest.mark.parametrize("pipeline", PIPELINES, ids=_named)
def test_every_pipeline_is_pinned_to_a_commit(pipeline: PipelineSpec) -> None:
    assert re.fullmatch(r"[0-9a-f]{40}", pipeline.revision)


@pytest.mark.parametrize("name", ["id", "process_noise_pct", "samples"])
def test_platforms_are_told_apart_and_measure_something(name: str) -> None:
    values = [getattr(platform, name) for platform in PLATFORMS]
    assert all(values)
    assert name != "id" or len(set(values)) == len(values)


def test_metric_names_are_unique() -> None:
    names = [metric.name for metric in METRICS]
    assert sorted(set(names)) == sorted(names)


@pytest.mark.parametrize(
    "metric", [metric for metric in METRICS if Device.CUDA in metric.gates], ids=lambda metric: metric.name
)
def test_no_gate_of_a_gpu_lets_more_than_sixty_percent_pass(metric: Metric) -> None:
    assert metric.gates[Device.CUDA].tolerance.relative_pct <= 60.0


@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.name)
def test_a_surprise_is_never_smaller_than_the_tolerance(metric: Metric) -> None:
    for gate in metric.gates.values():
        if gate.surprise is not None:
            assert gate.surprise.relative_pct >= gate.tolerance.relative_pct


@pytest.mark.parametrize(
    "changed",
    [
        pytest.param(_with_scheme(floor=FidelityFloor(psnr_db=1.0, ssim=0.1)), id="floor"),
        pytest.param(_with_scheme(min_capability=(9, 0)), id="capability"),
        pytest.param(_with_pipeline(licence="https://example.com"), id="licence"),
        pytest.param(_with_pipeline(family="another"), id="family"),
        pytest.param(
            _with_pipeline(workload=dataclasses.replace(MINI_INT8WO.workload, steps=9)), id="default-workload"
        ),
    ],
)
def test_how_a_case_is_judged_or_described_is_no_part_of_its_digest(changed: Case) -> None:
    assert changed != MINI_INT8WO
    assert changed.digest == MINI_INT8WO.digest


def test_the_reason_of_an_exclusion_is_no_part_of_the_digest_and_its_pattern_is() -> None:
    narrow = _with_scheme(exclusions={"*.out": "too narrow"})
    assert narrow.digest == _with_scheme(exclusions={"*.out": "found otherwise"}).digest
    assert narrow.digest != _with_scheme(exclusions={"*.in": "too narrow"}).digest


@pytest.mark.parametrize(
    "changed",
    [
        pytest.param(_with_workload(steps=5), id="steps"),
        pytest.param(_with_workload(seed=1), id="seed"),
        pytest.param(_with_workload(prompt="A dog"), id="prompt"),
        pytest.param(_with_recipe(compile=CompileMode.REGIONAL), id="compile"),
        pytest.param(_with_recipe(fuse_qkv=True), id="fused"),
        pytest.param(_with_recipe(scheme=FP8DQ), id="scheme"),
        pytest.param(_with_scheme(config=FP8DQ.config), id="config"),
        pytest.param(_with_pipeline(revision="00" * 20), id="revision"),
        pytest.param(
            dataclasses.replace(
                MINI_INT8WO,
                build=dataclasses.replace(MINI_INT8WO.build, weights=Weights.PRETRAINED),
            ),
            id="weights",
        ),
    ],
)
def test_what_is_measured_is_part_of_the_digest(changed: Case) -> None:
    assert changed.digest != MINI_INT8WO.digest


def test_digests_of_the_matrix_are_unique() -> None:
    assert len({case.digest for case in CASES}) == len(CASES)


@pytest.mark.parametrize("case", CASES, ids=_named)
def test_a_case_survives_the_wire_with_its_digest(case: Case) -> None:
    received = msgspec.json.decode(msgspec.json.encode(case), type=Case)
    assert received == case
    assert received.digest == case.digest


@pytest.mark.parametrize("case", CASES, ids=_named)
def test_the_reference_of_a_case_is_its_own_reference(case: Case) -> None:
    assert case.reference.is_reference
    assert case.reference.build.recipe.compile is case.build.recipe.compile


def test_only_an_unfused_bf16_case_is_its_own_reference() -> None:
    assert MINI_BF16.is_reference
    assert not MINI_INT8WO.is_reference


def test_an_id_names_what_differs_from_the_defaults_only() -> None:
    workload = dataclasses.replace(MINI_INT8WO.workload, height=256, steps=8)
    case = dataclasses.replace(_with_recipe(scheme=INT8WO, fuse_qkv=True), workload=workload)
    assert case.id == "flux-mini-b1-int8wo-eager-fused-256x128-s8"


def test_the_cpu_platform_needs_no_gpu() -> None:
    assert [platform.id for platform in PLATFORMS if platform.gpu is None] == [CPU.id]


@pytest.mark.parametrize(
    "module", ["perf_tests.tables.matrix", "perf_tests.tables.metrics", "perf_tests.harness.blessing"]
)
def test_tables_and_judging_import_no_torch(module: str) -> None:
    code = f"import sys, {module}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
