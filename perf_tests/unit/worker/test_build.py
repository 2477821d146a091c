"""Pipelines are built whole, offline, from computed weights or from the hub's cache."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import pytest
import torch

from perf_tests.harness.errors import WorkerError
from perf_tests.tables.cases import Build, Weights
from perf_tests.tables.pipelines import (
    COGVIDEOX_5B,
    COGVIDEOX_MINI,
    FLUX1_DEV,
    FLUX_MINI,
    PipelineSpec,
)
from perf_tests.tables.pipelines.encoders import T5_XXL
from perf_tests.tables.recipes import Recipe
from perf_tests.tables.schemes import BF16
from perf_tests.worker import build

Make = Callable[..., Any]
CPU = torch.device("cpu")


def parameters(module: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.mark.parametrize(
    ("row", "billions"),
    [
        pytest.param(FLUX1_DEV.modules["transformer"], 11.901, id="flux1-dev"),
        pytest.param(COGVIDEOX_5B.modules["transformer"], 5.570, id="cogvideox-5b"),
        pytest.param(COGVIDEOX_5B.modules["vae"], 0.216, id="cogvideox-vae"),
        pytest.param(T5_XXL, 4.762, id="t5-xxl"),
    ],
)
def test_full_size_architectures_have_the_published_number_of_parameters(row: Any, billions: float) -> None:
    assert parameters(build._empty(row)) / 1e9 == pytest.approx(billions, abs=5e-4)


@pytest.mark.parametrize("spec", [FLUX_MINI, COGVIDEOX_MINI], ids=lambda spec: spec.id)
def test_a_pipeline_has_every_component_of_its_row(make_pipeline: Make, spec: PipelineSpec) -> None:
    pipeline = make_pipeline(pipeline=spec)
    assert set(build.components(pipeline)) == set(spec.modules)
    assert {p.dtype for m in build.components(pipeline).values() for p in m.parameters()} == {torch.bfloat16}


def test_two_builds_have_the_same_weights(make_pipeline: Make) -> None:
    assert build.weight_digests(make_pipeline()) == build.weight_digests(make_pipeline())


def test_shared_embeddings_are_one_tensor(make_pipeline: Make) -> None:
    encoder = make_pipeline().text_encoder_2
    assert encoder.shared.weight is encoder.encoder.embed_tokens.weight


def test_the_scheduler_is_the_published_one(make_pipeline: Make) -> None:
    config = make_pipeline().scheduler.config
    assert (config.shift, config.use_dynamic_shifting, config.max_shift) == (3.0, True, 1.15)


def test_prompts_are_padded_to_the_checkpoints_length(make_pipeline: Make) -> None:
    pipeline = make_pipeline()
    tokens = pipeline.tokenizer("a prompt", padding="max_length", max_length=77, truncation=True)
    assert len(tokens.input_ids) == 77
    assert (tokens.input_ids[0], tokens.input_ids[-1]) == (510, 511)


@pytest.mark.parametrize("spec", [FLUX_MINI, COGVIDEOX_MINI], ids=lambda spec: spec.id)
def test_pretrained_weights_come_from_the_hub_cache(
    make_pipeline: Make, spec: PipelineSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved = make_pipeline(pipeline=spec)
    with torch.no_grad():
        # Not what the synthetic weights would be: only the saved file can bring it back.
        next(saved.transformer.parameters()).fill_(0.5)
    folder = f"models--{spec.repo.replace('/', '--')}"
    saved.save_pretrained(tmp_path / folder / "snapshots" / spec.revision)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    loaded = build.build(Build(pipeline=spec, recipe=Recipe(scheme=BF16), weights=Weights.PRETRAINED), CPU)
    assert build.weight_digests(loaded) == build.weight_digests(saved)
    assert next(loaded.transformer.parameters()).unique().tolist() == [0.5]


def test_missing_pretrained_weights_name_repo_revision_and_licence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    wanted = Build(pipeline=FLUX1_DEV, recipe=Recipe(scheme=BF16), weights=Weights.PRETRAINED)
    with pytest.raises(WorkerError, match=r"accept the licence at https.*FLUX\.1-dev") as caught:
        build.build(wanted, CPU)
    assert f"{FLUX1_DEV.repo} at revision {FLUX1_DEV.revision}" in caught.value.failure.message
