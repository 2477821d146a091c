"""Anchors on disk: written, read back, refused where they are broken or stale."""

from __future__ import annotations

import json
import runpy
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from perf_tests.protocol.errors import WorkerError
from perf_tests.protocol.messages import FailureKind
from perf_tests.tables.cases import Build, Case, Weights
from perf_tests.tables.pipelines.flux import FLUX1_DEV, FLUX1_DEV_SLIM, FLUX_MINI
from perf_tests.tables.pipelines.rows import MINIATURES, PIPELINES
from perf_tests.tables.pipelines.spec import PipelineSpec
from perf_tests.tables.recipes import FP32_EAGER, Recipe
from perf_tests.tables.schemes.rows import BF16
from perf_tests.worker.fidelity import anchor, anchor_files, anchor_recording
from perf_tests.worker.fidelity.anchor_recording import Stage

SCRIPT = Path(__file__).resolve().parents[4] / "tools" / "anchor.py"
main: Callable[..., int] = runpy.run_path(str(SCRIPT))["main"]

ANCHORED_SPECS = [spec for spec in PIPELINES if spec.anchor is not None]


def bf16(spec: PipelineSpec) -> Case:
    return Case(build=Build(pipeline=spec, recipe=Recipe(scheme=BF16)), workload=spec.workload)


def header_of(spec: PipelineSpec, folder: Path = anchor_files.FOLDER) -> dict[str, Any]:
    header: dict[str, Any] = json.loads(anchor_files.paths(spec, folder)[1].read_text())
    return header


@pytest.mark.parametrize("spec", ANCHORED_SPECS, ids=lambda spec: spec.id)
def test_anchors_are_committed_and_match_the_rows_and_workloads_of_today(spec: PipelineSpec) -> None:
    stored = anchor_files.load(bf16(spec).build, header_of(spec)["weights"])
    assert stored is not None
    assert float(stored.recording["answer"].values.std()) == pytest.approx(1.2, abs=0.3)
    assert {anchor_recording.stage_of(name) for name in stored.recording} == set(Stage)


def test_anchors_of_other_pipelines_are_not_committed() -> None:
    files = {path.name for path in anchor_files.FOLDER.iterdir()}
    assert files == {path.name for spec in ANCHORED_SPECS for path in anchor_files.paths(spec)}


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
    assert anchor_files.load(build_of, {}) is None


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    """A folder with the anchor of the FLUX miniature."""
    for path in anchor_files.paths(FLUX_MINI):
        shutil.copy(path, tmp_path)
    return tmp_path


def refusal(folder: Path, weights: dict[str, str] | None = None) -> str:
    today = header_of(FLUX_MINI)["weights"] if weights is None else weights
    with pytest.raises(WorkerError) as caught:
        anchor_files.load(bf16(FLUX_MINI).build, today, folder)
    assert caught.value.failure.kind is FailureKind.LOAD
    assert str(caught.value).endswith("; run `python tools/anchor.py write --only flux-mini`")
    return str(caught.value)


def test_an_anchor_with_one_flipped_bit_is_broken(copied: Path) -> None:
    path = copied / "flux-mini.npz"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    assert "flux-mini.npz is broken: its sha256 is not the one in flux-mini.json" in refusal(copied)


@pytest.mark.parametrize("name", ["flux-mini.npz", "flux-mini.json"])
def test_an_anchor_with_a_missing_file_is_an_error(copied: Path, name: str) -> None:
    (copied / name).unlink()
    assert "the anchor of flux-mini cannot be read" in refusal(copied)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        pytest.param({"row": "00"}, "another row of the pipeline table", id="row"),
        pytest.param({"calls": {"batch": {"height": 64}}}, "another set of calls", id="calls"),
        pytest.param({"projections": 1024}, "another number of projections", id="projections"),
        pytest.param({"pipeline": "sd3-mini"}, "another pipeline", id="pipeline"),
        pytest.param({"shapes": {"answer": [1024]}}, "does not hold the arrays that its", id="shapes"),
        pytest.param({"format_version": 1}, "has format version 1, this code reads 2", id="format"),
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
    assert capsys.readouterr().out.splitlines()[0].endswith("flux-mini.npz: 109980 bytes")
    assert main(["check", *folder]) == 0
    assert capsys.readouterr().out == "flux-mini: 144.5 dB, schedule: 0 mismatches\n"


def test_an_anchor_from_another_arithmetic_differs(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(anchor, "ROUNDINGS", {})
    assert main(["check", "--only", FLUX_MINI.id]) == 1
    assert "less than 100 or another schedule: what has changed in the stack?" in capsys.readouterr().out


def test_a_pipeline_without_an_anchor_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "--only", "flux1-dev"]) == 2
    assert (
        "no pipeline with an anchor matches 'flux1-dev'; there are: flux1-dev-slim,"
        in capsys.readouterr().err
    )
