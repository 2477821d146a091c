"""The committed files of anchors: `<pipeline>.npz`, and `<pipeline>.json` with what it was computed from."""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, NoReturn

import msgspec
import numpy as np
import torch

from perf_tests.protocol.errors import WorkerError
from perf_tests.protocol.messages import Failure, FailureKind, Phase
from perf_tests.tables.cases import Build, Weights
from perf_tests.tables.digest_fields import identity
from perf_tests.tables.pipelines.spec import PipelineSpec
from perf_tests.tables.schemes.rows import BF16
from perf_tests.worker.fidelity.anchor import Anchor, rewritten
from perf_tests.worker.fidelity.anchor_recording import PROJECTIONS, Sketch, asked, sketch_size
from perf_tests.worker.measure import environment

FOLDER = Path(__file__).resolve().parents[3] / "baselines" / "anchors"

FORMAT_VERSION: Final = 2
"""1 held the transformer's first answer and nothing else."""

PROVENANCE: Final = (
    "pipeline",
    "row of the pipeline table",
    "set of calls",
    "set of weights",
    "number of projections",
)


class AnchorHeader(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What an anchor was computed from."""

    format_version: int
    pipeline: str
    computed_in: str
    """Dtype of the arithmetic; the arrays are float32."""
    sha256: str
    """Of the file with the arrays."""
    shapes: dict[str, tuple[int, ...]]
    """Name of each array -> the shape of the tensor of which it holds the elements, or projections."""
    projections: int
    """Of tensors with more elements."""
    row: str
    """sha256 of the identity of the pipeline's row."""
    calls: dict[str, dict[str, Any]]
    """Name of each call of the pipeline -> its arguments."""
    weights: dict[str, str]
    """As `build.weight_digests` of the bf16 pipeline."""
    packages: dict[str, str]
    """Name -> version of what computed it; for information only, never compared."""


def paths(spec: PipelineSpec, folder: Path = FOLDER) -> tuple[Path, Path]:
    """The files of the anchor of `spec`: the arrays, and what they were computed from."""
    return folder / f"{spec.id}.npz", folder / f"{spec.id}.json"


def write(anchor: Anchor, folder: Path = FOLDER) -> tuple[Path, Path]:
    """Write both files of `anchor`; returns their paths."""
    spec, buffer = anchor.spec, io.BytesIO()
    arrays: Any = {name: each.values.numpy().astype("<f4") for name, each in anchor.recording.items()}
    np.savez(buffer, **arrays)
    header = AnchorHeader(
        format_version=FORMAT_VERSION,
        pipeline=spec.id,
        computed_in=str(anchor.dtype).removeprefix("torch."),
        sha256=_sha256(buffer.getvalue()),
        shapes={name: each.shape for name, each in anchor.recording.items()},
        projections=PROJECTIONS,
        row=_row(spec),
        calls=asked(spec),
        weights=anchor.weights,
        packages=environment.describe(None).packages,
    )
    arrays_path, header_path = paths(spec, folder)
    folder.mkdir(parents=True, exist_ok=True)
    arrays_path.write_bytes(buffer.getvalue())
    header_path.write_text(json.dumps(msgspec.to_builtins(header), indent=1) + "\n")
    return arrays_path, header_path


def load(build: Build, weights: Mapping[str, str], folder: Path = FOLDER) -> Anchor | None:
    """The committed anchor of `build`, whose pipeline has `weights` (`build.weight_digests`).

    None for builds without one: a pipeline without an anchor on its row, weights that are not synthetic, a
    dtype other than bf16. Raises WorkerError(load) for an anchor that is missing, broken, or stale: computed
    from a row, calls or weights that have changed since.
    """
    spec = build.pipeline
    bf16 = build.recipe.scheme.dtype == BF16.dtype
    if spec.anchor is None or build.weights is not Weights.SYNTHETIC or not bf16:
        return None
    arrays_path, header_path = paths(spec, folder)
    header, data = _header(spec, header_path), _bytes(spec, arrays_path)
    if _sha256(data) != header.sha256:
        _refuse(spec, f"{arrays_path} is broken: its sha256 is not the one in {header_path.name}")
    found = (header.pipeline, header.row, header.calls, header.weights, header.projections)
    today = (spec.id, _row(spec), asked(spec), dict(weights), PROJECTIONS)
    stale = [what for what, then, now in zip(PROVENANCE, found, today, strict=True) if then != now]
    if stale:
        _refuse(spec, f"{header_path} is stale: it was computed from another {' and another '.join(stale)}")
    return Anchor(
        spec=spec,
        dtype=getattr(torch, header.computed_in),
        weights=dict(header.weights),
        recording=_sketches(spec, data, header, arrays_path),
    )


def _sketches(spec: PipelineSpec, data: bytes, header: AnchorHeader, path: Path) -> dict[str, Sketch]:
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
            held = {name: torch.from_numpy(arrays[name]) for name in arrays.files}
    except (ValueError, zipfile.BadZipFile) as error:
        _refuse(spec, f"{path} is broken: {error}", error)
    said = {name: (torch.float32, sketch_size(name, shape)) for name, shape in header.shapes.items()}
    if {name: (each.dtype, each.numel()) for name, each in held.items()} != said:
        _refuse(spec, f"{path} is broken: it does not hold the arrays that its .json file names")
    return {name: Sketch(header.shapes[name], each) for name, each in held.items()}


def _header(spec: PipelineSpec, path: Path) -> AnchorHeader:
    data = _bytes(spec, path)
    try:
        version = msgspec.json.decode(data, type=_Version).format_version
        if version != FORMAT_VERSION:
            _refuse(spec, f"{path} has format version {version}, this code reads {FORMAT_VERSION}")
        return msgspec.json.decode(data, type=AnchorHeader)
    except msgspec.DecodeError as error:
        _refuse(spec, f"{path} is broken: {error}", error)


class _Version(msgspec.Struct, frozen=True):
    """What every format has."""

    format_version: int


def _bytes(spec: PipelineSpec, path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        _refuse(spec, f"the anchor of {spec.id} cannot be read: {error}", error)


def _row(spec: PipelineSpec) -> str:
    return _sha256(json.dumps(identity(spec), sort_keys=True).encode())


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _refuse(spec: PipelineSpec, message: str, cause: Exception | None = None) -> NoReturn:
    failure = Failure(kind=FailureKind.LOAD, phase=Phase.LOAD, message=f"{message}; {rewritten(spec)}")
    raise WorkerError(failure) from cause
