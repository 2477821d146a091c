"""The inputs of each Linear module in one denoise step, and the error that each candidate makes on them."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import nn

from perf_tests.tables.cases import Case
from perf_tests.tables.schemes.spec import Scheme
from perf_tests.worker.inspection.probe import sqnr_db
from perf_tests.worker.measure.generate import call_arguments
from perf_tests.worker.quantization import one_layer
from perf_tests.worker.quantization.apply import REFUSALS, broken_rule

MAX_SQNR_ROWS = 1024
"""Rows of a module's activations, evenly spaced, on which its error is taken. Random activations, with and
without outlier channels, gave within 0.03 dB of what all 4608 rows (as many as FLUX has) give."""


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class LayerWork:
    """The size of what a Linear module computes; modules with equal work take equally long."""

    rows: int
    in_features: int
    out_features: int
    bias: bool


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class CandidateErrors:
    """The errors that the candidates make in one module's output."""

    work: LayerWork
    sqnr_db: dict[str, float]
    refused: dict[str, str]
    """Candidate -> why it gives no output."""


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class ExampleInput:
    """The first module that does some work, and the activations that it was called with."""

    name: str
    rows: torch.Tensor
    """(rows, in_features), in host memory: the device memory belongs to the pipeline."""


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class ObservedStep:
    """Everything that one step shows; modules that it does not call are missing."""

    layers: dict[str, CandidateErrors] = dataclasses.field(default_factory=dict)
    examples: dict[LayerWork, ExampleInput] = dataclasses.field(default_factory=dict)


def observe(
    pipeline: Any, case: Case, targets: Mapping[str, nn.Linear], candidates: Sequence[Scheme]
) -> ObservedStep:
    """The activations and errors of `targets` in a generation of one step; nothing stays attached.

    The first call counts for a module that is called several times.
    """
    seen = ObservedStep()

    def look_at(name: str, module: nn.Linear, arguments: tuple[torch.Tensor, ...]) -> None:
        if name in seen.layers:
            return
        rows = arguments[0].detach().reshape(-1, module.in_features)
        work = LayerWork(
            rows=len(rows),
            in_features=module.in_features,
            out_features=module.out_features,
            bias=module.bias is not None,
        )
        if work not in seen.examples:
            # A copy on a CPU, too: pipelines may modify the tensors that they have passed on.
            seen.examples[work] = ExampleInput(name=name, rows=rows.to("cpu", copy=True))
        seen.layers[name] = _errors(work, module, rows, candidates)

    hooks = [module.register_forward_pre_hook(partial(look_at, name)) for name, module in targets.items()]
    workload = dataclasses.replace(case.workload, steps=1, measured_steps=None)
    try:
        pipeline(**call_arguments(case.build.pipeline, workload))
    finally:
        for hook in hooks:
            hook.remove()
    return seen


def _errors(
    work: LayerWork, module: nn.Linear, rows: torch.Tensor, candidates: Sequence[Scheme]
) -> CandidateErrors:
    some = rows[:: math.ceil(len(rows) / MAX_SQNR_ROWS)].contiguous()
    reference = one_layer.detached(module)(some)
    found = CandidateErrors(work=work, sqnr_db={}, refused={})
    for scheme in candidates:
        ratio_db, refusal = _error(work, module, scheme, some, reference)
        if ratio_db is not None:
            found.sqnr_db[scheme.id] = ratio_db
        if refusal is not None:
            found.refused[scheme.id] = refusal
    return found


def _error(
    work: LayerWork, module: nn.Linear, scheme: Scheme, rows: torch.Tensor, reference: torch.Tensor
) -> tuple[float | None, str | None]:
    """SQNR in dB of the module's output under `scheme`, or None and why there is none."""
    if rule := broken_rule(module, scheme):
        return None, rule
    if work.rows < scheme.min_rows:
        return None, f"the kernels need at least {scheme.min_rows} rows"
    try:
        ratio_db = sqnr_db(reference, one_layer.quantized(module, scheme)(rows))
    except torch.OutOfMemoryError:
        raise
    except REFUSALS as error:
        return None, one_layer.first_line(error)
    return (ratio_db, None) if math.isfinite(ratio_db) else (None, "the output holds NaN or infinity")
