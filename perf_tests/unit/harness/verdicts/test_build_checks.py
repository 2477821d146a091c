from __future__ import annotations

import dataclasses
from typing import Any

import msgspec
import pytest

from perf_tests.harness.records.builds import BuildReport
from perf_tests.harness.verdicts.build_checks import contradictions
from perf_tests.protocol.packages import Packages
from perf_tests.protocol.reports import (
    BuiltTwin,
    CompileCache,
    ComponentState,
    PipelineState,
    Quantization,
    SettingReport,
    TunedChoices,
    WeightCount,
)
from perf_tests.tables.cases import Case
from perf_tests.tables.pipelines.auraflow import AURAFLOW_MINI
from perf_tests.tables.recipes import INT8_GEMM, CompileMode, Loader, QuantizedOn
from perf_tests.tables.schemes.rows import AUTOQUANT, BF16, FP16, INT4DQ, INT8DQ, INT8WO
from perf_tests.unit.builders import (
    COLD_CACHE,
    COMPILED_STEP,
    MINI_BF16,
    MINI_INT8WO,
    ORDINARY_GROUP,
    make_build,
    make_case,
    make_group,
    make_memory,
    make_plan,
    make_quantization,
    make_state,
)

REGIONAL = make_case(scheme=INT8WO, compile=CompileMode.REGIONAL)
ORDINARY_TRANSFORMER = make_group(subclass="Parameter", dtype="bfloat16", scale=None)


def test_evidence_that_agrees_has_no_contradictions() -> None:
    assert contradictions(MINI_INT8WO, make_build()) == ()


def test_ordinary_modules_agree_with_an_unquantized_recipe() -> None:
    quantization = make_quantization(ORDINARY_TRANSFORMER, expected_modules=0)
    assert contradictions(MINI_BF16, make_build(quantization=quantization)) == ()


def test_compiled_build_with_graphs_and_cache_counters_agrees() -> None:
    assert (
        contradictions(REGIONAL, make_build({"compiled_graphs": 2.0}, cache=COLD_CACHE, step=COMPILED_STEP))
        == ()
    )


def test_dropped_module_is_named() -> None:
    quantization = make_quantization(make_group(count=3), unquantized=("transformer_blocks.1.attn.to_q",))
    assert contradictions(MINI_INT8WO, make_build(quantization=quantization)) == (
        "3 of 4 Linear modules are quantized as int8wo says; not as it says: transformer_blocks.1.attn.to_q",
    )


@pytest.mark.parametrize(
    "look",
    [
        pytest.param({"subclass": "Float8Tensor"}, id="subclass"),
        pytest.param({"dtype": "int4"}, id="dtype"),
        pytest.param({"scale": "per-tensor"}, id="scale"),
        pytest.param({"activation": "int8 per-row"}, id="activation"),
    ],
)
def test_module_quantized_otherwise_is_not_counted_and_is_described(look: dict[str, str | bool]) -> None:
    build = make_build(quantization=make_quantization(make_group(**look)))
    count, looks = contradictions(MINI_INT8WO, build)
    assert count.startswith("0 of 4 Linear modules")
    assert looks.endswith(
        "but the scheme int8wo says Int8Tensor int8 with per-row scales and unquantized activations"
    )


def test_modules_of_several_groups_are_counted_together() -> None:
    quantization = make_quantization(make_group(count=1), make_group(count=3))
    assert contradictions(MINI_INT8WO, make_build(quantization=quantization)) == ()


def test_quantized_module_of_an_unquantized_recipe_is_a_contradiction() -> None:
    quantization = make_quantization(make_group(), expected_modules=0)
    (found,) = contradictions(MINI_BF16, make_build(quantization=quantization))
    assert found.startswith("4 Linear modules of transformer are Int8Tensor int8")
    assert found.endswith("but the scheme bf16 quantizes nothing")


def test_quantized_module_of_another_component_is_a_contradiction() -> None:
    quantization = make_quantization(make_group(), make_group(component="text_encoder_2", count=2))
    (found,) = contradictions(MINI_INT8WO, make_build(quantization=quantization))
    assert found.startswith("2 Linear modules of text_encoder_2")
    assert found.endswith("but the recipe quantizes only transformer")


def test_quantized_module_of_another_component_does_not_stand_in_for_a_dropped_one() -> None:
    quantization = make_quantization(make_group(count=3), make_group(component="vae", count=1))
    found = contradictions(MINI_INT8WO, make_build(quantization=quantization))
    assert found[0].startswith("3 of 4 Linear modules")


def test_scheme_that_found_nothing_to_quantize_is_a_contradiction() -> None:
    quantization = make_quantization(ORDINARY_GROUP, expected_modules=0)
    assert contradictions(MINI_INT8WO, make_build(quantization=quantization)) == (
        "the scheme int8wo found no Linear module to quantize",
    )


def test_exclusion_that_excluded_nothing_is_a_contradiction() -> None:
    scheme = dataclasses.replace(INT8WO, exclusions={"*.proj_out": "too narrow"})
    assert contradictions(make_case(scheme=scheme), make_build()) == (
        "the exclusion '*.proj_out' of the scheme int8wo excluded no module of flux-mini",
    )


def test_exclusion_that_took_modules_out_agrees() -> None:
    scheme = dataclasses.replace(INT8WO, exclusions={"*.proj_out": "too narrow"})
    build = make_build(quantization=make_quantization(excluded={"*.proj_out": 1}))
    assert contradictions(make_case(scheme=scheme), build) == ()


INT8DQ_ALL = dataclasses.replace(INT8DQ, min_rows=1)
INT4DQ_LOOK = {
    "subclass": "IntxUnpackedToInt8Tensor",
    "dtype": "int4",
    "scale": "per-group-32",
    "dynamic_activation": True,
    "activation": "int8 per-row",
}
SHAPE_RULE = "in_features not a multiple of 32"


@pytest.mark.parametrize("excluded", [{}, {SHAPE_RULE: 0}, {SHAPE_RULE: 3}], ids=["unsaid", "none", "three"])
def test_rule_about_shapes_may_exclude_modules_or_none(excluded: dict[str, int]) -> None:
    build = make_build(quantization=make_quantization(make_group(**INT4DQ_LOOK), excluded=excluded))
    assert contradictions(make_case(scheme=INT4DQ), build) == ()


def test_rule_about_shapes_of_another_scheme_is_a_contradiction() -> None:
    build = make_build(quantization=make_quantization(excluded={SHAPE_RULE: 3}))
    assert contradictions(MINI_INT8WO, build) == (
        "3 modules were excluded by 'in_features not a multiple of 32', which the scheme does not declare",
    )


def test_groups_of_another_size_are_not_what_the_scheme_says() -> None:
    group = make_group(**{**INT4DQ_LOOK, "scale": "per-group-128"})
    found = contradictions(make_case(scheme=INT4DQ), make_build(quantization=make_quantization(group)))
    assert found[1].endswith(
        "says IntxUnpackedToInt8Tensor int4 with per-group-32 scales and int8 per-row activations"
    )


def test_undeclared_exclusion_is_a_contradiction() -> None:
    build = make_build(quantization=make_quantization(excluded={"*.norm": 2}))
    assert contradictions(MINI_INT8WO, build) == (
        "2 modules were excluded by '*.norm', which the scheme does not declare",
    )


def test_compile_that_fell_back_is_a_contradiction() -> None:
    (found,) = contradictions(
        REGIONAL, make_build({"compiled_graphs": 0.0}, cache=COLD_CACHE, step=COMPILED_STEP)
    )
    assert "int8wo-regional compiles, but no graph was compiled" in found


def test_compiled_recipe_without_cache_counters_is_a_contradiction() -> None:
    (found,) = contradictions(REGIONAL, make_build({"compiled_graphs": 2.0}, step=COMPILED_STEP))
    assert "cache was never asked" in found


def test_graphs_and_cache_counters_of_an_eager_recipe_are_contradictions() -> None:
    graphs, cache = contradictions(MINI_INT8WO, make_build({"compiled_graphs": 2.0}, cache=COLD_CACHE))
    assert "is eager, but 2 graphs were compiled" in graphs
    assert "is eager, but inductor's cache counters were reported" in cache


def test_eager_recipe_with_a_compiled_vae_compiles() -> None:
    case = make_case(scheme=INT8WO, compile_vae=True)
    assert contradictions(case, make_build({"compiled_graphs": 1.0}, cache=COLD_CACHE)) == ()


def test_build_without_module_counts_is_a_contradiction() -> None:
    case = make_case(scheme=BF16)
    assert contradictions(case, make_build(quantization=None)) == (
        "the worker did not report what the Linear modules are",
    )


SEARCHED = make_case(scheme=AUTOQUANT)
AS_IT_IS = make_group(subclass="Parameter", dtype="bfloat16", scale=None, count=2, chosen="bf16")
INT8WO_CHOSEN = make_group(count=4, chosen="int8wo")
INT8DQ_CHOSEN = make_group(count=3, chosen="int8dq", dynamic_activation=True, activation="int8 per-row")
PLAN = make_plan(bf16=2, int8wo=4, int8dq=3)


def test_modules_that_are_what_the_plan_chose_for_each_agree() -> None:
    quantization = make_quantization(AS_IT_IS, INT8WO_CHOSEN, INT8DQ_CHOSEN, expected_modules=7, plan=PLAN)
    assert contradictions(SEARCHED, make_build(quantization=quantization)) == ()


def test_plan_that_leaves_all_modules_as_they_are_agrees() -> None:
    quantization = make_quantization(AS_IT_IS, expected_modules=0, plan=make_plan(bf16=2))
    assert contradictions(SEARCHED, make_build(quantization=quantization)) == ()


def test_dropped_module_of_a_plan_is_named() -> None:
    dropped = make_group(subclass="Parameter", dtype="bfloat16", scale=None, count=1, chosen="int8wo")
    quantization = make_quantization(
        make_group(count=3, chosen="int8wo"),
        dropped,
        expected_modules=4,
        unquantized=("transformer.blocks.0.to_q",),
        plan=make_plan(int8wo=4),
    )
    assert contradictions(SEARCHED, make_build(quantization=quantization)) == (
        "3 of 4 Linear modules are quantized as autoquant says; not as it says: transformer.blocks.0.to_q",
    )


def test_modules_quantized_as_another_candidate_than_theirs_are_described() -> None:
    swapped = make_group(count=4, chosen="int8dq")  # looks like int8wo
    quantization = make_quantization(swapped, expected_modules=4, plan=make_plan(int8dq=4))
    count, looks = contradictions(SEARCHED, make_build(quantization=quantization))
    assert count.startswith("0 of 4 Linear modules are quantized as autoquant says")
    assert looks.endswith(
        "but the scheme int8dq says Int8Tensor int8 with per-row scales and int8 per-row activations"
    )


@pytest.mark.parametrize("chosen", ["bf16", None], ids=["left-by-the-plan", "not-in-the-plan"])
def test_module_that_the_plan_leaves_alone_must_not_be_quantized(chosen: str | None) -> None:
    plan = make_plan(**{"bf16": 4} if chosen else {})
    quantization = make_quantization(make_group(chosen=chosen), expected_modules=0, plan=plan)
    (found,) = contradictions(SEARCHED, make_build(quantization=quantization))
    assert found.endswith("but the plan of autoquant leaves them as they are")


def test_modules_that_the_plan_counts_and_were_not_found_are_a_contradiction() -> None:
    quantization = make_quantization(AS_IT_IS, expected_modules=0, plan=make_plan(bf16=5))
    assert contradictions(SEARCHED, make_build(quantization=quantization)) == (
        "the plan plan.json chose bf16 for 5 modules, and 2 were found",
    )


def test_choice_that_is_no_candidate_is_a_contradiction() -> None:
    group = make_group(subclass="Parameter", dtype="bfloat16", scale=None, chosen="int3wo")
    quantization = make_quantization(group, expected_modules=0, plan=make_plan(int3wo=4))
    assert contradictions(SEARCHED, make_build(quantization=quantization)) == (
        "the plan plan.json chose 'int3wo', which is not a candidate of autoquant",
    )


def test_search_without_a_plan_and_a_plan_without_a_search_are_contradictions() -> None:
    unplanned = make_build(quantization=make_quantization(AS_IT_IS, expected_modules=0))
    assert contradictions(SEARCHED, unplanned) == (
        "the worker reported no plan, and the recipe asks for a scheme that is chosen for each module",
    )
    planned = make_build(quantization=make_quantization(plan=make_plan(int8wo=4)))
    assert contradictions(MINI_INT8WO, planned) == (
        "the worker reported the plan plan.json, and the recipe asks for one scheme for all modules",
    )


PLAIN = make_group(subclass="Parameter", dtype="bfloat16", scale=None)


def test_weights_dequantized_after_the_first_image_are_a_contradiction() -> None:
    build = make_build(final_state=make_state(PLAIN, weight_bytes=8192, checksum=5))
    assert contradictions(MINI_INT8WO, build) == (
        "before the first image, 4 Linear modules of transformer were Int8Tensor int8 with per-row scales "
        "and unquantized activations (blocks.0.to_q, blocks.0.to_k)",
        "after the last image, 4 Linear modules of transformer are Parameter bfloat16 with no scales and "
        "unquantized activations (blocks.0.to_q, blocks.0.to_k)",
        "the size of the weights (4096 bytes before, 8192 after) of transformer changed during generation",
    )


def test_one_dequantized_layer_of_many_is_counted() -> None:
    after = make_state(make_group(count=3), msgspec.structs.replace(PLAIN, count=1))
    was, now = contradictions(MINI_INT8WO, make_build(final_state=after))
    assert was.startswith("before the first image, 1 Linear modules of transformer were Int8Tensor")
    assert now.startswith("after the last image, 1 Linear modules of transformer are Parameter")


def test_weights_of_other_values_are_a_contradiction() -> None:
    assert contradictions(MINI_INT8WO, make_build(final_state=make_state(checksum=5))) == (
        "values of the weights of transformer changed during generation",
    )


def with_vae(dtype: str, weight_bytes: int, checksum: int) -> PipelineState:
    """A transformer in float16, and a VAE with two linear modules."""
    vae = ComponentState(weight_bytes=weight_bytes, checksum=checksum, convolutions=0, channels_last=0)
    state = make_state(msgspec.structs.replace(PLAIN, dtype="float16"))
    group = msgspec.structs.replace(PLAIN, component="vae", dtype=dtype, count=2)
    return PipelineState(components={**state.components, "vae": vae}, groups=(*state.groups, group))


@pytest.mark.parametrize(
    ("case", "bytes_after", "said"),
    [
        pytest.param(make_case(AURAFLOW_MINI, scheme=FP16), 2000, (), id="its-pipeline-does-so"),
        pytest.param(
            make_case(AURAFLOW_MINI, scheme=FP16),
            2004,
            ("the size of the weights (2000 bytes before, 2004 after) of vae changed during generation",),
            id="and-no-more",
        ),
        pytest.param(
            make_case(scheme=FP16),
            2000,
            (
                "before the first image, 2 Linear modules of vae were Parameter float16 with no scales and "
                "unquantized activations (blocks.0.to_q, blocks.0.to_k)",
                "after the last image, 2 Linear modules of vae are Parameter float32 with no scales and "
                "unquantized activations (blocks.0.to_q, blocks.0.to_k)",
                "the size of the weights (1000 bytes before, 2000 after) of vae changed during generation",
            ),
            id="another-pipeline",
        ),
    ],
)
def test_a_vae_in_float16_is_left_in_float32_where_its_pipeline_decodes_so(
    case: Case, bytes_after: int, said: tuple[str, ...]
) -> None:
    build = make_build(
        quantization=make_quantization(ORDINARY_TRANSFORMER, expected_modules=0),
        state=with_vae("float16", 1000, 5),
        final_state=with_vae("float32", bytes_after, 77),
    )
    assert contradictions(case, build) == said


def test_a_vae_that_stays_in_float16_is_not_what_its_pipeline_decodes_with() -> None:
    state = with_vae("float16", 1000, 5)
    quantization = make_quantization(ORDINARY_TRANSFORMER, expected_modules=0)
    build = make_build(quantization=quantization, state=state, final_state=state)
    assert len(contradictions(make_case(AURAFLOW_MINI, scheme=FP16), build)) == 3


def test_memory_format_that_is_lost_while_generating_is_a_contradiction() -> None:
    case = make_case(scheme=INT8WO, channels_last=True)
    build = make_build(state=make_state(channels_last=2), final_state=make_state(channels_last=0))
    assert contradictions(case, build) == (
        "the memory format (2 in channels_last before, 0 after) of transformer changed during generation",
    )


@pytest.mark.parametrize(("asked", "found", "wanted"), [(True, 1, 2), (False, 1, 0)])
def test_memory_format_is_that_of_the_recipe(asked: bool, found: int, wanted: int) -> None:
    state = make_state(channels_last=found)
    case = make_case(scheme=INT8WO, channels_last=asked)
    (said,) = contradictions(case, make_build(state=state, final_state=state))
    assert said.startswith("1 of the 2 convolutions of transformer are in channels_last")
    assert said.endswith(f"says {wanted}")


@pytest.mark.parametrize("unread", ["state", "final_state"])
def test_state_that_was_not_read_is_a_contradiction(unread: str) -> None:
    assert contradictions(MINI_INT8WO, make_build(**{unread: None})) == (
        "the worker did not read its weights both before the first image and after the last",
    )


def test_component_that_disappears_is_a_contradiction() -> None:
    gone = msgspec.structs.replace(make_state(), components={})
    assert contradictions(MINI_INT8WO, make_build(final_state=gone)) == (
        "the component transformer disappeared during generation",
    )


def test_activations_with_one_scale_for_all_tokens_are_a_contradiction() -> None:
    group = make_group(dynamic_activation=True, activation="int8 per-tensor")
    quantization = make_quantization(group)
    count, look = contradictions(make_case(scheme=INT8DQ_ALL), make_build(quantization=quantization))
    assert count.startswith("0 of 4 Linear modules are quantized as int8dq says")
    assert "Int8Tensor int8 with per-row scales and int8 per-tensor activations" in look
    assert look.endswith("with per-row scales and int8 per-row activations")


def test_kind_of_block_that_is_not_compiled_is_a_contradiction_without_a_baseline() -> None:
    step = msgspec.structs.replace(COMPILED_STEP, blocks={**COMPILED_STEP.blocks, "FluxTransformerBlock": 2})
    build = make_build({"compiled_graphs": 1.0}, cache=COLD_CACHE, step=step)
    assert contradictions(REGIONAL, build) == (
        "the recipe int8wo-regional compiles every FluxTransformerBlock, and 2 calls in a step were eager",
    )


def test_blocks_of_an_eager_recipe_that_are_compiled_are_contradictions() -> None:
    first, second = contradictions(MINI_INT8WO, make_build(step=COMPILED_STEP))
    assert first == "the recipe int8wo-eager is eager, and no FluxTransformerBlock ran eager in a step"
    assert "FluxSingleTransformerBlock" in second


def test_step_that_was_not_looked_at_is_a_contradiction() -> None:
    assert contradictions(MINI_INT8WO, make_build(step=None)) == (
        "the worker did not look at what runs in a step",
    )


TUNED = make_case(scheme=INT8WO, compile=CompileMode.REGIONAL, settings=(INT8_GEMM,))
AS_SET = {"max_autotune_gemm": "True"}


def of_settings(settings: dict[str, SettingReport] | None) -> tuple[str, ...]:
    values = {"compiled_graphs": 2.0}
    build = make_build(values, cache=COLD_CACHE, step=COMPILED_STEP, settings=settings)
    return contradictions(TUNED, build)


@pytest.mark.parametrize("kernels", [57, None], ids=["ran", "not-recorded"])
def test_setting_that_took_effect_agrees(kernels: int | None) -> None:
    assert of_settings({"tuned": SettingReport(inductor=AS_SET, kernels=kernels)}) == ()


def test_setting_whose_kernels_did_not_run_is_a_contradiction() -> None:
    assert of_settings({"tuned": SettingReport(inductor=AS_SET, kernels=0)}) == (
        "the setting tuned of the recipe int8wo-regional-tuned had no effect: no kernel of a step is called "
        "triton_tem_fused_*int_mm*",
    )


@pytest.mark.parametrize(
    ("found", "says"), [("False", "False"), (None, "None")], ids=["set-back", "not-reported"]
)
def test_setting_of_another_value_is_a_contradiction(found: str | None, says: str) -> None:
    values = {} if found is None else {"max_autotune_gemm": found}
    (contradiction,) = of_settings({"tuned": SettingReport(inductor=values, kernels=57)})
    assert contradiction == (
        f"the recipe int8wo-regional-tuned sets max_autotune_gemm of inductor to True, and it ended as {says}"
    )


@pytest.mark.parametrize("settings", [None, {}], ids=["older-worker", "none"])
def test_setting_that_was_not_reported_is_a_contradiction(settings: dict[str, SettingReport] | None) -> None:
    assert of_settings(settings) == (
        "the worker did not say what became of the setting tuned of the recipe int8wo-regional-tuned",
    )


# What must equal a built twin


LOADED = make_case(scheme=INT8WO, loader=Loader.TORCH_SAVE)
TENSORS = {"transformer.a.weight": "1", "transformer.b.weight": "2"}
TWIN = BuiltTwin(
    seconds={}, memory={}, tensors=TENSORS, output_sha256="", files={"transformer/transformer.pt": 1}
)


def started_on(device: str | None) -> Quantization:
    weights = WeightCount(elements=1, scales=1, other_bytes=0, device=device)
    return msgspec.structs.replace(make_quantization(), weights=weights)


def found_in_loaded(**changes: Any) -> tuple[str, ...]:
    right: dict[str, Any] = {"tensors": TENSORS, "converted": 0, "built_twin": TWIN}
    return contradictions(LOADED, make_build(**right | changes))


def test_loaded_tensors_that_equal_those_that_were_saved_agree() -> None:
    assert found_in_loaded() == ()


def test_tensors_that_differ_or_are_missing_are_counted_and_named() -> None:
    tensors = {"transformer.a.weight": "1", "transformer.c.weight": "3"}
    assert found_in_loaded(tensors=tensors) == (
        "2 of 3 tensors are not those of the built twin: transformer.b.weight, transformer.c.weight",
    )


def test_loader_that_quantizes_is_a_contradiction() -> None:
    assert found_in_loaded(converted=62) == (
        "62 modules were quantized in a process that was to load them: the recipe int8wo-eager-torchsave "
        "quantizes nothing",
    )


def test_loader_that_does_not_count_what_it_quantizes_proves_nothing() -> None:
    assert found_in_loaded(converted=None) == ("the worker did not count the modules that it quantized",)


@pytest.mark.parametrize("twin", [None, msgspec.structs.replace(TWIN, tensors={})], ids=["none", "unhashed"])
def test_case_that_was_compared_with_nothing_is_a_contradiction(twin: BuiltTwin | None) -> None:
    assert found_in_loaded(built_twin=twin) == (
        "the recipe int8wo-eager-torchsave is to equal another build, whose tensors nobody hashed",
    )


def test_case_that_is_quantized_elsewhere_must_equal_its_twin_and_needs_no_file() -> None:
    elsewhere = make_case(scheme=INT8WO, quantized_on=QuantizedOn.HOST)
    twin = msgspec.structs.replace(TWIN, files={})
    usual = make_build(tensors=TENSORS, converted=4, built_twin=twin)
    equal = msgspec.structs.replace(usual, quantization=started_on("cpu"))
    assert contradictions(elsewhere, equal) == ()
    other = msgspec.structs.replace(equal, tensors={**TENSORS, "transformer.b.weight": "3"})
    assert contradictions(elsewhere, other) == (
        "1 of 2 tensors are not those of the built twin: transformer.b.weight",
    )


@pytest.mark.parametrize(
    ("device", "found"),
    [("cuda", "cuda"), ("cpu, cuda", "cpu, cuda"), (None, "a device that was not reported")],
)
def test_weights_that_are_to_be_on_the_host_at_first_and_were_not_are_a_contradiction(
    device: str | None, found: str
) -> None:
    elsewhere = make_case(scheme=INT8WO, quantized_on=QuantizedOn.HOST)
    twin = msgspec.structs.replace(TWIN, files={})
    usual = make_build(tensors=TENSORS, converted=4, built_twin=twin, quantization=started_on(device))
    assert contradictions(elsewhere, usual) == (
        f"the recipe int8wo-eager-onhost quantizes weights of the host, and they were on {found}",
    )


def test_counter_that_misses_what_the_built_twin_quantized_proves_nothing() -> None:
    assert found_in_loaded(built_twin=msgspec.structs.replace(TWIN, converted=0)) == (
        "no module was counted in the process that quantized them, so that the count of a process that loads "
        "them proves nothing",
    )


def test_case_that_loads_what_nobody_saved_is_a_contradiction() -> None:
    assert found_in_loaded(built_twin=msgspec.structs.replace(TWIN, files={})) == (
        "the recipe int8wo-eager-torchsave loads its transformer, and nothing was saved",
    )


# What loads compiled blocks


PACKAGED = make_case(scheme=INT8WO, compile=CompileMode.AOTI)
PACKAGING_TWIN = msgspec.structs.replace(
    TWIN, files={}, packages=Packages(export_s=1.0, compile_s=2.0, files={"Block.pt2": 3})
)
NOT_COMPILED = {"compiled_graphs": 0.0, "generated_kernels": 0.0}


def packaged(**changes: Any) -> BuildReport:
    right: dict[str, Any] = {
        "tensors": TENSORS,
        "converted": 4,
        "built_twin": PACKAGING_TWIN,
        "values": NOT_COMPILED,
        "step": COMPILED_STEP,
    }
    return make_build(**right | changes)


def test_blocks_that_another_process_compiled_agree() -> None:
    assert contradictions(PACKAGED, packaged()) == ()


def test_process_that_does_not_count_what_it_generates_proves_nothing() -> None:
    uncounted = msgspec.structs.replace(packaged(), values={"compiled_graphs": 0.0})
    assert contradictions(PACKAGED, uncounted) == (
        "the recipe int8wo-aoti loads compiled blocks, and nobody counted generated kernels",
    )


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"values": {**NOT_COMPILED, "compiled_graphs": 2.0}}, ", but 2 graphs were compiled"),
        ({"values": {**NOT_COMPILED, "generated_kernels": 7.0}}, ", but 7 kernels were generated"),
        ({"built_twin": TWIN}, ", and nothing was packaged"),
    ],
)
def test_process_that_compiles_what_it_was_to_load_is_a_contradiction(
    changes: dict[str, Any], why: str
) -> None:
    assert contradictions(PACKAGED, packaged(**changes)) == (
        f"the recipe int8wo-aoti loads compiled blocks{why}",
    )


def test_packaged_block_that_ran_in_python_is_a_contradiction() -> None:
    step = msgspec.structs.replace(COMPILED_STEP, blocks={"FluxTransformerBlock": 2})
    assert contradictions(PACKAGED, packaged(step=step)) == (
        "the recipe int8wo-aoti loads every FluxTransformerBlock, and 2 calls in a step were eager",
    )


# What chooses kernels by timing


AUTOTUNED = make_case(scheme=INT8WO, compile=CompileMode.MAX_AUTOTUNE)
TIMED = TunedChoices(hits=0, misses=9)


def tuned(cache: CompileCache) -> BuildReport:
    on_gpu = {"load": msgspec.structs.replace(make_memory(), allocated_mib=24_000.0)}
    return make_build({"compiled_graphs": 1.0}, cache=cache, step=COMPILED_STEP, memory=on_gpu)


@pytest.mark.parametrize(
    "cache",
    [
        pytest.param(msgspec.structs.replace(COLD_CACHE, tuned=TIMED), id="timed"),
        pytest.param(CompileCache(hits=6, misses=0, bypasses=0, artifacts="loaded"), id="from-artifacts"),
    ],
)
def test_compilation_that_timed_kernels_or_found_them_agrees(cache: CompileCache) -> None:
    assert contradictions(AUTOTUNED, tuned(cache)) == ()


def test_cold_compilation_that_timed_nothing_was_not_in_that_mode() -> None:
    assert contradictions(AUTOTUNED, tuned(COLD_CACHE)) == (
        "the recipe int8wo-maxautotune chooses kernels by timing them, and compiled without timing any",
    )


def test_cpu_may_have_nothing_to_choose_from() -> None:
    on_cpu = {"load": msgspec.structs.replace(make_memory(), allocated_mib=None)}
    build = msgspec.structs.replace(tuned(COLD_CACHE), memory=on_cpu)
    assert contradictions(AUTOTUNED, build) == ()
