from __future__ import annotations

import dataclasses

import msgspec
import pytest

from perf_tests.tables.cases import Build, Case, Weights
from perf_tests.tables.matrix import MATRIX
from perf_tests.tables.pipelines.auraflow import AURAFLOW
from perf_tests.tables.recipes import (
    LEAF_OFFLOAD,
    MODEL_OFFLOAD,
    OFFLOADS,
    SEQUENTIAL_OFFLOAD,
    CompileMode,
    Decoding,
    Loader,
    Offload,
    QuantizedOn,
    Recipe,
)
from perf_tests.tables.schemes.rows import BF16, FP8DQ, FP8DQROW, FP16, INT8WO
from perf_tests.tables.schemes.spec import FidelityFloor, Range
from perf_tests.unit.builders import MINI_BF16, MINI_INT8WO, for_each

CASES = tuple(row.case(weights) for row in MATRIX for weights in Weights)


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
        pytest.param(_with_pipeline(miniature_of="another"), id="full-size"),
        pytest.param(_with_pipeline(anchor=None), id="anchor"),
        pytest.param(
            _with_pipeline(workload=dataclasses.replace(MINI_INT8WO.workload, steps=9)), id="default-workload"
        ),
    ],
)
def test_digest_leaves_out_how_a_case_is_judged_and_described(changed: Case) -> None:
    assert changed != MINI_INT8WO
    assert changed.digest == MINI_INT8WO.digest


def test_digest_contains_the_pattern_of_an_exclusion_but_not_its_reason() -> None:
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
        pytest.param(_with_recipe(loader=Loader.TORCH_SAVE), id="loader"),
        pytest.param(_with_recipe(quantized_on=QuantizedOn.HOST), id="quantized-on"),
        pytest.param(_with_recipe(offload=MODEL_OFFLOAD), id="offload"),
        pytest.param(_with_recipe(decoding=Decoding.TILED), id="decoding"),
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
def test_digest_contains_what_is_measured(changed: Case) -> None:
    assert changed.digest != MINI_INT8WO.digest


def test_digests_of_the_matrix_are_unique() -> None:
    assert len({case.digest for case in CASES}) == len(CASES)


@for_each(CASES)
def test_case_keeps_its_digest_on_the_wire(case: Case) -> None:
    received = msgspec.json.decode(msgspec.json.encode(case), type=Case)
    assert received == case
    assert received.digest == case.digest


@for_each(CASES)
def test_reference_is_its_own_reference_in_the_same_compile_mode(case: Case) -> None:
    assert case.reference.is_reference
    mode = case.build.recipe.compile
    assert case.reference.build.recipe.compile is (CompileMode.REGIONAL if mode is CompileMode.AOTI else mode)


def test_case_is_its_own_reference_only_in_unfused_bf16() -> None:
    assert MINI_BF16.is_reference
    assert not MINI_INT8WO.is_reference
    assert _with_recipe(scheme=FP16).reference == MINI_BF16


def test_case_id_names_only_what_differs_from_the_defaults() -> None:
    workload = dataclasses.replace(MINI_INT8WO.workload, height=256, steps=8)
    case = dataclasses.replace(_with_recipe(scheme=INT8WO, fuse_qkv=True), workload=workload)
    assert case.id == "flux-mini-b1-int8wo-eager-fused-256x128-s8"


def test_arguments_of_a_pipeline_change_the_digest_of_their_scheme_alone() -> None:
    without = dataclasses.replace(AURAFLOW, scheme_arguments={})
    for scheme, differs in ((FP8DQROW, True), (FP8DQ, False), (BF16, False)):
        recipe = Recipe(scheme=scheme)
        digests = {
            Case(build=Build(pipeline=each, recipe=recipe), workload=each.workload).digest
            for each in (AURAFLOW, without)
        }
        assert (len(digests) == 2) is differs


def test_a_build_names_what_its_worker_imports() -> None:
    case = next(row for row in MATRIX if row.recipe.compiles).case(Weights.SYNTHETIC)
    assert case.build.targets == (
        "diffusers:FluxPipeline",
        "diffusers:FluxTransformer2DModel",
        "diffusers:AutoencoderKL",
        "transformers:CLIPTextModel",
        "transformers:CLIPTextConfig",
        "transformers:T5EncoderModel",
        "transformers:T5Config",
        "diffusers:FlowMatchEulerDiscreteScheduler",
        "torch._inductor.compile_fx:compile_fx",
    )


def test_case_that_loads_has_the_case_that_builds_as_its_built_twin() -> None:
    loaded = _with_recipe(loader=Loader.SAFETENSORS)
    assert loaded.id == "flux-mini-b1-int8wo-eager-safetensors"
    assert loaded.built_twin == MINI_INT8WO
    assert MINI_INT8WO.built_twin is None


def test_case_that_loads_has_a_worker_of_its_own() -> None:
    # The picture that it must equal is of one workload.
    one = _with_recipe(loader=Loader.SAFETENSORS)
    four = dataclasses.replace(one, workload=dataclasses.replace(one.workload, batch_size=4))
    assert one.worker_key != four.worker_key


@pytest.mark.parametrize("where", [QuantizedOn.HOST, QuantizedOn.MODULE])
def test_case_that_is_quantized_elsewhere_has_the_usual_case_as_its_built_twin(where: QuantizedOn) -> None:
    elsewhere = _with_recipe(quantized_on=where)
    assert elsewhere.id == f"flux-mini-b1-int8wo-eager-{where}"
    assert elsewhere.built_twin == MINI_INT8WO


@pytest.mark.parametrize("offload", OFFLOADS, ids=lambda each: each.id)
def test_case_that_offloads_has_the_resident_case_as_its_built_twin(offload: Offload) -> None:
    offloaded = _with_recipe(offload=offload)
    assert offloaded.id == f"flux-mini-b1-int8wo-eager-{offload.id}"
    assert offloaded.built_twin == MINI_INT8WO


def test_case_that_offloads_and_tiles_is_compared_with_one_that_tiles() -> None:
    # Tiles make another picture: only with tiles on both sides must it be the same, bit by bit.
    both = _with_recipe(offload=MODEL_OFFLOAD, decoding=Decoding.TILED)
    assert both.id == "flux-mini-b1-int8wo-eager-modeloffload-tiled"
    assert both.built_twin == _with_recipe(decoding=Decoding.TILED)
    assert _with_recipe(decoding=Decoding.TILED).built_twin is None


def test_description_of_an_offload_is_no_part_of_a_case() -> None:
    renamed = dataclasses.replace(MODEL_OFFLOAD, hook="AnotherHook", waits_on="meta", per_call=True)
    assert _with_recipe(offload=renamed).digest == _with_recipe(offload=MODEL_OFFLOAD).digest


@pytest.mark.parametrize("offload", [SEQUENTIAL_OFFLOAD, LEAF_OFFLOAD], ids=lambda each: each.id)
def test_recipe_that_would_compile_between_hooks_is_refused(offload: Offload) -> None:
    with pytest.raises(ValueError, match=f"dynamo ends a graph at each hook of {offload.id}"):
        _with_recipe(offload=offload, compile=CompileMode.REGIONAL)
    assert _with_recipe(offload=MODEL_OFFLOAD, compile=CompileMode.REGIONAL).build.recipe.compiles
