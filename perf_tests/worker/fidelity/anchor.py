"""Anchors: whole generations in float64, computed once and committed, for bf16 pipelines to match.

A fault of the stack that hits a case and its bf16 reference alike leaves no difference between the two. It
does leave one from the anchor, which an earlier stack computed from the same weights: rounded to bf16, then
widened, text encoders included. The pipelines with an anchor are those whose row has `AnchorFloors`.
"""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Callable, Mapping
from typing import Any, Final, NoReturn

import torch
from torch import nn

from perf_tests.protocol.errors import WorkerError
from perf_tests.protocol.messages import Failure, FailureKind, Phase
from perf_tests.tables.cases import Build
from perf_tests.tables.pipelines.spec import PipelineSpec
from perf_tests.tables.recipes import Recipe
from perf_tests.tables.schemes.rows import BF16
from perf_tests.worker.fidelity.anchor_recording import Recording, Sketch, Stage, record, stage_of
from perf_tests.worker.inspection import probe
from perf_tests.worker.model import build as building

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

METRICS: Final[Mapping[Stage, str]] = {
    Stage.SCHEDULE: "anchor_schedule",
    Stage.EMBEDS: "anchor_embeds_sqnr_db",
    Stage.ANSWER: "anchor_sqnr_db",
    Stage.LATENTS: "anchor_latents_sqnr_db",
    Stage.PICTURE: "anchor_picture_sqnr_db",
}
"""Stage of the pipeline's call -> the metric that compares it."""

LAST_BITS: Final = 1e-6
"""Relative difference of two numbers of a schedule that are the same: instruction sets round the last bits of
float32 (1.2e-7) differently."""


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Anchor:
    """What a pipeline has to come close to."""

    spec: PipelineSpec
    dtype: torch.dtype
    """Of the arithmetic."""
    weights: dict[str, str]
    """As `build.weight_digests` of the bf16 pipeline."""
    recording: Recording


def arithmetic(spec: PipelineSpec) -> torch.dtype:
    """The dtype in which the anchor of `spec` is computed."""
    # At full width the weights take 16 GB in float64; compared with the rounding of bf16, float32 is exact.
    return torch.float32 if spec.miniature_of is None else torch.float64


def compute(spec: PipelineSpec) -> Anchor:
    """The anchor of `spec` with synthetic weights, computed in `arithmetic(spec)` on the CPU of this machine.

    Where diffusers and transformers switch to float32 by themselves (rotary and sinusoidal embeddings, norms,
    schedulers), they do so here too: that error alone is below -120 dB.
    """
    dtype = arithmetic(spec)
    build = Build(pipeline=spec, recipe=Recipe(scheme=BF16))
    pipeline = building.build(build, torch.device("cpu"))
    weights = building.weight_digests(pipeline)
    widen(pipeline, spec, dtype)
    return Anchor(spec=spec, dtype=dtype, weights=weights, recording=record(pipeline, spec))


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


def values(anchor: Anchor, recording: Recording) -> dict[str, float]:
    """Metric name -> how far `recording` is from the anchor: mismatches, or the lowest SQNR in dB of a stage.

    What is missing counts as zeros, that is, 0 dB. Raises WorkerError(unproven) for a shape that is not the
    anchor's and for what the anchor lacks, WorkerError(numerics) for NaN or infinity.
    """
    differences: dict[Stage, list[float]] = defaultdict(list)
    for name, each in differences_by_name(anchor, recording).items():
        differences[stage_of(name)].append(each)
    return {
        METRICS[stage]: sum(found) if stage is Stage.SCHEDULE else min(found)
        for stage, found in differences.items()
    }


def differences_by_name(anchor: Anchor, recording: Recording) -> dict[str, float]:
    """Name of each item of the anchor -> mismatches of a schedule, SQNR in dB of anything else.

    Raises as `values` does.
    """
    if unknown := sorted(recording.keys() - anchor.recording.keys()):
        _unproven(anchor.spec, f"its anchor lacks {', '.join(unknown)}")
    return {
        name: _mismatches(wanted, recording.get(name))
        if stage_of(name) is Stage.SCHEDULE
        else _sqnr_db(anchor.spec, name, wanted, recording.get(name))
        for name, wanted in anchor.recording.items()
    }


def _mismatches(wanted: Sketch, found: Sketch | None) -> float:
    """How many numbers of a schedule differ; all, where there is another number of them."""
    if found is None or found.shape != wanted.shape:
        return float(wanted.values.numel())
    same = torch.isclose(found.values, wanted.values, rtol=LAST_BITS, atol=0.0)
    return float((~same).sum())


def _sqnr_db(spec: PipelineSpec, name: str, wanted: Sketch, found: Sketch | None) -> float:
    if found is None:
        return 0.0
    if found.shape != wanted.shape:
        _unproven(spec, f"{name} has the shape {found.shape}, its anchor has {wanted.shape}")
    if not bool(torch.isfinite(found.values).all()):
        _fail(FailureKind.NUMERICS, f"{spec.id} in bf16: {name} holds NaN or infinity")
    return probe.sqnr_db(wanted.values, found.values)


def rewritten(spec: PipelineSpec) -> str:
    """What makes an anchor of `spec` that belongs to the code of today."""
    return f"run `python tools/anchor.py write --only {spec.id}`"


def _unproven(spec: PipelineSpec, what: str) -> NoReturn:
    advice = f"look at what of the stack has changed before you {rewritten(spec)}"
    _fail(FailureKind.UNPROVEN, f"{spec.id} in bf16: {what}; {advice}")


def _fail(kind: FailureKind, message: str) -> NoReturn:
    raise WorkerError(Failure(kind=kind, phase=Phase.LOAD, message=message))
