"""Weights wait where the recipe says, hooks are counted and missed, and copies are added up from a trace."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from perf_tests.harness.verdicts import build_checks
from perf_tests.protocol.errors import WorkerError
from perf_tests.protocol.messages import (
    Compile,
    Fault,
    Generate,
    Injection,
    Inspect,
    Inspected,
    Load,
    Quantize,
)
from perf_tests.protocol.offloading import MemorySaving
from perf_tests.protocol.reports import BuiltTwin
from perf_tests.tables.cases import Case
from perf_tests.tables.fidelity_floors import TILED_FLOOR
from perf_tests.tables.pipelines.cogvideox import COGVIDEOX_5B, COGVIDEOX_MINI
from perf_tests.tables.platforms import Device
from perf_tests.tables.recipes import (
    LEAF_OFFLOAD,
    MODEL_OFFLOAD,
    OFFLOADS,
    SEQUENTIAL_OFFLOAD,
    Decoding,
    Offload,
    Recipe,
)
from perf_tests.tables.schemes.rows import BF16, INT8WO
from perf_tests.unit.builders import make_build
from perf_tests.worker.inspection import offloading
from perf_tests.worker.measure import calls
from perf_tests.worker.measure.generate import call_arguments
from perf_tests.worker.model import build, offload
from perf_tests.worker.quantization import apply, state
from perf_tests.worker.session import WorkerSession

CPU = torch.device("cpu")
WHOLE = {"decode": 1, "_decode": 1, "tiled_decode": 0}


# Copies, from a trace


def event(category: str, name: str, start: float, length: float, size: int = 0) -> dict[str, Any]:
    return {"cat": category, "name": name, "ts": start, "dur": length, "args": {"bytes": size}}


def test_copies_are_added_up_and_those_that_kernels_hide_are_a_share_of_their_time() -> None:
    found = offloading.transfers(
        [
            event("gpu_memcpy", "Memcpy HtoD (Pinned -> Device)", 0, 10, 600),
            event("gpu_memcpy", "Memcpy HtoD (Pageable -> Device)", 20, 10, 400),
            event("gpu_memcpy", "Memcpy DtoH (Device -> Pageable)", 50, 5, 70),
            event("gpu_memcpy", "Memcpy DtoD (Device -> Device)", 60, 5, 9000),
            event("kernel", "gemm", 5, 3),
            event("kernel", "attention", 7, 15),  # until 22, and the first one within it
            event("kernel", "norm", 29, 100),
            event("cpu_op", "aten::mm", 0, 1000),
        ],
        needed=1000,
    )
    assert found == {
        "h2d_bytes_per_image": 1000.0,
        "d2h_bytes_per_image": 70.0,
        "h2d_vs_needed": 1.0,
        "copies_under_kernels_pct": 40.0,  # 5 of the first 10, 2 and 1 of the others
    }


def test_weights_that_are_not_copied_are_less_than_needed() -> None:
    found = offloading.transfers([event("kernel", "gemm", 0, 1)], needed=1000)
    assert found == {"h2d_bytes_per_image": 0.0, "d2h_bytes_per_image": 0.0, "h2d_vs_needed": 0.0}


def test_recording_without_kernels_tells_nothing() -> None:
    assert offloading.transfers([event("gpu_memcpy", "Memcpy HtoD", 0, 1, 8)], needed=8) == {}


# Hooks, and where weights are


@pytest.fixture
def offloaded(make_case: Callable[..., Case], make_pipeline: Callable[..., Any]) -> Callable[..., Any]:
    """A pipeline of int8wo, offloaded."""

    def make(mode: Offload) -> tuple[Case, Any]:
        recipe = Recipe(scheme=INT8WO, offload=mode)
        case, pipeline = make_case(recipe), make_pipeline(recipe)
        apply.apply(pipeline, case.build)
        offload.set_up(pipeline, recipe, CPU)
        return case, pipeline

    return make


def sentences(case: Case, pipeline: Any, before: Any) -> list[str]:
    saving = MemorySaving(set_up=before, final=offloading.look(pipeline), decodes=WHOLE)
    report = make_build(
        memory_saving=saving,
        tensors={"a": "same"},
        built_twin=BuiltTwin(seconds={}, memory={}, tensors={"a": "same"}, output_sha256="", files={}),
    )
    return [each for each in build_checks.contradictions(case, report) if "hook" in each or "bytes" in each]


@pytest.mark.parametrize("mode", OFFLOADS, ids=lambda each: each.id)
def test_every_component_is_moved_by_hooks_and_waits_on_the_host(
    offloaded: Callable[..., Any], mode: Offload
) -> None:
    case, pipeline = offloaded(mode)
    found = offloading.look(pipeline)
    assert found.keys() == case.build.pipeline.modules.keys()
    assert {kind for each in found.values() for kind in each.bytes_on} == {mode.waits_on}
    assert sentences(case, pipeline, found) == []


HOOKS_OF_TRANSFORMER = {MODEL_OFFLOAD.id: 1, SEQUENTIAL_OFFLOAD.id: 78, LEAF_OFFLOAD.id: 78}


@pytest.mark.parametrize("mode", OFFLOADS, ids=lambda each: each.id)
def test_hooks_that_are_removed_are_missed(offloaded: Callable[..., Any], mode: Offload) -> None:
    case, pipeline = offloaded(mode)
    before = offloading.look(pipeline)
    assert before["transformer"].hooks == {mode.hook: HOOKS_OF_TRANSFORMER[mode.id]}
    _remove_hooks(pipeline.transformer)
    found = sentences(case, pipeline, before)
    assert any(f"no {mode.hook} moved" in each and "of transformer" in each for each in found)
    assert any(each.startswith("the hooks of transformer changed") for each in found)
    assert not any("vae" in each for each in found)


def _remove_hooks(root: nn.Module) -> None:
    from accelerate.hooks import remove_hook_from_module

    remove_hook_from_module(root, recurse=True)
    for module in root.modules():
        registry: Any = getattr(module, "_diffusers_hook", None)
        if registry is not None:
            registry.remove_hook("group_offloading")


def test_one_leaf_without_its_hook_is_missed(offloaded: Callable[..., Any]) -> None:
    case, pipeline = offloaded(LEAF_OFFLOAD)
    before = offloading.look(pipeline)
    leaf = pipeline.transformer.transformer_blocks[0].attn.to_q
    leaf._diffusers_hook.remove_hook("group_offloading")
    (unmoved, fewer) = sentences(case, pipeline, before)
    assert unmoved.endswith("bytes of the weights of transformer")
    assert "{'GroupOffloadingHook': 78} before, {'GroupOffloadingHook': 77} after" in fewer


def test_weights_that_stay_after_a_call_are_seen_even_where_host_and_device_are_one(
    offloaded: Callable[..., Any],
) -> None:
    case, pipeline = offloaded(SEQUENTIAL_OFFLOAD)
    before = offloading.look(pipeline)
    (hook, *_) = offload.hooks(pipeline.transformer.proj_out)
    hook.implementation.pre_forward(hook.module)
    (left,) = sentences(case, pipeline, before)
    assert "bytes of the weights of transformer were on cpu, and seqoffload leaves them on meta" in left
    hook.implementation.post_forward(hook.module, None)
    assert sentences(case, pipeline, before) == []


# What only hooks hold


def test_state_is_that_of_the_resident_pipeline_and_reading_it_leaves_the_weights_where_they_were(
    offloaded: Callable[..., Any], make_case: Callable[..., Case], make_pipeline: Callable[..., Any]
) -> None:
    case, pipeline = offloaded(SEQUENTIAL_OFFLOAD)
    resident = make_pipeline(Recipe(scheme=INT8WO))
    apply.apply(resident, case.build)
    before = offloading.look(pipeline)
    assert state.read(pipeline, case.build) == state.read(resident, case.build)
    assert offloading.look(pipeline) == before
    with pytest.raises(KeyError), offload.weights_in_reach(pipeline):
        raise KeyError
    assert offloading.look(pipeline) == before


def test_a_weight_that_changes_in_the_hands_of_a_hook_changes_the_state(
    offloaded: Callable[..., Any],
) -> None:
    case, pipeline = offloaded(SEQUENTIAL_OFFLOAD)
    before = state.read(pipeline, case.build)
    (hook, *_) = offload.hooks(pipeline.transformer.proj_out)
    hook.implementation.weights_map["bias"].add_(1.0)
    assert state.read(pipeline, case.build).components["transformer"] != before.components["transformer"]


def test_fire_drill_reaches_weights_that_only_hooks_hold(make_case: Callable[..., Case]) -> None:
    case = make_case(Recipe(scheme=BF16, offload=SEQUENTIAL_OFFLOAD))
    session = WorkerSession(None)
    session.load(Load(case=case, device=Device.CPU, injections=(Injection(fault=Fault.NAN),)))
    session.quantize(Quantize())
    session.compile(Compile())
    with pytest.raises(WorkerError, match="NaN"):
        session.generate(Generate())


# A whole session


def inspected(case: Case) -> Inspected:
    session = WorkerSession(None)
    session.load(Load(case=case, device=Device.CPU))
    session.quantize(Quantize())
    session.compile(Compile())
    session.generate(Generate(warmup=True))
    return session.inspect(Inspect(work=False))


def test_worker_reports_what_it_did_to_save_memory(make_case: Callable[..., Case]) -> None:
    reply = inspected(make_case(Recipe(scheme=BF16, offload=LEAF_OFFLOAD)))
    assert reply.memory_saving is not None
    assert reply.memory_saving.set_up == reply.memory_saving.final
    assert reply.memory_saving.decodes == WHOLE
    assert reply.values["host_weights_mib"] == pytest.approx(17.98, abs=0.01)
    assert reply.values["offload_set_up_s"] > 0


def test_worker_of_a_resident_pipeline_reports_nothing_of_the_kind(make_case: Callable[..., Case]) -> None:
    assert inspected(make_case(Recipe(scheme=BF16))).memory_saving is None


# Parts of a decode


def test_tiles_as_large_as_the_picture_change_nothing_which_is_seen(make_case: Callable[..., Case]) -> None:
    case = make_case(Recipe(scheme=BF16, decoding=Decoding.TILED))
    saving = inspected(case).memory_saving
    assert saving is not None
    assert saving.decodes == WHOLE
    (sentence,) = build_checks._wrong_memory_saving(case, saving)
    assert "there were {'_decode': 1, 'tiled_decode': 0}" in sentence


def test_pictures_of_a_batch_are_decoded_one_by_one(make_case: Callable[..., Case]) -> None:
    one = make_case(Recipe(scheme=BF16, decoding=Decoding.SLICED))
    case = dataclasses.replace(one, workload=dataclasses.replace(one.workload, batch_size=2))
    saving = inspected(case).memory_saving
    assert saving is not None
    assert saving.decodes == {"decode": 1, "_decode": 2, "tiled_decode": 0}
    assert list(build_checks._wrong_memory_saving(case, saving)) == []


def test_methods_are_counted_and_left_as_they_were(make_case: Callable[..., Case]) -> None:
    vae: Any = build.empty(make_case().build.pipeline.modules["vae"])
    with calls.methods_counted(vae, ("disable_tiling", "no_such_method")) as counts:
        vae.disable_tiling()
        vae.disable_tiling()
    vae.disable_tiling()
    assert counts == {"disable_tiling": 2}
    assert "disable_tiling" not in vars(vae)


def test_a_picture_of_tiles_is_above_the_floor_of_tiles_and_counted(
    make_case: Callable[..., Case], make_pipeline: Callable[..., Any]
) -> None:
    pipeline = make_pipeline(pipeline=COGVIDEOX_MINI)
    case = make_case(pipeline=COGVIDEOX_MINI)
    arguments = call_arguments(COGVIDEOX_MINI, case.workload)
    whole = pipeline(**arguments).frames
    # Tiles of half the picture, which is the default, would not fit together in a picture this small.
    pipeline.vae.enable_tiling(tile_sample_min_height=48, tile_sample_min_width=80)
    arguments["generator"] = torch.Generator("cpu").manual_seed(case.workload.seed)
    with calls.methods_counted(pipeline.vae, offloading.DECODES) as decodes:
        tiled = pipeline(**arguments).frames
    assert decodes == {"decode": 1, "_decode": 1, "tiled_decode": 1}
    assert not torch.equal(tiled, whole)
    errors = (tiled.float() - whole.float()).square().flatten(2).mean(2)
    lowest_db = float(-10 * errors.max().log10())
    assert TILED_FLOOR.psnr_db + 5.0 < lowest_db < 25.0


def test_vae_of_the_published_ladder_has_no_linear_module() -> None:
    # It was published as quantized: in a VAE of convolutions there is nothing to quantize.
    vae = build.empty(COGVIDEOX_5B.modules["vae"])
    assert [name for name, module in vae.named_modules() if isinstance(module, nn.Linear)] == []
