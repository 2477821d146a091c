"""Faults that a scheme shares with its bf16 reference: the anchor sees them, from the stage they begin in."""

from __future__ import annotations

import copy
import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import pytest
import torch

from perf_tests.tables.cases import Build, Case
from perf_tests.tables.metrics import expected
from perf_tests.tables.pipelines.flux import FLUX_MINI
from perf_tests.tables.pipelines.pixart import PIXART_MINI
from perf_tests.tables.pipelines.rows import MINIATURES
from perf_tests.tables.pipelines.sd3 import SD3_MINI
from perf_tests.tables.pipelines.spec import PipelineSpec
from perf_tests.tables.recipes import Recipe
from perf_tests.tables.schemes.rows import BF16
from perf_tests.unit.worker.mutations import MUTATIONS, unchanged
from perf_tests.unit.worker.test_mutations import Bench, observed, red
from perf_tests.worker.fidelity import anchor, anchor_files, anchor_recording
from perf_tests.worker.model import build

SCHEDULE, EMBEDS, ANSWER, LATENTS, PICTURE = (anchor.METRICS[stage] for stage in anchor_recording.Stage)

RANGES = {
    SCHEDULE: expected.anchor_schedule,
    EMBEDS: expected.anchor_embeds_sqnr_db,
    ANSWER: expected.anchor_sqnr_db,
    LATENTS: expected.anchor_latents_sqnr_db,
    PICTURE: expected.anchor_picture_sqnr_db,
}

Plant = Callable[[Any, pytest.MonkeyPatch], None]


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class SharedFault:
    """What is done to a pipeline, whatever its scheme."""

    name: str
    plant: Plant
    seen: set[str]
    """The metrics that see it: all others are green."""
    pipeline: PipelineSpec = FLUX_MINI


def _shift_lost_after_the_first_step(pipeline: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    scheduler = pipeline.scheduler
    right = scheduler.step

    # `wraps`, because pipelines look at the signature.
    @functools.wraps(right)
    def step(*arguments: Any, **keywords: Any) -> Any:
        result = right(*arguments, **keywords)
        steps = len(scheduler.timesteps)
        scheduler.sigmas = torch.linspace(1.0, 0.0, steps + 1)
        return result

    monkeypatch.setattr(scheduler, "step", step)


def _shift_of_two_for_three(pipeline: Any, _monkeypatch: pytest.MonkeyPatch) -> None:
    pipeline.scheduler.set_shift(2.0)


def _first_embeddings_for_all_prompts(pipeline: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    right, first = pipeline.encode_prompt, {}

    def encode(*arguments: Any, num_images_per_prompt: int = 1, **keywords: Any) -> Any:
        if num_images_per_prompt not in first:
            keywords["num_images_per_prompt"] = num_images_per_prompt
            first[num_images_per_prompt] = right(*arguments, **keywords)
        return first[num_images_per_prompt]

    monkeypatch.setattr(pipeline, "encode_prompt", encode)


def _padding_taken_for_text(pipeline: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    right = pipeline.encode_prompt

    def encode(*arguments: Any, **keywords: Any) -> Any:
        embeds, mask, negative_embeds, negative_mask = right(*arguments, **keywords)
        return embeds, torch.ones_like(mask), negative_embeds, torch.ones_like(negative_mask)

    monkeypatch.setattr(pipeline, "encode_prompt", encode)


def _layer_of_an_encoder_skipped(pipeline: Any, _monkeypatch: pytest.MonkeyPatch) -> None:
    last = pipeline.text_encoder_2.encoder.block[-1]
    last.register_forward_hook(lambda _module, arguments, output: (arguments[0], *output[1:]))


def _noise_of_a_batch_repeated(pipeline: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    right = pipeline.prepare_latents

    def prepare(*arguments: Any, **keywords: Any) -> Any:
        noise = right(*arguments, **keywords)
        return noise[:1].repeat(len(noise), 1, 1, 1)

    monkeypatch.setattr(pipeline, "prepare_latents", prepare)


def _guidance_of_6_for_7(pipeline: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(type(pipeline), "guidance_scale", property(lambda _self: 6.0))


def _scaling_factor_off_by_ten_percent(pipeline: Any, _monkeypatch: pytest.MonkeyPatch) -> None:
    pipeline.vae.register_to_config(scaling_factor=pipeline.vae.config.scaling_factor * 1.1)


def _shift_factor_lost(pipeline: Any, _monkeypatch: pytest.MonkeyPatch) -> None:
    pipeline.vae.register_to_config(shift_factor=0.0)


FAULTS = (
    SharedFault(
        name="shift-lost-after-the-first-step",
        plant=_shift_lost_after_the_first_step,
        seen={SCHEDULE, LATENTS, PICTURE},
    ),
    SharedFault(
        name="shift-of-two-for-three",
        plant=_shift_of_two_for_three,
        seen={SCHEDULE, LATENTS, PICTURE},
        pipeline=SD3_MINI,
    ),
    SharedFault(
        name="first-embeddings-for-all-prompts",
        plant=_first_embeddings_for_all_prompts,
        seen={EMBEDS, LATENTS},  # what is decoded is the first prompt's
    ),
    SharedFault(
        name="padding-taken-for-text",
        plant=_padding_taken_for_text,
        seen={EMBEDS, ANSWER, LATENTS, PICTURE},
        pipeline=PIXART_MINI,
    ),
    SharedFault(
        name="layer-of-an-encoder-skipped",
        plant=_layer_of_an_encoder_skipped,
        seen={EMBEDS, ANSWER, LATENTS, PICTURE},
    ),
    SharedFault(
        name="noise-of-a-batch-repeated",
        plant=_noise_of_a_batch_repeated,
        seen={LATENTS, PICTURE},
        pipeline=SD3_MINI,
    ),
    SharedFault(
        name="guidance-of-6-for-7",
        plant=_guidance_of_6_for_7,
        seen={LATENTS, PICTURE},
        pipeline=SD3_MINI,
    ),
    SharedFault(name="vae-scaling-factor-off", plant=_scaling_factor_off_by_ten_percent, seen={PICTURE}),
    SharedFault(name="vae-shift-factor-lost", plant=_shift_factor_lost, seen={PICTURE}),
)


def outside(pipeline: Any, spec: PipelineSpec) -> dict[str, float]:
    """The values of `pipeline` that lie outside the ranges of its row."""
    case = Case(build=Build(pipeline=spec, recipe=Recipe(scheme=BF16)), workload=spec.workload)
    stored = anchor_files.load(case.build, build.weight_digests(pipeline))
    assert stored is not None
    values = anchor.values(stored, anchor_recording.record(pipeline, spec))
    ranges = {name: implied(case) for name, implied in RANGES.items()}
    assert values.keys() == ranges.keys()
    return {
        name: value
        for name, value in values.items()
        if (allowed := ranges[name]) is None or not allowed.low <= value <= allowed.high
    }


@pytest.fixture(scope="module")
def bench() -> Bench:
    """Shared, for building takes the longest."""
    return Bench()


# Without the videos, which take a quarter of a minute to decode where the processor has no bf16.
@pytest.mark.parametrize(
    "spec", [each for each in MINIATURES if each.workload.num_frames is None], ids=lambda spec: spec.id
)
def test_unchanged_pipeline_is_within_every_range(
    make_pipeline: Callable[..., Any], spec: PipelineSpec
) -> None:
    assert outside(make_pipeline(pipeline=spec), spec) == {}


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_shared_fault_is_seen_from_the_stage_on_in_which_it_begins(
    make_pipeline: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, fault: SharedFault
) -> None:
    pipeline = make_pipeline(pipeline=fault.pipeline)
    fault.plant(pipeline, monkeypatch)
    assert outside(pipeline, fault.pipeline).keys() == fault.seen


# The other faults of FLUX are not seen either; each takes four pictures twice.
@pytest.mark.parametrize(
    "fault",
    [each for each in FAULTS if each.name in ("shift-lost-after-the-first-step", "vae-scaling-factor-off")],
    ids=lambda fault: fault.name,
)
def test_shared_fault_is_not_seen_by_what_compares_a_scheme_with_its_reference(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, fault: SharedFault
) -> None:
    same = unchanged(MUTATIONS[0])
    sound = bench.reference(same)
    wrong = copy.deepcopy(sound.pipeline)
    fault.plant(wrong, monkeypatch)
    faulty = Bench()
    # Planted again in the copy that is quantized.
    faulty._references[sound.case.id] = dataclasses.replace(
        observed(wrong, sound.case), pipeline=sound.pipeline
    )
    planted = dataclasses.replace(same, assembled=lambda pipeline: fault.plant(pipeline, monkeypatch))
    assert red(faulty.find(planted), bench.sound(same)) == {}
