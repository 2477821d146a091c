"""The error of each quantized layer on its own, compared with the layer before quantization."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import msgspec
import torch
from torch import nn
from torch.nn import functional

from perf_tests.protocol.errors import WorkerError
from perf_tests.protocol.messages import Failure, FailureKind, Phase
from perf_tests.protocol.reports import LayerError
from perf_tests.tables.cases import Build, Case, Weights
from perf_tests.tables.metrics.spec import IDENTICAL_DB
from perf_tests.tables.pipelines.spec import PipelineSpec
from perf_tests.worker.fidelity import scales
from perf_tests.worker.measure import early_stop
from perf_tests.worker.measure.generate import call_arguments
from perf_tests.worker.model import build as building
from perf_tests.worker.model import synthetic
from perf_tests.worker.quantization.apply import linear_modules

COMPONENT = "transformer"
"""The only component with denoise steps; quantized text encoders and VAEs are judged by the output."""

FUSED = {
    "to_qkv": ("to_q", "to_k", "to_v"),
    "to_kv": ("to_k", "to_v"),
    "to_added_qkv": ("add_q_proj", "add_k_proj", "add_v_proj"),
}
"""Projection made by diffusers (`Attention.fuse_projections`) -> the projections that it concatenates, which
stay in the module, unused."""

CHUNK_ELEMENTS = 1 << 24
"""Elements of an activation that are converted to float32 at a time: 64 MiB, with a few copies."""

MIN_TOKENS = 16
"""Fewer tokens say nothing about a row. With the single token of a modulation layer a row is one number, and
rows next to zero gave -44 dB and a gain of 165 where the layer has 43 dB and 1.000."""

Twins = Callable[[str], torch.Tensor | None]
"""Name of a parameter of the transformer -> its values before quantization; None for an unknown name."""


def twins(build: Build, device: torch.device) -> Twins:
    """The original weights of `build`, made again one at a time on `device`, in the scheme's dtype.

    Raises WorkerError(unproven) where the file of pretrained weights cannot be found.
    """
    return SOURCES[build.weights](build.pipeline, getattr(torch, build.recipe.scheme.dtype), device)


def quantized(pipeline: Any) -> dict[str, nn.Linear]:
    """`transformer.qualified.name` -> module, for each Linear module that is quantized and in use."""
    modules = {name: module for name, module in linear_modules(pipeline) if name.startswith(f"{COMPONENT}.")}
    unused = {part for name in modules for part in _parts(name)}
    return {
        name: module
        for name, module in modules.items()
        if type(module.weight) is not nn.Parameter and name not in unused
    }


def compare(pipeline: Any, case: Case, twins: Twins) -> dict[str, LayerError]:
    """The error of each layer of `quantized`, in the first denoise step of `case`; eager pipelines only.

    With teacher forcing: the output of each layer is replaced with its twin's, so that the next layer gets
    the input of an unquantized pipeline and shows its own error alone. Nothing stays attached. Raises
    WorkerError(unproven) for a layer without a twin, with another shape than its twin's, or which the step
    does not call, and WorkerError(numerics) where a layer answers NaN or infinity.
    """
    return measure(pipeline, case, twins, quantized(pipeline))


def measure(
    pipeline: Any, case: Case, twins: Twins, modules: Mapping[str, nn.Linear]
) -> dict[str, LayerError]:
    """Like `compare`, for the Linear modules `modules` of the transformer, quantized or not."""
    errors: dict[str, LayerError] = {}
    looks = case.build.recipe.scheme.weight
    group_size = None if looks is None else looks.group_size

    def replace_answer(
        name: str, module: nn.Linear, arguments: tuple[torch.Tensor, ...], output: torch.Tensor
    ) -> torch.Tensor:
        weight = _twin(name, module, twins)
        reference = functional.linear(arguments[0], weight, module.bias)
        errors[name] = msgspec.structs.replace(
            _error(name, reference, output), scale_error=scales.farthest(weight, module.weight, group_size)
        )
        return reference

    # One image: the cases of a build that differ in batch size share the worker that answers.
    workload = dataclasses.replace(case.workload, batch_size=1, steps=1, measured_steps=None)
    with contextlib.ExitStack() as attached, early_stop.after_one_call(pipeline.transformer):
        for name, module in modules.items():
            attached.callback(module.register_forward_hook(partial(replace_answer, name)).remove)
        pipeline(**call_arguments(case.build.pipeline, workload))
    if uncalled := [name for name in modules if name not in errors]:
        _unproven(f"the first step does not call {uncalled[0]}, so that its error is unknown")
    return errors


def _parts(name: str) -> tuple[str, ...]:
    """The projections from which the one called `name` was fused; empty for any other module."""
    owner, _, local = name.rpartition(".")
    return tuple(f"{owner}.{part}" for part in FUSED.get(local, ()))


def _twin(name: str, module: nn.Linear, twins: Twins) -> torch.Tensor:
    """The weight of `module` before quantization, in the dtype of its quantized weight."""
    parts = []
    for part in _parts(name) or (name,):
        weight = twins(f"{part.removeprefix(f'{COMPONENT}.')}.weight")
        if weight is None:
            _unproven(
                f"{name} has no bf16 twin: no weight of the pipeline is called {part}.weight; "
                "add what it is made of to FUSED in perf_tests/worker/fidelity/layers.py"
            )
        parts.append(weight)
    twin = torch.cat(parts) if len(parts) > 1 else parts[0]
    if twin.shape != module.weight.shape:
        _unproven(f"{name} has the shape {tuple(module.weight.shape)}, its bf16 twin {tuple(twin.shape)}")
    return twin.to(module.weight.dtype)


def _computed(spec: PipelineSpec, dtype: torch.dtype, device: torch.device) -> Twins:
    row = spec.modules[COMPONENT]
    parameters = dict(building.empty(row).named_parameters(remove_duplicate=False))
    first_names: dict[int, str] = {}
    for name, parameter in parameters.items():
        first_names.setdefault(id(parameter), name)

    def make(name: str) -> torch.Tensor | None:
        if name not in parameters:
            return None
        first = first_names[id(parameters[name])]
        weight = torch.empty(parameters[name].shape, dtype=dtype, device=device)
        synthetic.fill(f"{COMPONENT}.{first}", weight, gain=synthetic.gain_of(first, row.gains))
        return weight

    return make


def _loaded(spec: PipelineSpec, dtype: torch.dtype, device: torch.device) -> Twins:
    from safetensors import safe_open

    files = _files(spec)

    def load(name: str) -> torch.Tensor | None:
        if name not in files:
            return None
        with safe_open(files[name], framework="pt") as file:
            weight: torch.Tensor = file.get_tensor(name)
        return weight.to(device=device, dtype=dtype)

    return load


SOURCES: Mapping[Weights, Callable[[PipelineSpec, torch.dtype, torch.device], Twins]] = {
    Weights.SYNTHETIC: _computed,
    Weights.PRETRAINED: _loaded,
}


def _files(spec: PipelineSpec) -> dict[str, Path]:
    """Name of each parameter in the transformer's checkpoint -> the file in the hub's cache that holds it."""
    from diffusers.utils.constants import SAFE_WEIGHTS_INDEX_NAME, SAFETENSORS_WEIGHTS_NAME
    from safetensors import safe_open

    if index := _cached(spec, SAFE_WEIGHTS_INDEX_NAME):
        shards: dict[str, str] = json.loads(index.read_text())["weight_map"]
        return {name: index.with_name(shard) for name, shard in shards.items()}
    whole = _cached(spec, SAFETENSORS_WEIGHTS_NAME)
    if whole is None:
        _unproven(
            f"the bf16 twins of {spec.repo} at revision {spec.revision} cannot be read: there is neither "
            f"{SAFETENSORS_WEIGHTS_NAME} nor its index in {COMPONENT}/ of the local cache (HF_HOME)"
        )
    with safe_open(whole, framework="pt") as file:
        return dict.fromkeys(file.keys(), whole)


def _cached(spec: PipelineSpec, file: str) -> Path | None:
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(spec.repo, f"{COMPONENT}/{file}", revision=spec.revision)
    # The third possible answer is a marker: the hub was asked before, and has no such file.
    return Path(found) if isinstance(found, str) else None


def _error(name: str, reference: torch.Tensor, output: torch.Tensor) -> LayerError:
    try:
        return error_between(reference, output)
    except ArithmeticError as reason:
        message = f"the error of {name} has no value in the first step: {reason}"
        failure = Failure(kind=FailureKind.NUMERICS, phase=Phase.QUANTIZE, message=message)
        raise WorkerError(failure) from reason


def error_between(reference: torch.Tensor, output: torch.Tensor) -> LayerError:
    """How `output` differs from `reference`, both (..., out_features).

    SQNR is 20 log10(||ref|| / ||ref - y||), as in torchao's `compute_error`; the gain is
    <ref, y> / <ref, ref>. Rows whose reference is all zeros have neither, and only count in the layer's
    figures; with fewer tokens than `MIN_TOKENS` no row has figures, unless all are identical. Raises
    ArithmeticError for NaN or infinity, and where the whole reference is zero.
    """
    signal, noise, product = _sums(reference, output)
    energy, error = float(signal.sum()), float(noise.sum())
    if not math.isfinite(energy + error):
        raise ArithmeticError("its output holds NaN or infinity")
    if error == 0:
        return LayerError(sqnr_db=IDENTICAL_DB, gain=1.0, worst_row_sqnr_db=IDENTICAL_DB, worst_row_gain=1.0)
    if energy == 0:
        raise ArithmeticError("the output of its bf16 twin is all zeros")
    tokens = reference.numel() // reference.shape[-1]
    worst_row_sqnr_db, worst_row_gain = _worst_row(signal, noise, product, tokens)
    return LayerError(
        sqnr_db=10 * math.log10(energy / error),
        gain=float(product.sum()) / energy,
        worst_row_sqnr_db=worst_row_sqnr_db,
        worst_row_gain=worst_row_gain,
        tokens=tokens,
        features=reference.shape[-1],
    )


def _worst_row(
    signal: torch.Tensor, noise: torch.Tensor, product: torch.Tensor, tokens: int
) -> tuple[float, float] | tuple[None, None]:
    """The lowest SQNR of a row in dB, and the gain that is farthest from 1."""
    if tokens < MIN_TOKENS:
        return None, None
    alive = signal > 0
    signal, noise, product = signal[alive], noise[alive], product[alive]
    sqnrs_db = torch.where(noise > 0, 10 * torch.log10(signal / noise), IDENTICAL_DB)
    gains = product / signal
    return float(sqnrs_db.min()), float(gains[(gains - 1).abs().argmax()])


def _sums(reference: torch.Tensor, output: torch.Tensor) -> torch.Tensor:
    """float64 (3, out_features): sums over all tokens of ref * ref, (ref - y) ** 2 and ref * y.

    Products of bf16 values are exact in float32 and summed in float64, so nothing is copied to float64.
    """
    features = reference.shape[-1]
    sums = torch.zeros(3, features, dtype=torch.float64, device=reference.device)
    rows = max(1, CHUNK_ELEMENTS // features)
    chunks = (tensor.reshape(-1, features).split(rows) for tensor in (reference, output))
    for wanted, got in zip(*chunks, strict=True):
        wanted, got = wanted.float(), got.float()
        off = wanted - got
        for total, product in zip(sums, (wanted * wanted, off.square_(), wanted * got), strict=True):
            total += product.sum(0, dtype=torch.float64)
    return sums


def _unproven(message: str) -> NoReturn:
    raise WorkerError(Failure(kind=FailureKind.UNPROVEN, phase=Phase.QUANTIZE, message=message))
