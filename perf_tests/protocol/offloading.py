"""What a worker reports of where weights are: of a pipeline that keeps less than all of itself on the device,
and of a model that is only quantized and moved."""

from __future__ import annotations

from perf_tests.protocol.base import Struct


class OffloadedComponent(Struct):
    """Where the weights of one component are at one moment, and what moves them."""

    hooks: dict[str, int]
    """Class of hooks that move weights -> how many modules have one."""
    unmoved_bytes: int
    """Of the weights that no such hook moves."""
    bytes_on: dict[str, int]
    """Type of device -> bytes of the weights that are there; `meta` for those that only hooks hold."""


class MemorySaving(Struct):
    """How a recipe that saves memory was carried out."""

    set_up: dict[str, OffloadedComponent]
    """By component, before the first generation; empty where nothing is offloaded."""
    final: dict[str, OffloadedComponent]
    """After the last timed generation; empty where nothing is offloaded."""
    decodes: dict[str, int]
    """Method of the VAE -> how often one generation called it: `decode`, `_decode` for each part of a batch,
    and `tiled_decode`. Without methods that the VAE does not have."""


class Placement(Struct):
    """Where the parameters and buffers of a model are, before and after; bytes of tensor subclasses are those
    of their inner tensors."""

    device: str
    """Type of the device that all of them are to end on."""
    before: dict[str, int]
    """Type of device -> bytes that were there before anything was quantized."""
    after: dict[str, int]
    """Type of device -> bytes that are there after the last answer."""
    plain: dict[str, int]
    """Class of modules -> how many have parameters of their own, none of them quantized."""
