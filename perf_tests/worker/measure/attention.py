"""Counts calls of attention, whichever kernel carries them out."""

from __future__ import annotations

from typing import Any

from torch.nn import functional
from torch.overrides import TorchFunctionMode


class AttentionCalls(TorchFunctionMode):
    """Counts calls of `scaled_dot_product_attention`, by any kernel; sees eager code only."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Count `func` if it is attention, and call it."""
        self.count += func is functional.scaled_dot_product_attention
        return func(*args, **(kwargs or {}))
