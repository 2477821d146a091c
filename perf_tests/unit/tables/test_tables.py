from __future__ import annotations

import dataclasses
import re
import subprocess
import sys

import msgspec
import pytest

from perf_tests.tables.cases import Case, Row, Weights
from perf_tests.tables.matrix import MATRIX, UNCOMPILABLE
from perf_tests.tables.metrics import METRICS, Metric
from perf_tests.tables.pipelines.flux import FLUX_MINI
from perf_tests.tables.pipelines.rows import FULL_SIZE, MINIATURES, PIPELINES
from perf_tests.tables.pipelines.spec import PROMPTS, PipelineSpec
from perf_tests.tables.platforms import CPU, PLATFORMS, Device, Platform
from perf_tests.tables.recipes import CompileMode
from perf_tests.tables.schemes.rows import (
    FP4_E2M1,
    FP5_E2M2,
    FP6_E3M2,
    FP8DQ,
    FP8WO,
    FP16,
    INT4DQ,
    INT4WO,
    INT8WO,
    MXFP8,
    NVFP4,
    SCHEMES,
)
from perf_tests.tables.schemes.spec import FidelityFloor, Range, ScaleShape, Scheme
from perf_tests.unit.builders import MINI_BF16, MINI_INT8WO, for_each

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


def _with_weight(**changes: object) -> Case:
    weight = MINI_INT8WO.build.recipe.scheme.weight
    assert weight is not None
    return _with_scheme(weight=dataclasses.replace(weight, **changes))  # type: ignore[arg-type] # test data


def _with_pipeline(**changes: object) -> Case:
    pipeline = dataclasses.replace(MINI_INT8WO.build.pipeline, **changes)  # type: ignore[arg-type] # test data
    return dataclasses.replace(MINI_INT8WO, build=dataclasses.replace(MINI_INT8WO.build, pipeline=pipeline))


def test_case_ids_are_unique() -> None:
    ids = [case.id for case in CASES]
    assert sorted(set(ids)) == sorted(ids)


@for_each(CASES)
def test_case_ids_can_be_test_ids_and_patterns(case: Case) -> None:
    assert re.fullmatch(r"[a-z0-9._-]+", case.id)


@for_each(MATRIX)
def test_every_case_runs_on_some_platform(row: Row) -> None:
    assert row.platforms
    assert set(row.platforms) <= set(PLATFORMS)


@pytest.mark.parametrize("scheme", SCHEMES, ids=_named)
def test_every_exclusion_has_a_reason(scheme: Scheme) -> None:
    assert all(reason.strip() for reason in scheme.exclusions.values())


@pytest.mark.parametrize("scheme", SCHEMES, ids=_named)
def test_a_scheme_that_quantizes_says_how_it_looks_and_how_good_it_must_be(scheme: Scheme) -> None:
    said = (scheme.config, scheme.weight or scheme.search, scheme.floor, scheme.output_sqnr_db)
    assert len({each is None for each in said}) == 1


@pytest.mark.parametrize("scheme", [scheme for scheme in SCHEMES if scheme.search], ids=_named)
def test_a_search_has_one_candidate_that_quantizes_nothing_and_knows_the_others_by_their_looks(
    scheme: Scheme,
) -> None:
    assert scheme.search is not None
    assert [each.id for each in scheme.search.candidates if each.config is None] == ["bf16"]
    assert scheme.search.unquantized.dtype == scheme.dtype
    assert {scheme.weight_of(each.id) for each in scheme.search.candidates} == {
        each.weight for each in scheme.search.candidates
    }
    assert scheme.weight_of(None) is None


@pytest.mark.parametrize(
    "scheme", [scheme for scheme in SCHEMES if scheme.weight and scheme.weight.group_size], ids=_named
)
def test_modules_whose_rows_are_no_whole_groups_are_left_alone(scheme: Scheme) -> None:
    assert scheme.weight is not None
    assert scheme.weight.scale is ScaleShape.PER_GROUP
    assert scheme.in_features_multiple % (scheme.weight.group_size or 0) == 0


@pytest.mark.parametrize(
    ("scheme", "elements", "scales", "implied_bytes"),
    [
        pytest.param(INT8WO, 64 * 1152, 64, 64 * 1152 + 64 * 5, id="int8wo"),
        pytest.param(FP8DQ, 64 * 1152, 1, 64 * 1152 + 4, id="fp8dq"),
        # 36 groups of 32 in a row, an int8 for each int4.
        pytest.param(INT4DQ, 64 * 1152, 64 * 36, 64 * 1152 + 64 * 36 * 3, id="int4dq"),
        pytest.param(FP6_E3M2, 64 * 1152, 64, 64 * 864 + 64 * 2, id="fp6_e3m2"),
        pytest.param(FP5_E2M2, 64 * 1152, 64, 64 * 720 + 64 * 2, id="fp5_e2m2"),
        pytest.param(FP4_E2M1, 64 * 1152, 64, 64 * 576 + 64 * 2, id="fp4_e2m1"),
        # 1152 columns are padded to 2048, which are 16 groups of 128.
        pytest.param(INT4WO, 64 * 2048, 64 * 16, 64 * 1024 + 64 * 16 * 4, id="int4wo"),
        # 64 rows are padded to 128 for the scales, not for the elements.
        pytest.param(NVFP4, 64 * 1152, 128 * 72, 64 * 576 + 128 * 72, id="nvfp4"),
        pytest.param(MXFP8, 64 * 1152, 128 * 36, 64 * 1152 + 128 * 36, id="mxfp8"),
    ],
)
def test_a_scheme_knows_the_bytes_of_a_weight(
    scheme: Scheme, elements: int, scales: int, implied_bytes: int
) -> None:
    weight = scheme.weight
    assert weight is not None
    assert (weight.stored_elements(64, 1152), weight.stored_scales(64, 1152)) == (elements, scales)
    assert weight.implied_bytes(elements, scales) == implied_bytes


def test_what_was_measured_tells_bit_widths_and_formats_apart() -> None:
    ranges = [scheme.output_sqnr_db for scheme in (INT4DQ, FP8WO, INT8WO)]
    bounds_db = [bound for each in ranges if each for bound in (each.low, each.high)]
    assert len(bounds_db) == 6
    assert bounds_db == sorted(bounds_db)


@pytest.mark.parametrize(
    # A search may leave all of it as it is.
    "scheme",
    [scheme for scheme in SCHEMES if scheme.output_sqnr_db is not None and scheme.search is None],
    ids=_named,
)
def test_an_unquantized_transformer_is_outside_every_range(scheme: Scheme) -> None:
    assert scheme.output_sqnr_db is not None
    # Rounding to bf16 alone gives 50.8 dB.
    assert 0.0 < scheme.output_sqnr_db.low < scheme.output_sqnr_db.high < 50.0


def test_every_scheme_is_proved_on_every_miniature() -> None:
    ids = {row.case(Weights.SYNTHETIC).id for row in MATRIX if CPU in row.platforms}
    eager = {f"{pipeline.id}-b1-{scheme.id}-eager" for pipeline in MINIATURES for scheme in SCHEMES}
    compiled = {
        f"{pipeline.id}-b1-{scheme}-regional" for pipeline in MINIATURES for scheme in CPU.required_schemes
    }
    uncompiled = {
        f"{each.pipeline.id}-b1-{scheme.id}-regional" for each in UNCOMPILABLE for scheme in each.schemes
    }
    assert eager | compiled - uncompiled <= ids
    assert not uncompiled & ids
    assert "flux-mini-b1-fp8dq-regional" not in ids


def test_only_the_cross_product_is_exhaustive() -> None:
    exhaustive = [row for row in MATRIX if row.exhaustive]
    assert {platform.id for row in exhaustive for platform in row.platforms} == {"cpu"}
    assert {row.pipeline.id for row in exhaustive} == {pipeline.id for pipeline in MINIATURES}
    assert all(row.workload is None for row in exhaustive)


@pytest.mark.parametrize("pipeline", PIPELINES, ids=_named)
def test_every_pipeline_is_pinned_to_a_commit(pipeline: PipelineSpec) -> None:
    assert re.fullmatch(r"[0-9a-f]{40}", pipeline.revision)


def test_pipelines_are_told_apart() -> None:
    assert len({pipeline.id for pipeline in PIPELINES}) == len(PIPELINES) == 15
    assert len({(pipeline.repo, pipeline.revision) for pipeline in PIPELINES}) == len(PIPELINES)


@pytest.mark.parametrize("pipeline", PIPELINES, ids=_named)
def test_the_family_of_a_pipeline_is_a_marker(pipeline: PipelineSpec, pytestconfig: pytest.Config) -> None:
    markers = {line.partition(":")[0] for line in pytestconfig.getini("markers")}
    assert pipeline.family in markers


@pytest.mark.parametrize(
    ("full", "mini"), [pytest.param(*pair, id=pair[1].id) for pair in zip(FULL_SIZE, MINIATURES, strict=True)]
)
def test_a_miniature_differs_from_its_pipeline_in_size_only(full: PipelineSpec, mini: PipelineSpec) -> None:
    def kind(pipeline: PipelineSpec) -> dict[str, object]:
        same = ("family", "cls", "scheduler", "batch_argument", "output", "blocks", "arguments", "single_row")
        return {
            **{name: getattr(pipeline, name) for name in same},
            "modules": {name: (row.cls, row.config_cls) for name, row in pipeline.modules.items()},
            "tokenizers": set(pipeline.tokenizers),
            "call": set(pipeline.workload.arguments),
        }

    assert kind(mini) == kind(full)
    assert mini.repo == f"perf-tests/{mini.id}"
    assert mini.licence is None


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
def test_the_default_workload_is_the_published_one_and_few_of_many_steps_are_measured(
    pipeline: PipelineSpec,
) -> None:
    work = pipeline.workload
    asked = (work.height, work.width, work.num_frames, work.steps, work.generated_steps)
    assert (*asked, work.arguments["guidance_scale"]) == PUBLISHED_WORKLOADS[pipeline.id]


def test_sizes_of_a_module_change_without_changing_the_row() -> None:
    row = FULL_SIZE[0].modules["transformer"]
    small = row.with_config(num_layers=1)
    assert (small.cls, small.config["num_layers"], small.config["patch_size"]) == (row.cls, 1, 1)
    assert row.config["num_layers"] == 19


@pytest.mark.parametrize("name", ["id", "samples"])
def test_platforms_are_told_apart_and_measure_something(name: str) -> None:
    values = [getattr(platform, name) for platform in PLATFORMS]
    assert all(values)
    assert name != "id" or len(set(values)) == len(values)


def test_where_a_noisy_metric_gates_its_noise_is_known() -> None:
    gated = {device for metric in METRICS if metric.noisy for device in metric.gates}
    known = {platform.device for platform in PLATFORMS if platform.process_noise is not None}
    assert gated == known == {Device.CUDA}


@pytest.mark.parametrize("metric", [m for m in METRICS if m.noisy], ids=lambda metric: metric.name)
def test_the_tolerance_of_a_noisy_metric_is_a_ratio(metric: Metric) -> None:
    for gate in metric.gates.values():
        assert (gate.tolerance.absolute, (gate.surprise or gate.tolerance).absolute) == (0.0, 0.0)


def test_only_positive_numbers_that_better_or_worsen_are_held_against_a_first_reference() -> None:
    held = {metric.name for metric in METRICS if metric.drift_limit_pct is not None}
    assert held == {
        "denoise_step_ms",
        "decode_ms",
        "speedup_vs_bf16",
        "model_memory_mib",
        "peak_allocated_mib",
        "peak_reserved_mib",
    }


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
        pytest.param(_with_scheme(floor=FidelityFloor(psnr_db=1.0, ssim=0.1, source="a test")), id="floor"),
        pytest.param(_with_scheme(min_capability=(9, 0)), id="capability"),
        pytest.param(
            _with_scheme(output_sqnr_db=Range(low=1.0, high=2.0, source="a test")), id="expected-range"
        ),
        pytest.param(_with_weight(bits=4, scale_bytes=2, tile=(8, 1024)), id="bytes"),
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
        pytest.param(_with_scheme(in_features_multiple=128), id="in-features"),
        pytest.param(_with_scheme(out_features_multiple=16), id="out-features"),
        pytest.param(_with_weight(group_size=32), id="group-size"),
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


@for_each(CASES)
def test_a_case_survives_the_wire_with_its_digest(case: Case) -> None:
    received = msgspec.json.decode(msgspec.json.encode(case), type=Case)
    assert received == case
    assert received.digest == case.digest


@for_each(CASES)
def test_the_reference_of_a_case_is_its_own_reference(case: Case) -> None:
    assert case.reference.is_reference
    assert case.reference.build.recipe.compile is case.build.recipe.compile


def test_only_an_unfused_bf16_case_is_its_own_reference() -> None:
    assert MINI_BF16.is_reference
    assert not MINI_INT8WO.is_reference
    assert _with_recipe(scheme=FP16).reference == MINI_BF16


def test_an_id_names_what_differs_from_the_defaults_only() -> None:
    workload = dataclasses.replace(MINI_INT8WO.workload, height=256, steps=8)
    case = dataclasses.replace(_with_recipe(scheme=INT8WO, fuse_qkv=True), workload=workload)
    assert case.id == "flux-mini-b1-int8wo-eager-fused-256x128-s8"


def test_the_cpu_platform_needs_no_gpu() -> None:
    assert [platform.id for platform in PLATFORMS if platform.gpu is None] == [CPU.id]


@pytest.mark.parametrize(
    "module",
    ["perf_tests.tables.matrix", "perf_tests.tables.metrics", "perf_tests.harness.rebaseline.proposal"],
)
def test_tables_and_judging_import_no_torch(module: str) -> None:
    code = f"import sys, {module}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# Pairs of prompt and seed


@pytest.mark.parametrize("platform", PLATFORMS, ids=lambda platform: platform.id)
def test_a_process_repeats_the_first_pair(platform: Platform) -> None:
    assert platform.samples > PROMPTS


def test_each_pair_has_a_prompt_and_a_seed_of_its_own_and_the_first_is_the_workload() -> None:
    workload = FLUX_MINI.workload
    asked = [workload.of_prompt(pair) for pair in range(PROMPTS)]
    assert PROMPTS == 4
    assert asked[0] == workload
    assert len({each.prompt for each in asked}) == len({each.seed for each in asked}) == 4
    assert {(each.height, each.width, each.steps) for each in asked} == {
        (workload.height, workload.width, workload.steps)
    }
