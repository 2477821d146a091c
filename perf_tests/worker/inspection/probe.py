"""Compares the transformer's output on the same inputs before and after quantization."""

from __future__ import annotations

import copy
import dataclasses
from typing import Any

import torch

from perf_tests.protocol.errors import WorkerError
from perf_tests.protocol.messages import Failure, FailureKind, Phase
from perf_tests.tables.cases import Case
from perf_tests.tables.metrics.spec import IDENTICAL_DB
from perf_tests.worker.measure import early_stop
from perf_tests.worker.measure.generate import call_arguments


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Probe:
    """The inputs of a pipeline's first transformer call, and the output of the unquantized transformer.

    Replaying the inputs (teacher forcing) leaves only the error of weights and activations in one call; a
    trajectory would add the errors of all earlier steps.
    """

    arguments: tuple[Any, ...]
    keywords: dict[str, Any]
    output: torch.Tensor

    def sqnr_db(self, pipeline: Any) -> float:
        """SQNR in dB of the transformer's output now; `IDENTICAL_DB` where it is identical.

        Raises WorkerError(numerics) for an output with NaN or infinity.
        """
        output = _answer(pipeline.transformer, self.arguments, self.keywords)
        if not bool(torch.isfinite(output).all()):
            message = "the quantized transformer answers NaN or infinity to the inputs of the first step"
            raise WorkerError(Failure(kind=FailureKind.NUMERICS, phase=Phase.QUANTIZE, message=message))
        return sqnr_db(self.output, output)


def record(pipeline: Any, case: Case) -> Probe:
    """The probe of an unquantized, unfused pipeline; nothing stays attached to it.

    It is recorded before fusing, so that any change in the output that fusing makes counts as an error.
    """
    calls: list[tuple[tuple[Any, ...], dict[str, Any]]] = []

    def keep_first(_module: Any, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> None:
        # A copy: pipelines may modify the tensors that they have passed on.
        calls.append(copy.deepcopy((arguments, keywords)))
        early_stop.stop()

    workload = dataclasses.replace(case.workload, steps=1, measured_steps=None)
    hook = pipeline.transformer.register_forward_pre_hook(keep_first, with_kwargs=True)
    try:
        with early_stop.stoppable():
            pipeline(**call_arguments(case.build.pipeline, workload))
    finally:
        hook.remove()
    arguments, keywords = calls[0]
    output = _answer(pipeline.transformer, arguments, keywords)
    return Probe(arguments=arguments, keywords=keywords, output=output)


def _answer(transformer: Any, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> torch.Tensor:
    with torch.no_grad():
        output: torch.Tensor = transformer(*arguments, **keywords)[0]
    return output


def sqnr_db(reference: torch.Tensor, output: torch.Tensor) -> float:
    """SQNR in dB, 20 log10(||x|| / ||x - y||), as in torchao's `compute_error` (quantization/utils.py)."""
    x, y = reference.double(), output.double()
    noise = torch.linalg.vector_norm(x - y)
    if noise == 0:
        return IDENTICAL_DB
    return float(20 * torch.log10(torch.linalg.vector_norm(x) / noise))
