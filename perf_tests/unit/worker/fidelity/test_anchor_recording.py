"""What an anchor records of a pipeline's calls, and how it sketches large tensors."""

from __future__ import annotations

import hashlib
import math
from typing import Any

import pytest
import torch

from perf_tests.tables.pipelines.cogvideox import COGVIDEOX_MINI
from perf_tests.tables.pipelines.flux import FLUX1_DEV_SLIM, FLUX_MINI
from perf_tests.tables.pipelines.spec import FURTHER_PROMPTS, PipelineSpec
from perf_tests.worker.fidelity import anchor_recording
from perf_tests.worker.inspection import probe


def test_the_noise_is_a_pure_function_rounded_to_bf16() -> None:
    with anchor_recording._Noise("noise.0"):
        wide, narrow = (torch.randn((1, 64, 16), dtype=each) for each in (torch.float64, torch.bfloat16))
        other = torch.rand(2)
    assert wide.dtype is torch.float64
    assert torch.equal(wide, narrow.double())
    assert (float(wide.mean()), float(wide.std())) == pytest.approx((0.0, 1.0), abs=0.1)
    assert hashlib.sha256(wide.numpy().tobytes()).hexdigest()[:12] == "6059380b5db1"
    assert other.shape == (2,)


@pytest.mark.parametrize(
    ("spec", "size"),
    [
        pytest.param(FLUX_MINI, (128, 128, None, 4), id="miniature"),
        pytest.param(FLUX1_DEV_SLIM, (256, 256, None, 4), id="large"),
    ],
)
def test_calls_are_four_prompts_and_a_batch_of_two_all_of_them_small(
    spec: PipelineSpec, size: tuple[Any, ...]
) -> None:
    calls = anchor_recording.calls(spec)
    batches = {name: each.batch_size for name, each in calls.items()}
    assert batches == {"prompt-0": 1, "prompt-1": 1, "prompt-2": 1, "prompt-3": 1, "batch": 2}
    assert {(each.height, each.width, each.num_frames, each.generated_steps) for each in calls.values()} == {
        size
    }
    assert [(each.prompt, each.seed) for each in calls.values()] == [
        *((of.prompt, of.seed) for of in map(spec.workload.of_prompt, range(4))),
        (spec.workload.prompt, 0),
    ]


def test_video_that_is_decoded_is_smaller_than_the_others() -> None:
    sizes = [
        (each.height, each.width, each.num_frames) for each in anchor_recording.calls(COGVIDEOX_MINI).values()
    ]
    assert sizes == [*[(64, 96, 9)] * 4, (32, 48, 5)]


def test_only_the_batch_is_decoded() -> None:
    ends = {name: each["output_type"] for name, each in anchor_recording.asked(FLUX_MINI).items()}
    assert [name for name, end in ends.items() if end == "pt"] == ["batch"]
    assert [name for name, end in ends.items() if end == "latent"] == [f"prompt-{n}" for n in range(4)]


def test_batch_is_asked_for_as_the_pipeline_takes_it() -> None:
    flux, video = (anchor_recording.asked(spec)["batch"] for spec in (FLUX_MINI, COGVIDEOX_MINI))
    assert (flux["prompt"], flux["num_images_per_prompt"]) == (FLUX_MINI.workload.prompt, 2)
    assert (video["prompt"], video["num_videos_per_prompt"]) == (
        [COGVIDEOX_MINI.workload.prompt, FURTHER_PROMPTS[0]],
        1,
    )


def test_small_tensor_is_recorded_whole() -> None:
    found = anchor_recording.sketch(torch.arange(1020.0).view(2, 510))
    assert found.shape == (2, 510)
    assert torch.equal(found.values, torch.arange(1020.0))


def test_projections_are_a_pure_function_and_keep_what_a_tensor_weighs() -> None:
    signal = torch.arange(100_000, dtype=torch.float64).sin()
    found = anchor_recording.sketch(signal)
    assert (found.shape, found.values.shape) == ((100_000,), (1021,))
    assert hashlib.sha256(found.values.numpy().tobytes()).hexdigest()[:12] == "d80c94ed8df6"
    assert 20 * math.log10(found.values.norm() / signal.norm()) == pytest.approx(0.0, abs=0.4)


@pytest.mark.parametrize("count", [1, 1000, 50_000])
def test_projections_keep_the_ratio_of_a_signal_to_its_error(count: int) -> None:
    """However many elements the error is in."""
    signal = torch.arange(50_000, dtype=torch.float64).cos()
    wrong = signal.clone()
    wrong[:count] += 0.1
    pure_db = probe.sqnr_db(signal, wrong)
    found_db = probe.sqnr_db(anchor_recording.sketch(signal).values, anchor_recording.sketch(wrong).values)
    assert found_db == pytest.approx(pure_db, abs=0.6)
