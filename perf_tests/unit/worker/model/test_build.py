"""Pipelines are built completely and offline, from computed weights or from the hub's cache."""

from __future__ import annotations

import fnmatch
from collections.abc import Callable
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import pytest
import torch

from perf_tests.protocol.errors import WorkerError
from perf_tests.tables.cases import Build, Weights
from perf_tests.tables.pipelines.autoencoders import SDXL_VAE
from perf_tests.tables.pipelines.cogvideox import COGVIDEOX_5B
from perf_tests.tables.pipelines.encoders import CLIP_G_PROJECTED, CLIP_G_TOKENIZER, CLIP_L, T5_XXL, UMT5_XL
from perf_tests.tables.pipelines.flux import FLUX1_DEV
from perf_tests.tables.pipelines.rows import FULL_SIZE, MINIATURES
from perf_tests.tables.pipelines.spec import PipelineSpec
from perf_tests.tables.recipes import Recipe
from perf_tests.tables.schemes.rows import BF16
from perf_tests.worker.model import build
from perf_tests.worker.model.tokenizers import offline
from perf_tests.worker.quantization.apply import linear_modules

Make = Callable[..., Any]
CPU = torch.device("cpu")


def parameters(module: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.fixture(scope="module", params=FULL_SIZE, ids=lambda spec: spec.id)
def full_size(request: pytest.FixtureRequest) -> tuple[PipelineSpec, torch.nn.Module]:
    """A row, and its transformer without weights."""
    return request.param, build.empty(request.param.modules["transformer"])


TRANSFORMER_BILLIONS = {
    "flux1-dev": 11.901,
    "flux1-schnell": 11.891,
    "cogvideox-5b": 5.570,
    "cogvideox-2b": 1.694,
    "sd3-medium": 2.028,
    "pixart-sigma": 0.611,
    "auraflow": 6.843,
}


def test_full_size_transformers_have_the_published_number_of_parameters(
    full_size: tuple[PipelineSpec, torch.nn.Module],
) -> None:
    spec, transformer = full_size
    billions = parameters(transformer) / 1e9
    assert spec.id in TRANSFORMER_BILLIONS, (
        f'add "{spec.id}" to TRANSFORMER_BILLIONS in perf_tests/unit/worker/model/test_build.py: what is '
        f"published of {spec.repo}, which should be the {billions:.3f} that its row gives"
    )
    assert billions == pytest.approx(TRANSFORMER_BILLIONS[spec.id], abs=5e-4)


def test_patterns_of_a_row_match_modules_of_its_full_size_transformer(
    full_size: tuple[PipelineSpec, torch.nn.Module],
) -> None:
    spec, transformer = full_size
    names = [name for name, module in transformer.named_modules() if isinstance(module, torch.nn.Linear)]
    assert spec.single_row, (
        f"add single_row=(...) to the row of {spec.id}: patterns of its Linear modules that see one row per "
        "image, such as those of the timestep"
    )
    assert [pattern for pattern in spec.single_row if not fnmatch.filter(names, pattern)] == []


@pytest.mark.parametrize(
    ("row", "billions"),
    [
        pytest.param(COGVIDEOX_5B.modules["vae"], 0.216, id="cogvideox-vae"),
        pytest.param(SDXL_VAE, 0.0837, id="sdxl-vae"),
        pytest.param(T5_XXL, 4.762, id="t5-xxl"),
        pytest.param(UMT5_XL, 1.224, id="umt5-xl"),
        pytest.param(CLIP_L, 0.123, id="clip-l"),
        pytest.param(CLIP_G_PROJECTED, 0.695, id="clip-g"),
    ],
)
def test_full_size_encoders_have_the_published_number_of_parameters(row: Any, billions: float) -> None:
    assert parameters(build.empty(row)) / 1e9 == pytest.approx(billions, abs=5e-4)


@pytest.fixture(scope="module", params=MINIATURES, ids=lambda spec: spec.id)
def miniature(request: pytest.FixtureRequest) -> tuple[PipelineSpec, Any]:
    """A row, and its pipeline."""
    return request.param, build.build(Build(pipeline=request.param, recipe=Recipe(scheme=BF16)), CPU)


def test_a_pipeline_has_every_component_of_its_row(miniature: tuple[PipelineSpec, Any]) -> None:
    spec, pipeline = miniature
    assert set(build.components(pipeline)) == set(spec.modules)
    assert {p.dtype for m in build.components(pipeline).values() for p in m.parameters()} == {torch.bfloat16}


def test_patterns_of_a_row_match_no_other_component_than_its_transformer(
    miniature: tuple[PipelineSpec, Any],
) -> None:
    spec, pipeline = miniature
    named = [
        name
        for name, _ in linear_modules(pipeline)
        if any(fnmatch.fnmatch(name.partition(".")[2], pattern) for pattern in spec.single_row)
    ]
    assert {name.partition(".")[0] for name in named} == ({"transformer"} if spec.single_row else set())


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


def test_padding_can_be_a_token_whose_id_bytes_have_elsewhere() -> None:
    tokens = offline(CLIP_G_TOKENIZER)("!", padding="max_length", max_length=5)
    assert tokens.input_ids == [49406, 1, 49407, 0, 0]


def test_tokenizers_return_nothing_that_a_text_encoder_does_not_take(make_pipeline: Make) -> None:
    assert set(make_pipeline().tokenizer_2("a prompt")) == {"input_ids", "attention_mask"}


def tensors(pipeline: Any) -> dict[str, tuple[torch.dtype, torch.Size]]:
    """dtype and shape of every parameter and buffer."""
    return {
        f"{part}.{name}": (tensor.dtype, tensor.shape)
        for part, module in build.components(pipeline).items()
        for name, tensor in (*module.named_parameters(), *module.named_buffers())
    }


@pytest.mark.parametrize("spec", MINIATURES, ids=lambda spec: spec.id)
def test_pretrained_weights_come_from_the_hub_cache(
    make_pipeline: Make, spec: PipelineSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved = make_pipeline(pipeline=spec)
    with torch.no_grad():
        # Unlike the synthetic weights, so that only the saved file can restore it.
        next(saved.transformer.parameters()).fill_(0.5)
    folder = f"models--{spec.repo.replace('/', '--')}"
    saved.save_pretrained(tmp_path / folder / "snapshots" / spec.revision)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    loaded = build.build(Build(pipeline=spec, recipe=Recipe(scheme=BF16), weights=Weights.PRETRAINED), CPU)
    assert build.weight_digests(loaded) == build.weight_digests(saved)
    assert tensors(loaded) == tensors(saved)
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
