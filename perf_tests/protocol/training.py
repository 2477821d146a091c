"""What a worker reports of training: which layers were converted, which adapters were trained, what ran."""

from __future__ import annotations

from perf_tests.protocol.base import Struct


class Float8Kernels(Struct):
    """What carried out the float8 products of one step: kernels of a GPU, or operators of a CPU."""

    forward: dict[str, int]
    """Name -> how often it ran."""
    backward: dict[str, int]
    """As `forward`; with checkpointing, it holds the products of the blocks that are computed again."""


class TrainingReport(Struct):
    """What was trained by the process, and how; names are qualified names in the transformer."""

    expected_float8: int
    """Linear modules that the recipe converts, counted before anything was converted."""
    float8: int
    """Linear modules that multiply in float8."""
    wrong_linears: tuple[str, ...]
    """Linear modules that multiply in float8 and should not, and the reverse."""
    adapters: int
    """Tensors that are trained."""
    adapter_dtypes: tuple[str, ...]
    idle_adapters: tuple[str, ...]
    """Adapters whose gradient in a step was missing, zero or not finite, or that the optimizer left alone."""
    frozen: int
    """Tensors that are not trained."""
    frozen_sha256: tuple[str, str]
    """Of all of them together, before the first step and after the last."""
    changed: tuple[str, ...]
    """Those whose own hash is no longer the same."""
    kernels: Float8Kernels | None
    """None where they were not recorded."""
