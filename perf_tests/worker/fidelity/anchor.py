"""Anchors: a transformer's first answer in float64, computed once and committed, for bf16 pipelines to match.

A fault of the stack that hits a case and its bf16 reference alike leaves no difference between the two. It
does leave one from the anchor, which an earlier stack computed from the same weights: rounded to bf16, then
widened, text encoders included. The pipelines with an anchor are those whose row has an `AnchorFloor`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import io
import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NoReturn

import msgspec
import numpy as np
import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from perf_tests.protocol.errors import WorkerError
from perf_tests.protocol.messages import Failure, FailureKind, Phase
from perf_tests.tables.cases import Build, Case, Weights
from perf_tests.tables.digest_fields import identity
from perf_tests.tables.pipelines.spec import PipelineSpec, Workload
from perf_tests.tables.recipes import Recipe
from perf_tests.tables.schemes.rows import BF16
from perf_tests.worker.measure import early_stop, environment, probe
from perf_tests.worker.measure.generate import call_arguments
from perf_tests.worker.model import build as building
from perf_tests.worker.model import synthetic

FOLDER = Path(__file__).resolve().parents[3] / "baselines" / "anchors"

FORMAT_VERSION = 1

MAX_SIDE = 256
"""Of the image, in pixels: a CPU computes a step of that size in seconds, even at full width."""

Rounding = Callable[[torch.Tensor], torch.Tensor]


def _rounded(value: torch.Tensor) -> torch.Tensor:
    return value.bfloat16().to(value.dtype)


def _in_thousandths(value: torch.Tensor) -> torch.Tensor:
    """Rounded, multiplied by 1000 and rounded again: a guidance of 3.5 becomes 3.504."""
    return (value.bfloat16() * 1000).to(value.dtype) / 1000


def _of_thousand(value: torch.Tensor) -> torch.Tensor:
    """`_in_thousandths` of a value that the pipeline had already rounded once, before dividing it by 1000."""
    return _in_thousandths(((value * 1000).bfloat16() / 1000).to(value.dtype))


ROUNDINGS: Mapping[str, Mapping[str, Rounding]] = {
    "diffusers:FluxTransformer2DModel": {"timestep": _of_thousand, "guidance": _in_thousandths},
    "diffusers:AuraFlowTransformer2DModel": {"timestep": _rounded},
}
"""Class of a transformer -> keyword of its call -> how a bf16 pipeline rounds it before its sinusoids.

Sinusoids turn a difference of a thousandth into another phase, which has nothing to do with the rounding of
the arithmetic: with the guidance of FLUX, 9 dB instead of 38. The other classes pass on the scheduler's
timestep as it is, in every dtype.
"""


class AnchorHeader(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What an anchor was computed from."""

    format_version: int
    pipeline: str
    computed_in: str
    """Dtype of the arithmetic; the array is float32."""
    sha256: str
    """Of the file with the array."""
    shape: tuple[int, ...]
    row: str
    """sha256 of the identity of the pipeline's row."""
    workload: dict[str, Any]
    weights: dict[str, str]
    """As `build.weight_digests` of the bf16 pipeline."""
    packages: dict[str, str]
    """Name -> version of what computed it; for information only, never compared."""


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Anchor:
    """The transformer's output at the first denoise step, on the CPU."""

    spec: PipelineSpec
    dtype: torch.dtype
    """Of the arithmetic."""
    weights: dict[str, str]
    output: torch.Tensor
    """float32, in the shape that the transformer gives it."""


def workload(spec: PipelineSpec) -> Workload:
    """What an anchor of `spec` is computed for: its default workload, batch 1, at most `MAX_SIDE` pixels."""
    default = spec.workload
    return dataclasses.replace(
        default,
        batch_size=1,
        height=min(default.height, MAX_SIDE),
        width=min(default.width, MAX_SIDE),
        measured_steps=None,
    )


def observe(pipeline: Any, case: Case) -> torch.Tensor:
    """What the transformer of `pipeline` answers to its first call for `workload`: float32, on the CPU.

    To be called before anything is fused, quantized or compiled. The pipeline's call ends there, and nothing
    stays attached to it. Only the pipeline's row of `case` matters. Raises WorkerError(unproven) where the
    pipeline never calls its transformer.
    """
    spec, answers = case.build.pipeline, []

    def keep(_module: nn.Module, _arguments: object, output: Any) -> None:
        answers.append(output[0].detach().float().cpu())

    asked = workload(spec)
    with contextlib.ExitStack() as attached:
        attached.callback(pipeline.transformer.register_forward_hook(keep).remove)
        attached.enter_context(early_stop.after_one_call(pipeline.transformer))
        attached.enter_context(_Noise(f"noise.{asked.seed}"))
        pipeline(**call_arguments(spec, asked))
    if not answers:
        _fail(FailureKind.UNPROVEN, f"{spec.id} generates without calling its transformer")
    answer: torch.Tensor = answers[0]
    return answer


class _Noise(TorchFunctionMode):
    """Makes `torch.randn` a pure function of the shape: torch's own bits depend on dtype and processor."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self._name = name

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        keywords = kwargs or {}
        if func is not torch.randn:
            return func(*args, **keywords)
        noise = torch.empty(*args, dtype=torch.bfloat16)
        # Viewed as a matrix the noise has a single row; this gain makes its variance 1.
        synthetic.fill(self._name, noise.view(1, -1), gain=math.sqrt(noise.numel()))
        return noise.to(device=keywords.get("device"), dtype=keywords.get("dtype"))


def arithmetic(spec: PipelineSpec) -> torch.dtype:
    """The dtype in which the anchor of `spec` is computed."""
    # At full width the weights take 16 GB in float64; compared with the rounding of bf16, float32 is exact.
    return torch.float32 if spec.miniature_of is None else torch.float64


def compute(spec: PipelineSpec) -> Anchor:
    """The anchor of `spec` with synthetic weights, computed in `arithmetic(spec)` on the CPU of this machine.

    Where diffusers and transformers switch to float32 by themselves (rotary and sinusoidal embeddings,
    norms), they do so here too: that error alone is below -120 dB.
    """
    dtype = arithmetic(spec)
    build = Build(pipeline=spec, recipe=Recipe(scheme=BF16))
    pipeline = building.build(build, torch.device("cpu"))
    weights = building.weight_digests(pipeline)
    widen(pipeline, spec, dtype)
    output = observe(pipeline, Case(build=build, workload=workload(spec)))
    return Anchor(spec=spec, dtype=dtype, weights=weights, output=output)


def widen(pipeline: Any, spec: PipelineSpec, dtype: torch.dtype) -> None:
    """Make a bf16 `pipeline` of `spec` compute in `dtype` from now on, with the inputs of bf16."""
    for module in building.components(pipeline).values():
        # Not the module's own `to`: diffusers would warn about the change of dtype, which is wanted here.
        nn.Module.to(module, dtype=dtype)
    roundings = ROUNDINGS.get(spec.modules["transformer"].cls, {})

    def round_inputs(
        _module: nn.Module, arguments: tuple[Any, ...], keywords: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        given = {name: each for name, each in roundings.items() if keywords.get(name) is not None}
        return arguments, keywords | {name: each(keywords[name]) for name, each in given.items()}

    pipeline.transformer.register_forward_pre_hook(round_inputs, with_kwargs=True)


def sqnr_db(anchor: Anchor, observed: torch.Tensor) -> float:
    """SQNR in dB of what `observe` saw against the anchor.

    Raises WorkerError(unproven) for a shape that is not the anchor's, WorkerError(numerics) for NaN or
    infinity.
    """
    name, wanted, got = anchor.spec.id, tuple(anchor.output.shape), tuple(observed.shape)
    if wanted != got:
        message = f"the transformer of {name} answers in the shape {got}, its anchor has {wanted}: look at "
        _fail(FailureKind.UNPROVEN, f"{message}what of the stack has changed before you {_rewritten(name)}")
    if not bool(torch.isfinite(observed).all()):
        _fail(FailureKind.NUMERICS, f"the transformer of {name} answers NaN or infinity to its first call")
    return probe.sqnr_db(anchor.output, observed)


# Files


def write(anchor: Anchor, folder: Path = FOLDER) -> tuple[Path, Path]:
    """Write `<pipeline>.npy`, and `<pipeline>.json` with what it was computed from; returns both paths."""
    spec, buffer = anchor.spec, io.BytesIO()
    np.save(buffer, anchor.output.numpy().astype("<f4"))
    header = AnchorHeader(
        format_version=FORMAT_VERSION,
        pipeline=spec.id,
        computed_in=str(anchor.dtype).removeprefix("torch."),
        sha256=_sha256(buffer.getvalue()),
        shape=tuple(anchor.output.shape),
        row=_row(spec),
        workload=_asked(spec),
        weights=anchor.weights,
        packages=environment.describe(None).packages,
    )
    array_path, header_path = paths(spec, folder)
    folder.mkdir(parents=True, exist_ok=True)
    array_path.write_bytes(buffer.getvalue())
    header_path.write_text(json.dumps(msgspec.to_builtins(header), indent=1) + "\n")
    return array_path, header_path


def load(build: Build, weights: Mapping[str, str], folder: Path = FOLDER) -> Anchor | None:
    """The committed anchor of `build`, whose pipeline has `weights` (`build.weight_digests`).

    None for builds without one: a pipeline without an anchor on its row, weights that are not synthetic, a
    dtype other than bf16. Raises WorkerError(load) for an anchor that is missing, broken, or stale: computed
    from a row, workload or weights that have changed since.
    """
    spec = build.pipeline
    bf16 = build.recipe.scheme.dtype == BF16.dtype
    if spec.anchor is None or build.weights is not Weights.SYNTHETIC or not bf16:
        return None
    array_path, header_path = paths(spec, folder)
    header, data = _header(spec, header_path), _bytes(spec, array_path)
    if _sha256(data) != header.sha256:
        _refuse(spec, f"{array_path} is broken: its sha256 is not the one in {header_path.name}")
    found = (header.pipeline, header.row, header.workload, header.weights)
    today = (spec.id, _row(spec), _asked(spec), dict(weights))
    stale = [what for what, then, now in zip(PROVENANCE, found, today, strict=True) if then != now]
    if stale:
        _refuse(spec, f"{header_path} is stale: it was computed from another {' and another '.join(stale)}")
    output = torch.from_numpy(np.load(io.BytesIO(data), allow_pickle=False))
    if tuple(output.shape) != header.shape or output.dtype is not torch.float32:
        is_, said = f"{output.dtype} {tuple(output.shape)}", f"torch.float32 {header.shape}"
        _refuse(spec, f"{array_path} is broken: it holds {is_} where {header_path.name} says {said}")
    return Anchor(
        spec=spec, dtype=getattr(torch, header.computed_in), weights=dict(header.weights), output=output
    )


PROVENANCE = ("pipeline", "row of the pipeline table", "workload", "set of weights")


def paths(spec: PipelineSpec, folder: Path = FOLDER) -> tuple[Path, Path]:
    """The files of the anchor of `spec`: the array, and what it was computed from."""
    return folder / f"{spec.id}.npy", folder / f"{spec.id}.json"


def _header(spec: PipelineSpec, path: Path) -> AnchorHeader:
    try:
        header = msgspec.json.decode(_bytes(spec, path), type=AnchorHeader)
    except msgspec.DecodeError as error:
        _refuse(spec, f"{path} is broken: {error}", error)
    if header.format_version != FORMAT_VERSION:
        _refuse(spec, f"{path} has format version {header.format_version}, this code reads {FORMAT_VERSION}")
    return header


def _bytes(spec: PipelineSpec, path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        _refuse(spec, f"the anchor of {spec.id} cannot be read: {error}", error)


def _row(spec: PipelineSpec) -> str:
    return _sha256(json.dumps(identity(spec), sort_keys=True).encode())


def _asked(spec: PipelineSpec) -> dict[str, Any]:
    """The fields of the workload, as they come back from JSON."""
    fields: dict[str, Any] = identity(workload(spec))
    return fields


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _rewritten(name: str) -> str:
    return f"run `python tools/anchor.py write --only {name}`"


def _refuse(spec: PipelineSpec, message: str, cause: Exception | None = None) -> NoReturn:
    _fail(FailureKind.LOAD, f"{message}; {_rewritten(spec.id)}", cause)


def _fail(kind: FailureKind, message: str, cause: Exception | None = None) -> NoReturn:
    raise WorkerError(Failure(kind=kind, phase=Phase.LOAD, message=message)) from cause
