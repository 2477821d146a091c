"""Plans of searches in files: what one process chose for each module, later processes follow.

A plan is valid for the same model on the same torch, triton, torchao and device. The caller names a file for
each of these, and the plan itself says what it belongs to; the two are compared before a plan is followed.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any, NoReturn

import msgspec
import torch

from perf_tests.protocol.base import Struct
from perf_tests.protocol.errors import WorkerError
from perf_tests.protocol.files import replace_atomically
from perf_tests.protocol.messages import Failure, FailureKind, Phase
from perf_tests.protocol.reports import PlanReport
from perf_tests.tables.cases import Case
from perf_tests.worker.measure import environment
from perf_tests.worker.model.build import components

# 1: first format
FORMAT_VERSION = 1

PACKAGES = ("torch", "triton", "torchao")
"""The packages that the times of a layer depend on."""

ADVICE = "delete it, and the next run searches again, or choose another folder with --perf-autoquant-plans"


class PlanModel(Struct):
    """The pipeline whose layers a plan is about."""

    pipeline: str
    weights: str
    """The source of the weights."""
    recipe: str
    case: str
    """Id of the case, whose workload decides how many rows the layers see."""
    case_digest: str
    """Digest of its table rows, which include the candidates, the floor and the margin of the search."""
    modules_sha256: str
    """Over name, shape and dtype of every parameter, after fusing and before quantizing."""


class PlanStack(Struct):
    """The stack that the times of a plan were taken with."""

    packages: dict[str, str]
    """Version of each of `PACKAGES`; `absent` where it is not installed."""
    device: str
    """Device type: `cuda` or `cpu`."""
    device_name: str
    """Of the GPU or the processor."""


class CandidateResult(Struct, omit_defaults=True):
    """What one scheme gave on the layers of one shape."""

    median_ms: float | None = None
    """Of one call; None where it was not timed."""
    sqnr_db: float | None = None
    """The lowest of the layers; None for the unquantized scheme, and where no layer ran."""
    reason: str | None = None
    """Why it was not timed, or was given up."""


class PlanShape(Struct):
    """Layers that do equal work."""

    rows: int
    """Of the activations: the product of all dimensions but the last."""
    in_features: int
    out_features: int
    bias: bool
    candidates: dict[str, CandidateResult]
    """By scheme id."""
    chosen: dict[str, int]
    """Scheme id -> number of layers it was chosen for."""


class PlanLayer(Struct):
    """One module."""

    shape: int | None
    """Index into the plan's shapes; None where the step did not call the module."""
    sqnr_db: dict[str, float]
    """Candidate -> SQNR in dB of its output against that of the unquantized module."""
    chosen: str
    """Id of the scheme."""


class AutoquantPlan(Struct):
    """What a search found, and what it belongs to."""

    format_version: int
    model: PlanModel
    stack: PlanStack
    search_s: float
    min_sqnr_db: float
    margin_pct: float
    shapes: tuple[PlanShape, ...]
    layers: dict[str, PlanLayer]
    """By `component.qualified.name`."""


class _PlanFormat(msgspec.Struct):
    """The part of a plan that is the same in every format."""

    format_version: int


def model_of(pipeline: Any, case: Case) -> PlanModel:
    """The identity of a pipeline that is fused and not yet quantized."""
    build = case.build
    return PlanModel(
        pipeline=build.pipeline.id,
        weights=build.weights.value,
        recipe=build.recipe.id,
        case=case.id,
        case_digest=case.digest,
        modules_sha256=hashlib.sha256("\n".join(_parameters(pipeline)).encode()).hexdigest(),
    )


def _parameters(pipeline: Any) -> Iterator[str]:
    for component, root in components(pipeline).items():
        for name, parameter in root.named_parameters():
            yield f"{component}.{name} {tuple(parameter.shape)} {parameter.dtype}"


def stack_of(device: torch.device) -> PlanStack:
    """The stack that this process computes with."""
    found = environment.describe(None)
    on_gpu = device.type == "cuda"
    return PlanStack(
        packages={name: found.packages.get(name, "absent") for name in PACKAGES},
        device=device.type,
        device_name=torch.cuda.get_device_name(device) if on_gpu else found.cpu_model,
    )


def load(
    file: Path, model: PlanModel, stack: PlanStack, modules: Collection[str], candidates: Collection[str]
) -> AutoquantPlan | None:
    """The plan in `file`, which chooses one of `candidates` for each of `modules`; None if there is no file.

    Raises WorkerError(load) for a file that cannot be read or is not a complete plan, and for the plan of
    another model, stack or device.
    """
    try:
        content = file.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        _refuse(f"cannot read the plan {file}: {error.strerror}; make it readable", error)
    plan = _decoded(file, content)
    differences = [*_differences("", plan.model, model), *_differences("", plan.stack, stack)]
    if differences:
        _refuse(
            f"the plan {file} belongs to another {_kind(plan, model)}: {'; '.join(differences)}; {ADVICE}"
        )
    if defect := _defect(plan, frozenset(modules), frozenset(candidates)):
        _refuse(f"the plan {file} is broken: {defect}; {ADVICE}")
    return plan


def _defect(plan: AutoquantPlan, modules: frozenset[str], candidates: frozenset[str]) -> str | None:
    others = sorted(plan.layers.keys() ^ modules)
    if others:
        return (
            f"it chooses for {len(plan.layers)} modules where {len(modules)} are to be quantized, and only "
            f"one of the two includes {others[0]!r}"
        )
    wrong = [name for name, layer in plan.layers.items() if layer.chosen not in candidates]
    if wrong:
        return f"it chooses {plan.layers[wrong[0]].chosen!r} for {wrong[0]}, which is not a candidate"
    return None


def _decoded(file: Path, content: bytes) -> AutoquantPlan:
    try:
        version = msgspec.json.decode(content, type=_PlanFormat).format_version
        if version != FORMAT_VERSION:
            _refuse(f"the plan {file} has format version {version}, not {FORMAT_VERSION}; {ADVICE}")
        return msgspec.json.decode(content, type=AutoquantPlan)
    except msgspec.DecodeError as error:
        why = f"{len(content)} bytes are truncated or not a plan ({error})"
        _refuse(f"cannot read the plan {file}: its {why}; {ADVICE}", error)


def _kind(plan: AutoquantPlan, model: PlanModel) -> str:
    return "stack or device than this worker's" if plan.model == model else "model than this worker's"


def _differences(prefix: str, found: Any, wanted: Any) -> Iterator[str]:
    """One phrase per difference between two structs or dictionaries: `name <found>, wanted <wanted>`."""
    mine, theirs = _as_dict(wanted), _as_dict(found)
    for name, value in mine.items():
        if isinstance(value, dict):
            yield from _differences(f"{prefix}{name} ", theirs[name], value)
        elif theirs.get(name) != value:
            yield f"{prefix}{name} {theirs.get(name)}, wanted {value}"


def _as_dict(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else msgspec.structs.asdict(value)


def save(file: Path, plan: AutoquantPlan) -> None:
    """Write `plan` to `file` atomically. Raises WorkerError(load) where the disk refuses."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        replace_atomically(file, msgspec.json.format(msgspec.json.encode(plan), indent=1) + b"\n")
    except OSError as error:
        advice = "make room, or choose another folder with --perf-autoquant-plans"
        _refuse(f"cannot write the plan {file}: {error.strerror}; {advice}", error)


def report(file: Path, plan: AutoquantPlan, search_s: float | None) -> PlanReport:
    """A summary of `plan`, which is in `file`; `search_s` is None where the file already existed."""
    chosen = Counter(layer.chosen for layer in plan.layers.values())
    return PlanReport(
        file=file.name,
        sha256=hashlib.sha256(file.read_bytes()).hexdigest(),
        chosen=dict(sorted(chosen.items())),
        search_s=search_s,
    )


def _refuse(message: str, cause: Exception | None = None) -> NoReturn:
    raise WorkerError(Failure(kind=FailureKind.LOAD, phase=Phase.SEARCH, message=message)) from cause
