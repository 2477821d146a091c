"""A fault of the stack that a case shares with its bf16 reference shows against the anchor."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from diffusers.models.embeddings import Timesteps
from torch import nn
from torch.nn import functional

from perf_tests.harness.verdicts.gates import gated_metrics
from perf_tests.protocol.errors import WorkerError
from perf_tests.protocol.messages import FailureKind
from perf_tests.tables.cases import Build, Case, Weights
from perf_tests.tables.matrix import MATRIX
from perf_tests.tables.pipelines.auraflow import AURAFLOW_MINI
from perf_tests.tables.pipelines.cogvideox import COGVIDEOX_MINI
from perf_tests.tables.pipelines.flux import FLUX1_DEV_SLIM, FLUX_MINI
from perf_tests.tables.pipelines.rows import MINIATURES, PIPELINES
from perf_tests.tables.pipelines.sd3 import SD3_MINI
from perf_tests.tables.pipelines.spec import PipelineSpec
from perf_tests.tables.platforms import CPU, PLATFORMS
from perf_tests.tables.recipes import Recipe
from perf_tests.tables.schemes.rows import BF16
from perf_tests.worker.fidelity import anchor, anchor_files, anchor_recording
from perf_tests.worker.fidelity.anchor_recording import Sketch
from perf_tests.worker.model import build

FAULTLESS_DB = {FLUX_MINI.id: (37.0, 43.0), COGVIDEOX_MINI.id: (44.0, 46.0), SD3_MINI.id: (40.5, 43.0)}
"""SQNR of faultless bf16 pipelines: 38.3 to 41.3, 44.8 to 44.9 and 41.3 to 41.9 dB, depending on threads,
oneDNN, the processor's instructions and the attention kernel."""

ANCHORED_SPECS = [spec for spec in PIPELINES if spec.anchor is not None]
THREE = pytest.mark.parametrize("spec", [FLUX_MINI, COGVIDEOX_MINI, SD3_MINI], ids=lambda spec: spec.id)


def bf16(spec: PipelineSpec) -> Case:
    return Case(build=Build(pipeline=spec, recipe=Recipe(scheme=BF16)), workload=spec.workload)


def recorded(pipeline: Any, spec: PipelineSpec) -> dict[str, Sketch]:
    """What the anchor holds of the first step for the first prompt."""
    first = anchor_recording.calls(spec)["prompt-0"]
    return anchor_recording.record(pipeline, spec, {"prompt-0": dataclasses.replace(first, steps=1)})


def against_anchor(pipeline: Any, spec: PipelineSpec) -> float:
    """SQNR in dB of the first answer of `pipeline` against the committed anchor."""
    stored = anchor_files.load(bf16(spec).build, build.weight_digests(pipeline))
    assert stored is not None
    return anchor.differences_by_name(stored, recorded(pipeline, spec))["answer"]


def attached(pipeline: Any) -> list[nn.Module]:
    return [each for each in pipeline.transformer.modules() if each._forward_hooks or each._forward_pre_hooks]


@THREE
def test_a_sound_pipeline_is_as_far_from_its_anchor_as_bf16_rounds(
    make_pipeline: Callable[..., Any], spec: PipelineSpec
) -> None:
    pipeline = make_pipeline(pipeline=spec)
    low_db, high_db = FAULTLESS_DB[spec.id]
    assert low_db < against_anchor(pipeline, spec) < high_db
    assert attached(pipeline) == []


# At least 6 dB below the lowest of a sound pipeline.
@pytest.mark.parametrize(
    ("spec", "below_db"),
    [(FLUX_MINI, 10.0), (COGVIDEOX_MINI, 38.0), (SD3_MINI, 10.0)],
    ids=lambda value: getattr(value, "id", None),
)
def test_permuted_text_tokens_are_seen(
    make_pipeline: Callable[..., Any], spec: PipelineSpec, below_db: float
) -> None:
    pipeline = make_pipeline(pipeline=spec)
    for name, module in build.components(pipeline).items():
        if name.startswith("text_encoder"):
            module.register_forward_pre_hook(reverse_tokens, with_kwargs=True)
    assert against_anchor(pipeline, spec) < below_db


def reverse_tokens(
    _module: nn.Module, arguments: tuple[Any, ...], keywords: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    ids, *rest = arguments or (keywords.pop("input_ids"),)
    return (ids.flip(-1), *rest), keywords


# At least 6 dB below the lowest of a sound pipeline, except for CogVideoX: attention contributes little to
# the output of its synthetic weights, so 5.9 dB, where sound pipelines differ by 0.1 dB.
@pytest.mark.parametrize(
    ("spec", "below_db"),
    [(FLUX_MINI, 31.0), (COGVIDEOX_MINI, 40.0), (SD3_MINI, 34.0)],
    ids=lambda value: getattr(value, "id", None),
)
@pytest.mark.parametrize("factor", [0.9, 1.1])
def test_a_wrong_attention_scale_is_seen(
    make_pipeline: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
    spec: PipelineSpec,
    below_db: float,
    factor: float,
) -> None:
    right = functional.scaled_dot_product_attention

    def wrong(query: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        return right(query * factor, *args, **kwargs)

    pipeline = make_pipeline(pipeline=spec)
    monkeypatch.setattr(functional, "scaled_dot_product_attention", wrong)
    assert against_anchor(pipeline, spec) < below_db


def test_a_wrong_guidance_is_seen(make_pipeline: Callable[..., Any]) -> None:
    pipeline = make_pipeline()
    pipeline.transformer.register_forward_pre_hook(
        lambda module, arguments, keywords: (arguments, keywords | {"guidance": torch.tensor([3.6])}),
        with_kwargs=True,
    )
    assert against_anchor(pipeline, FLUX_MINI) < 15.0


# One class of each kind: both in thousandths, neither, the timestep alone.
@pytest.mark.parametrize("spec", [FLUX_MINI, SD3_MINI, AURAFLOW_MINI], ids=lambda spec: spec.id)
@pytest.mark.parametrize("timestep", [1000.0, 747.25])
def test_sinusoids_are_given_the_same_in_bf16_and_in_float64(
    make_pipeline: Callable[..., Any], spec: PipelineSpec, timestep: float
) -> None:
    pipeline, given = make_pipeline(pipeline=spec), []
    for module in pipeline.transformer.modules():
        if isinstance(module, Timesteps):
            module.register_forward_pre_hook(lambda _, inputs: given.append(inputs[0].float().tolist()))
    begin_at(pipeline, timestep)
    recorded(pipeline, spec)
    narrow = given.copy()
    given.clear()
    anchor.widen(pipeline, spec, torch.float64)
    recorded(pipeline, spec)
    assert narrow
    assert given == narrow


def begin_at(pipeline: Any, timestep: float) -> None:
    set_timesteps = pipeline.scheduler.set_timesteps

    @functools.wraps(set_timesteps)
    def begin(*args: Any, **kwargs: Any) -> None:
        set_timesteps(*args, **kwargs)
        pipeline.scheduler.timesteps[0] = timestep

    pipeline.scheduler.set_timesteps = begin


@pytest.mark.parametrize(
    ("keyword", "given", "wanted"),
    [
        pytest.param("guidance", 3.5, 3.504, id="bf16-has-3504-next-to-3500"),
        pytest.param("guidance", 0.0, 0.0, id="none"),
        pytest.param("timestep", 1.0, 1.0, id="first-step"),
        pytest.param("timestep", 0.74725, 0.748, id="rounded-three-times"),
    ],
)
def test_scalars_of_flux_are_rounded_as_in_bf16(keyword: str, given: float, wanted: float) -> None:
    rounding = anchor.ROUNDINGS["diffusers:FluxTransformer2DModel"][keyword]
    assert rounding(torch.tensor([given], dtype=torch.float64)).tolist() == pytest.approx([wanted], abs=1e-12)


def test_an_anchor_without_its_roundings_does_not_match(
    make_pipeline: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(anchor, "ROUNDINGS", {})
    pipeline = make_pipeline()
    stored = anchor_files.load(bf16(FLUX_MINI).build, build.weight_digests(pipeline))
    assert stored is not None
    anchor.widen(pipeline, FLUX_MINI, torch.float64)
    assert anchor.differences_by_name(stored, recorded(pipeline, FLUX_MINI))["answer"] < 15.0


def holding(**tensors: torch.Tensor) -> anchor.Anchor:
    recording = {name: anchor_recording.whole(each) for name, each in tensors.items()}
    return anchor.Anchor(spec=FLUX_MINI, dtype=torch.float64, weights={}, recording=recording)


def test_answer_of_another_shape_proves_nothing() -> None:
    found = holding(answer=torch.ones(3)).recording
    with pytest.raises(WorkerError, match=r"answer has the shape \(3,\), its anchor has \(1, 3\)") as caught:
        anchor.values(holding(answer=torch.ones(1, 3)), found)
    assert caught.value.failure.kind is FailureKind.UNPROVEN


def test_answer_that_is_not_a_number_is_refused() -> None:
    found = holding(answer=torch.tensor([1.0, float("nan"), 1.0])).recording
    with pytest.raises(WorkerError, match="flux-mini in bf16: answer holds NaN or infinity") as caught:
        anchor.values(holding(answer=torch.ones(3)), found)
    assert caught.value.failure.kind is FailureKind.NUMERICS


def test_what_the_anchor_lacks_proves_nothing() -> None:
    found = holding(answer=torch.ones(3), latents=torch.ones(3)).recording
    with pytest.raises(WorkerError, match="its anchor lacks latents; look at what") as caught:
        anchor.values(holding(answer=torch.ones(3)), found)
    assert caught.value.failure.kind is FailureKind.UNPROVEN


def test_what_is_missing_is_as_far_off_as_zeros() -> None:
    stored = holding(schedule=torch.ones(7), latents=torch.ones(3))
    assert anchor.values(stored, {}) == {"anchor_schedule": 7.0, "anchor_latents_sqnr_db": 0.0}


@pytest.mark.parametrize(
    ("found", "mismatches"),
    [
        pytest.param([1000.0, 600.0, 0.0], 0.0, id="same"),
        pytest.param([1000.0, 600.0003, 0.0], 0.0, id="last-bits"),
        pytest.param([1000.0, 600.01, 0.0], 1.0, id="one-differs"),
        pytest.param([1000.0, 600.0, 1e-9], 1.0, id="zero-is-exact"),
        pytest.param([1000.0, 600.0], 3.0, id="a-step-is-missing"),
    ],
)
def test_numbers_of_a_schedule_are_the_same_but_for_their_last_bits(
    found: list[float], mismatches: float
) -> None:
    stored = holding(schedule=torch.tensor([1000.0, 600.0, 0.0]))
    now = holding(schedule=torch.tensor(found)).recording
    assert anchor.values(stored, now) == {"anchor_schedule": mismatches}


def test_worst_item_of_a_stage_is_its_value() -> None:
    recording = {f"latents.prompt-{n}.0": anchor_recording.whole(torch.ones(4)) for n in range(3)}
    stored = anchor.Anchor(spec=FLUX_MINI, dtype=torch.float64, weights={}, recording=recording)
    found = {**recording, "latents.prompt-1.0": anchor_recording.whole(torch.full((4,), 1.1))}
    assert anchor.values(stored, found) == {"anchor_latents_sqnr_db": pytest.approx(20.0, abs=1e-4)}


def test_pipelines_with_an_anchor_are_gated_wherever_their_bf16_cases_run() -> None:
    gated = {
        (row.pipeline.id, platform.id)
        for row in MATRIX
        for platform in row.platforms
        if set(anchor.METRICS.values())
        <= {each.name for each in gated_metrics(row.case(Weights.SYNTHETIC), platform)}
    }
    miniatures = {(spec.id, CPU.id) for spec in MINIATURES}
    gpus = {platform.id for platform in PLATFORMS} - {CPU.id}
    assert gated == miniatures | {(FLUX1_DEV_SLIM.id, gpu) for gpu in gpus}
    assert {pipeline for pipeline, _ in gated} == {spec.id for spec in ANCHORED_SPECS}
