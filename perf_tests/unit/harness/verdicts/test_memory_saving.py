"""What a worker says of hooks, weights and parts of a decode, against a recipe that saves memory."""

from __future__ import annotations

import dataclasses
from typing import Any

import msgspec
import pytest

from perf_tests.harness.verdicts.build_checks import contradictions
from perf_tests.protocol.offloading import MemorySaving, OffloadedComponent
from perf_tests.protocol.reports import BuiltTwin
from perf_tests.tables.cases import Case
from perf_tests.tables.recipes import (
    LEAF_OFFLOAD,
    MODEL_OFFLOAD,
    OFFLOADS,
    SEQUENTIAL_OFFLOAD,
    Decoding,
    Offload,
)
from perf_tests.tables.schemes.rows import INT8WO
from perf_tests.unit.builders import make_build, make_case

WHOLE = {"decode": 1, "_decode": 1, "tiled_decode": 0}
TENSORS = {"transformer.proj_out.weight": "same"}
TWIN = BuiltTwin(seconds={}, memory={}, tensors=TENSORS, output_sha256="same", files={})
MODULES = ("transformer", "vae", "text_encoder", "text_encoder_2")


def component(offload: Offload, **changes: Any) -> OffloadedComponent:
    right = OffloadedComponent(hooks={offload.hook: 7}, unmoved_bytes=0, bytes_on={offload.waits_on: 4096})
    return msgspec.structs.replace(right, **changes)


def saving(offload: Offload, decodes: dict[str, int] | None = None, **wrong: Any) -> MemorySaving:
    """As it is to be, but for what is `wrong` of the transformer after the last image."""
    right = dict.fromkeys(MODULES, component(offload))
    final = {**right, "transformer": component(offload, **wrong)}
    return MemorySaving(set_up=right, final=final, decodes=decodes or WHOLE)


def found(case: Case, reported: MemorySaving | None) -> tuple[str, ...]:
    twin = TWIN if case.built_twin else None
    return contradictions(case, make_build(memory_saving=reported, tensors=TENSORS, built_twin=twin))


def offloaded(offload: Offload) -> Case:
    return make_case(scheme=INT8WO, offload=offload)


@pytest.mark.parametrize("offload", OFFLOADS, ids=lambda each: each.id)
def test_weights_that_wait_where_they_should_and_hooks_that_move_them_agree(offload: Offload) -> None:
    assert found(offloaded(offload), saving(offload)) == ()


def test_worker_that_did_not_look_is_no_proof() -> None:
    assert found(offloaded(MODEL_OFFLOAD), None) == (
        "the worker did not look at what the recipe int8wo-eager-modeloffload saves of memory",
    )


def test_component_of_which_nothing_is_said_is_named() -> None:
    reported = saving(MODEL_OFFLOAD)
    reported = msgspec.structs.replace(
        reported, final={k: v for k, v in reported.final.items() if k != "vae"}
    )
    assert found(offloaded(MODEL_OFFLOAD), reported) == (
        "after the last image, the worker did not say where the weights of vae were",
    )


def test_hooks_that_were_removed_are_named_with_what_they_moved() -> None:
    reported = saving(SEQUENTIAL_OFFLOAD, hooks={}, unmoved_bytes=4096)
    assert found(offloaded(SEQUENTIAL_OFFLOAD), reported) == (
        "after the last image, no AlignDevicesHook moved 4096 bytes of the weights of transformer",
        "the hooks of transformer changed during generation: {'AlignDevicesHook': 7} before, {} after",
    )


def test_one_hook_less_is_a_change() -> None:
    reported = saving(LEAF_OFFLOAD, hooks={"GroupOffloadingHook": 6})
    assert found(offloaded(LEAF_OFFLOAD), reported) == (
        "the hooks of transformer changed during generation: {'GroupOffloadingHook': 7} before, "
        "{'GroupOffloadingHook': 6} after",
    )


def test_hooks_of_another_offload_are_not_those_that_were_asked_for() -> None:
    wrong = saving(MODEL_OFFLOAD)
    sentences = found(offloaded(LEAF_OFFLOAD), wrong)
    assert len(sentences) == 4 * 2 * 2
    assert sentences[0] == (
        "before the first image, transformer had hooks of CpuOffload, and leafoffload sets those of "
        "GroupOffloadingHook"
    )


@pytest.mark.parametrize(
    ("offload", "device"),
    [
        (MODEL_OFFLOAD, "cuda"),
        (LEAF_OFFLOAD, "cuda"),
        (SEQUENTIAL_OFFLOAD, "cuda"),
        (SEQUENTIAL_OFFLOAD, "cpu"),
    ],
    ids=lambda each: each.id if isinstance(each, Offload) else each,
)
def test_weights_that_were_left_where_they_were_used_are_named(offload: Offload, device: str) -> None:
    reported = saving(offload, bytes_on={offload.waits_on: 96, device: 4000})
    assert found(offloaded(offload), reported) == (
        f"after the last image, 4000 bytes of the weights of transformer were on {device}, and {offload.id} "
        f"leaves them on {offload.waits_on}",
    )


TILED = make_case(scheme=INT8WO, decoding=Decoding.TILED)


def test_vae_that_was_to_be_tiled_and_found_the_picture_small_enough_is_named() -> None:
    assert found(TILED, MemorySaving(set_up={}, final={}, decodes={**WHOLE, "tiled_decode": 1})) == ()
    assert found(TILED, MemorySaving(set_up={}, final={}, decodes=WHOLE)) == (
        "the VAE was to decode tiled, which is {'_decode': 1, 'tiled_decode': 1} calls in a generation, and "
        "there were {'_decode': 1, 'tiled_decode': 0}",
    )


def test_vae_that_decoded_nothing_is_named() -> None:
    (sentence,) = found(TILED, MemorySaving(set_up={}, final={}, decodes={}))
    assert "there were {'_decode': 0, 'tiled_decode': 0}" in sentence


def test_batch_is_decoded_one_by_one_where_that_was_asked_for() -> None:
    sliced = make_case(scheme=INT8WO, decoding=Decoding.SLICED)
    batch = dataclasses.replace(sliced, workload=dataclasses.replace(sliced.workload, batch_size=4))
    one_by_one = {"decode": 1, "_decode": 4, "tiled_decode": 0}
    assert found(batch, MemorySaving(set_up={}, final={}, decodes=one_by_one)) == ()
    (sentence,) = found(batch, MemorySaving(set_up={}, final={}, decodes=WHOLE))
    assert "which is {'_decode': 4, 'tiled_decode': 0} calls" in sentence
    assert found(sliced, MemorySaving(set_up={}, final={}, decodes=WHOLE)) == (
        "the VAE was to decode one picture after another, and there is only one",
    )
