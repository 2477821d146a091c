"""What torch is asked about the device while the stack is imported, answered without a CUDA context.

torchao's formats of microscaling, which transformers imports, ask for the compute capability, and so does
whatever asks torch whether it has Triton. torch makes a context to answer, which would take half a GiB of a
card that another worker is measured on.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import torch

# dynamo keeps functions of torch.cuda in tables, where they must be torch's own.
import torch._dynamo.device_interface as device_interface

Capability = tuple[int, int]


class Properties:
    """The compute capability of a device; for everything else torch is asked, which makes a context."""

    def __init__(self, device: Any, capability: Capability) -> None:
        self._device = device
        self.major, self.minor = capability

    def __getattr__(self, name: str) -> Any:
        return getattr(GET_PROPERTIES(self._device), name)


ASK_NVML = "PYTORCH_NVML_BASED_CUDA_CHECK"
"""Environment variable: with 1 torch asks NVML whether there is a GPU, and not the CUDA runtime, which would
open the driver as only processes do that compute."""
GET_PROPERTIES = torch.cuda.get_device_properties
CURRENT_DEVICE = torch.cuda.current_device


@contextmanager
def answered(capability: Capability | None) -> Iterator[None]:
    """While the visible devices, which are all alike, are said to have `capability`, and the first of them to
    be the current one; None where it is not known, and torch finds out for itself."""
    known = capability

    def get_device_properties(device: Any = None) -> Any:
        return GET_PROPERTIES(device) if known is None else Properties(device, known)

    def current_device() -> int:
        return CURRENT_DEVICE() if known is None else 0

    torch.cuda.get_device_properties = get_device_properties
    torch.cuda.current_device = current_device
    before = os.environ.get(ASK_NVML)
    if known is not None:
        os.environ[ASK_NVML] = "1"
    try:
        yield
    finally:
        os.environ.pop(ASK_NVML, None)
        os.environ.update({} if before is None else {ASK_NVML: before})
        known = None  # for modules that have kept one of the two functions
        torch.cuda.get_device_properties = GET_PROPERTIES
        torch.cuda.current_device = CURRENT_DEVICE
        with suppress(AttributeError):  # private; inductor asks it for more than the capability
            device_interface.caching_worker_device_properties.clear()
