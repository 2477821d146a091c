"""Whether this stack supports a scheme on this device, found by applying it to one small module."""

from __future__ import annotations

import gc
from typing import Any, NoReturn

import torch
from torch import nn

from perf_tests.protocol.errors import WorkerError
from perf_tests.protocol.messages import Failure, FailureKind, Phase
from perf_tests.tables.schemes.spec import Scheme
from perf_tests.worker.measure import memory
from perf_tests.worker.model import synthetic
from perf_tests.worker.model.lazy import construct
from perf_tests.worker.quantization.apply import REFUSALS

# Multiples of every group, tile and padding in use; enough rows for every kernel.
FEATURES, ROWS = 256, 64
BUGS = (AttributeError, TypeError)
"""What is no refusal once the config was made: nobody raises these to say that something does not fit."""


def check(scheme: Scheme, device: torch.device) -> None:
    """Raises WorkerError(unsupported) where stack or device refuse the scheme; leaves nothing behind.

    A name or an argument that is missing where the config is made is a refusal: the stack no longer has it.
    Later it is a bug of the stack, and raises WorkerError(load). A module that becomes something other than
    the scheme says is not refused: the build checks find that in the pipeline, where it must fail and not be
    skipped. torch.OutOfMemoryError passes through.
    """
    _require_capability(scheme, device)
    if scheme.config is None:
        return
    try:
        config = construct(scheme.config)
    except torch.OutOfMemoryError:
        raise
    except REFUSALS as error:
        _unsupported(_refused(scheme, device, error))
    try:
        _try(config, getattr(torch, scheme.dtype), device)
    except torch.OutOfMemoryError:
        raise
    except BUGS as error:
        message = f"{_refused(scheme, device, error)}, though its config exists: a bug"
        raise WorkerError(Failure(kind=FailureKind.LOAD, phase=Phase.LOAD, message=message)) from error
    except REFUSALS as error:
        _unsupported(_refused(scheme, device, error))
    finally:
        gc.collect()
        if device.type == "cuda":
            memory.clear_workspaces()
            torch.cuda.empty_cache()


def _require_capability(scheme: Scheme, device: torch.device) -> None:
    if scheme.min_capability is None:
        return
    found = torch.cuda.get_device_capability(device) if device.type == "cuda" else None
    if found is None or found < scheme.min_capability:
        has = f"this one has {_dotted(found)}" if found else f"this is a {device.type}"
        wanted = _dotted(scheme.min_capability)
        _unsupported(f"{scheme.id} needs a CUDA device of compute capability {wanted} or higher, {has}")


def _dotted(capability: tuple[int, int]) -> str:
    return ".".join(map(str, capability))


def _refused(scheme: Scheme, device: torch.device, error: Exception) -> str:
    first_line = str(error).strip().partition("\n")[0]
    return f"this stack refuses {scheme.id} on {device.type}: {type(error).__name__}: {first_line}"


def _try(config: Any, dtype: torch.dtype, device: torch.device) -> None:
    from torchao.quantization import quantize_

    # Filled, not initialised: torch's random generators keep their state.
    model = nn.Sequential(nn.Linear(FEATURES, FEATURES, device="meta"))
    synthetic.materialise("support", model, dtype=dtype, device=device)
    rows = torch.empty(ROWS, FEATURES, dtype=dtype, device=device)
    synthetic.fill("support.rows", rows)
    # None is the default filter, and all that a config which names its modules accepts.
    quantize_(model, config, filter_fn=None)
    with torch.no_grad():
        model(rows)
    if device.type == "cuda":
        torch.cuda.synchronize(device)  # a failing kernel is reported only here


def _unsupported(message: str) -> NoReturn:
    raise WorkerError(Failure(kind=FailureKind.UNSUPPORTED, phase=Phase.LOAD, message=message))
