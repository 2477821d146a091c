"""Full-size weights without a download: a pure function of (parameter name, element index).

A weight is an integer hash of its name and index, looked up in a table of 1021 values that are rounded
to the parameter's dtype once. Only integer operations touch the index, so the bits are the same on
every device and torch version, and any parameter can be made alone, in any order.

The distribution is that of the sum of four uniform bytes (Irwin-Hall): mean 0, variance 1 / fan_in (times
the square of a gain, where the table has one), within 3.5 standard deviations. Vectors are norms (1) or
biases (0).
"""

from __future__ import annotations

import fnmatch
import hashlib
import math
from collections.abc import Iterator, Mapping

import torch
from torch import nn

# Elements per chunk: bounds the int64 scratch memory on the device to a few GiB.
CHUNK = 1 << 26

MASK = 0xFFFFFFFF
# Constants of a 32-bit mixer with low bias (github.com/skeeto/hash-prospector, "lowbias32" family).
# Both are below 2**31, so that their products with 32-bit values fit in int64.
MIX_1, MIX_2 = 0x21F0AAAD, 0x735A2D97

SUM_OF_BYTES_MEAN = 510
# Variance of one uniform byte is (256**2 - 1) / 12.
SUM_OF_BYTES_VARIANCE = 4 * (256**2 - 1) / 12


def _mix(x: torch.Tensor) -> torch.Tensor:
    x = x ^ (x >> 16)
    x = (x * MIX_1) & MASK
    x = x ^ (x >> 15)
    x = (x * MIX_2) & MASK
    return x ^ (x >> 15)


def _seeds(name: str) -> tuple[int, int]:
    digest = hashlib.sha256(name.encode()).digest()
    return int.from_bytes(digest[:4], "little"), int.from_bytes(digest[4:8], "little")


def _values(fan_in: int, gain: float, dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    """The 1021 values a weight can take, computed in float64 on the CPU and rounded once."""
    scale = gain * math.sqrt(1.0 / (fan_in * SUM_OF_BYTES_VARIANCE))
    values = [(total - SUM_OF_BYTES_MEAN) * scale for total in range(4 * 255 + 1)]
    return torch.tensor(values, dtype=torch.float64).to(dtype).to(device)


def _sums(name: str, start: int, stop: int, device: torch.device) -> torch.Tensor:
    """int64 sums of four hashed bytes, in [0, 1020], for the elements [start, stop) of `name`."""
    first, second = _seeds(name)
    index = torch.arange(start, stop, dtype=torch.int64, device=device)
    hashed = _mix((_mix(index ^ first) + second) & MASK)
    return (hashed & 255) + ((hashed >> 8) & 255) + ((hashed >> 16) & 255) + (hashed >> 24)


def fill(name: str, parameter: torch.Tensor, gain: float = 1.0) -> None:
    """Write `gain` times the synthetic weight called `name` into `parameter`, in place.

    `parameter` may have any dtype and device; vectors are not scaled.
    """
    if parameter.ndim < 2:
        parameter.fill_(0.0 if name.endswith("bias") else 1.0)
        return
    fan_in = parameter.numel() // parameter.shape[0]
    values = _values(fan_in, gain, parameter.dtype, parameter.device)
    flat = parameter.view(-1)
    for start in range(0, flat.numel(), CHUNK):
        stop = min(start + CHUNK, flat.numel())
        flat[start:stop] = values[_sums(name, start, stop, parameter.device)]


def signs(name: str, count: int, device: torch.device) -> torch.Tensor:
    """`count` values of -1 or 1 in float64: as the weights, a pure function of `name` and the index."""
    return 1.0 - 2.0 * (_sums(name, 0, count, device) & 1).double()


def _owners(module: nn.Module) -> Iterator[tuple[str, nn.Module, str, nn.Parameter]]:
    for prefix, owner in module.named_modules():
        for local, parameter in owner.named_parameters(recurse=False):
            yield f"{prefix}.{local}" if prefix else local, owner, local, parameter


def materialise(
    component: str,
    module: nn.Module,
    *,
    dtype: torch.dtype,
    device: torch.device,
    gains: Mapping[str, float] | None = None,
) -> None:
    """Replace the meta parameters of `module` with synthetic ones on `device`; buffers keep their values.

    `gains` is pattern of parameter names -> factor on their values; the first match counts.

    Shared parameters stay shared, and the first of their names decides their values. Float buffers that a
    checkpoint stores get `dtype`, as if loaded from one; computed buffers keep their own.
    """
    made: dict[int, nn.Parameter] = {}
    for name, owner, local, empty in list(_owners(module)):
        if id(empty) not in made:
            parameter = nn.Parameter(
                torch.empty(empty.shape, dtype=dtype, device=device), requires_grad=False
            )
            fill(f"{component}.{name}", parameter, gain=gain_of(name, gains or {}))
            made[id(empty)] = parameter
        owner.register_parameter(local, made[id(empty)])
    _cast_saved_buffers(module, dtype)
    # Moves the buffers.
    module.to(device=device)


def gain_of(name: str, gains: Mapping[str, float]) -> float:
    """The gain of the parameter `name`: that of the first pattern that matches, else 1."""
    return next((gain for pattern, gain in gains.items() if fnmatch.fnmatchcase(name, pattern)), 1.0)


def _cast_saved_buffers(module: nn.Module, dtype: torch.dtype) -> None:
    saved = module.state_dict().keys()
    for name, buffer in list(module.named_buffers()):
        if name in saved and buffer.is_floating_point():
            owner, _, local = name.rpartition(".")
            module.get_submodule(owner).register_buffer(local, buffer.to(dtype))


def sha256(tensor: torch.Tensor) -> str:
    """sha256 over the little-endian bytes of a contiguous copy of `tensor`."""
    data = tensor.detach().contiguous().cpu().view(torch.uint8)
    return hashlib.sha256(data.numpy().tobytes()).hexdigest()
