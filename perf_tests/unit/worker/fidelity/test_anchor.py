"""A fault of the stack that a case shares with its bf16 reference shows against the anchor."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import runpy
import shutil
from collections.abc import Callable
from pathlib import Path
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
from perf_tests.tables.pipelines.cogvideox import COGVIDEOX_5B, COGVIDEOX_MINI
from perf_tests.tables.pipelines.flux import FLUX1_DEV, FLUX1_DEV_SLIM, FLUX_MINI
from perf_tests.tables.pipelines.rows import MINIATURES, PIPELINES
from perf_tests.tables.pipelines.sd3 import SD3_MINI
from perf_tests.tables.pipelines.spec import PipelineSpec
from perf_tests.tables.platforms import CPU, PLATFORMS
from perf_tests.tables.recipes import FP32_EAGER, Recipe
from perf_tests.tables.schemes.rows import BF16
from perf_tests.worker.fidelity import anchor
from perf_tests.worker.model import build

SCRIPT = Path(__file__).resolve().parents[4] / "tools" / "anchor.py"
main: Callable[..., int] = runpy.run_path(str(SCRIPT))["main"]

FAULTLESS_DB = {FLUX_MINI.id: (37.0, 43.0), COGVIDEOX_MINI.id: (44.0, 46.0), SD3_MINI.id: (40.5, 43.0)}
"""SQNR of faultless bf16 pipelines: 38.3 to 41.3, 44.8 to 44.9 and 41.3 to 41.9 dB, depending on threads,
oneDNN, the processor's instructions and the attention kernel."""

ANCHORED_SPECS = [spec for spec in PIPELINES if spec.anchor is not None]
THREE = pytest.mark.parametrize("spec", [FLUX_MINI, COGVIDEOX_MINI, SD3_MINI], ids=lambda spec: spec.id)


def bf16(spec: PipelineSpec) -> Case:
    return Case(build=Build(pipeline=spec, recipe=Recipe(scheme=BF16)), workload=spec.workload)


def against_anchor(pipeline: Any, spec: PipelineSpec) -> float:
    """SQNR in dB of `pipeline` against the committed anchor."""
    case = bf16(spec)
    stored = anchor.load(case.build, build.weight_digests(pipeline))
    assert stored is not None
    return anchor.sqnr_db(stored, anchor.observe(pipeline, case))


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
    anchor.observe(pipeline, bf16(spec))
    narrow = given.copy()
    given.clear()
    anchor.widen(pipeline, spec, torch.float64)
    anchor.observe(pipeline, bf16(spec))
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
    unmatched = anchor.compute(FLUX_MINI)
    assert anchor.sqnr_db(unmatched, anchor.observe(make_pipeline(), bf16(FLUX_MINI))) < 15.0


def test_the_noise_is_a_pure_function_rounded_to_bf16() -> None:
    with anchor._Noise("noise.0"):
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
        pytest.param(FLUX_MINI, (1, 128, 128, None), id="miniature"),
        pytest.param(FLUX1_DEV_SLIM, (1, 256, 256, None), id="large"),
        pytest.param(COGVIDEOX_5B, (1, 256, 256, 49), id="video"),
        pytest.param(
            dataclasses.replace(FLUX_MINI, workload=FLUX_MINI.workload_of_batch(4)),
            (1, 128, 128, None),
            id="batch",
        ),
    ],
)
def test_the_workload_is_one_of_at_most_256_pixels_a_side(spec: PipelineSpec, size: tuple[Any, ...]) -> None:
    found = anchor.workload(spec)
    assert (found.batch_size, found.height, found.width, found.num_frames) == size
    assert (found.prompt, found.seed, found.arguments) == (
        spec.workload.prompt,
        spec.workload.seed,
        spec.workload.arguments,
    )


# Files


def header_of(spec: PipelineSpec, folder: Path = anchor.FOLDER) -> dict[str, Any]:
    header: dict[str, Any] = json.loads(anchor.paths(spec, folder)[1].read_text())
    return header


@pytest.mark.parametrize("spec", ANCHORED_SPECS, ids=lambda spec: spec.id)
def test_anchors_are_committed_and_match_the_rows_and_workloads_of_today(spec: PipelineSpec) -> None:
    stored = anchor.load(bf16(spec).build, header_of(spec)["weights"])
    assert stored is not None
    assert float(stored.output.std()) == pytest.approx(1.2, abs=0.3)


def test_anchors_of_other_pipelines_are_not_committed() -> None:
    files = {path.name for path in anchor.FOLDER.iterdir()}
    assert files == {path.name for spec in ANCHORED_SPECS for path in anchor.paths(spec)}


@pytest.mark.parametrize(
    "build_of",
    [
        pytest.param(Build(pipeline=FLUX1_DEV, recipe=Recipe(scheme=BF16)), id="full-size"),
        pytest.param(Build(pipeline=FLUX_MINI, recipe=FP32_EAGER), id="other-dtype"),
        pytest.param(
            Build(pipeline=FLUX_MINI, recipe=Recipe(scheme=BF16), weights=Weights.PRETRAINED),
            id="other-weights",
        ),
    ],
)
def test_a_build_without_an_anchor_has_none(build_of: Build) -> None:
    assert anchor.load(build_of, {}) is None


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    """A folder with the anchor of the FLUX miniature."""
    for path in anchor.paths(FLUX_MINI):
        shutil.copy(path, tmp_path)
    return tmp_path


def refusal(folder: Path, weights: dict[str, str] | None = None) -> str:
    today = header_of(FLUX_MINI)["weights"] if weights is None else weights
    with pytest.raises(WorkerError) as caught:
        anchor.load(bf16(FLUX_MINI).build, today, folder)
    assert caught.value.failure.kind is FailureKind.LOAD
    assert str(caught.value).endswith("; run `python tools/anchor.py write --only flux-mini`")
    return str(caught.value)


def test_an_anchor_with_one_flipped_bit_is_broken(copied: Path) -> None:
    path = copied / "flux-mini.npy"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    assert "flux-mini.npy is broken: its sha256 is not the one in flux-mini.json" in refusal(copied)


@pytest.mark.parametrize("name", ["flux-mini.npy", "flux-mini.json"])
def test_an_anchor_with_a_missing_file_is_an_error(copied: Path, name: str) -> None:
    (copied / name).unlink()
    assert "the anchor of flux-mini cannot be read" in refusal(copied)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        pytest.param({"row": "00"}, "another row of the pipeline table", id="row"),
        pytest.param({"workload": {"height": 64}}, "another workload", id="workload"),
        pytest.param({"pipeline": "sd3-mini"}, "another pipeline", id="pipeline"),
        pytest.param({"shape": [64, 16]}, r"(1, 64, 16) where flux-mini.json says", id="shape"),
        pytest.param({"format_version": 2}, "has format version 2, this code reads 1", id="format"),
        pytest.param({"sha256": None}, "flux-mini.json is broken", id="type"),
        pytest.param({"stray": 1}, "flux-mini.json is broken", id="unknown-field"),
    ],
)
def test_an_anchor_of_something_else_is_an_error(copied: Path, changes: dict[str, Any], says: str) -> None:
    (copied / "flux-mini.json").write_text(json.dumps(header_of(FLUX_MINI) | changes))
    assert says in refusal(copied)


def test_an_anchor_of_other_weights_is_stale(copied: Path) -> None:
    weights = header_of(FLUX_MINI)["weights"]
    other = weights | dict.fromkeys(list(weights)[:1], "00")
    assert "is stale: it was computed from another set of weights" in refusal(copied, other)


def small(shape: tuple[int, ...]) -> anchor.Anchor:
    return anchor.Anchor(spec=FLUX_MINI, dtype=torch.float64, weights={}, output=torch.ones(shape))


def test_an_answer_of_another_shape_proves_nothing() -> None:
    with pytest.raises(WorkerError, match=r"answers in the shape \(3,\), its anchor has \(1, 3\)") as caught:
        anchor.sqnr_db(small((1, 3)), torch.ones(3))
    assert caught.value.failure.kind is FailureKind.UNPROVEN


def test_an_answer_with_nan_is_refused() -> None:
    with pytest.raises(WorkerError, match="flux-mini answers NaN or infinity") as caught:
        anchor.sqnr_db(small((3,)), torch.tensor([1.0, float("nan"), 1.0]))
    assert caught.value.failure.kind is FailureKind.NUMERICS


# The tool


def test_an_anchor_is_computed_in_float64_unless_its_pipeline_is_large() -> None:
    computed_in = {spec.id: header_of(spec)["computed_in"] for spec in ANCHORED_SPECS}
    assert computed_in.pop(FLUX1_DEV_SLIM.id) == "float32"
    assert set(computed_in.values()) == {"float64"}
    assert anchor.arithmetic(FLUX1_DEV_SLIM) is torch.float32
    assert {anchor.arithmetic(spec) for spec in MINIATURES} == {torch.float64}


def test_an_anchor_is_the_same_when_it_is_computed_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = ("--only", FLUX_MINI.id, "--folder", str(tmp_path))
    assert main(["write", *folder]) == 0
    assert capsys.readouterr().out.splitlines()[0].endswith("flux-mini.npy: 4224 bytes")
    assert main(["check", *folder]) == 0
    assert capsys.readouterr().out == "flux-mini: 144.5 dB\n"


def test_an_anchor_from_another_arithmetic_differs(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(anchor, "ROUNDINGS", {})
    assert main(["check", "--only", FLUX_MINI.id]) == 1
    assert "dB, less than 100: what has changed in the stack?" in capsys.readouterr().out


def test_a_pipeline_without_an_anchor_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "--only", "flux1-dev"]) == 2
    assert (
        "no pipeline with an anchor matches 'flux1-dev'; there are: flux1-dev-slim,"
        in capsys.readouterr().err
    )


def test_pipelines_with_an_anchor_are_gated_wherever_their_bf16_cases_run() -> None:
    gated = {
        (row.pipeline.id, platform.id)
        for row in MATRIX
        for platform in row.platforms
        if any(each.name == "anchor_sqnr_db" for each in gated_metrics(row.case(Weights.SYNTHETIC), platform))
    }
    miniatures = {(spec.id, CPU.id) for spec in MINIATURES}
    gpus = {platform.id for platform in PLATFORMS} - {CPU.id}
    assert gated == miniatures | {(FLUX1_DEV_SLIM.id, gpu) for gpu in gpus}
    assert {pipeline for pipeline, _ in gated} == {spec.id for spec in ANCHORED_SPECS}
