"""What training a pipeline's transformer means: a LoRA step, whose frozen layers may multiply in float8."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import StrEnum
from fnmatch import fnmatchcase
from typing import Final

from perf_tests.tables.digest_fields import NEVER, UNLESS_DEFAULT

FLOAT8_MULTIPLE: Final = 16
"""What must divide both sizes of a Linear module for the float8 products of a GPU to take it."""


class Float8Recipe(StrEnum):
    """How `convert_to_float8_training` of torchao scales what it multiplies."""

    TENSORWISE = "tensorwise"
    """One scale for each tensor; gradients in e5m2."""
    ROWWISE = "rowwise"
    """One scale for each row, a power of two; gradients in e4m3."""


FLOAT8_NAMES = {Float8Recipe.TENSORWISE: "fp8tensor", Float8Recipe.ROWWISE: "fp8row"}
"""How a recipe's id names each."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Training:
    """LoRA training of a transformer whose own weights stay frozen."""

    float8: Float8Recipe | None = None
    """What the products of the frozen Linear modules are computed in; None: in the scheme's dtype."""
    checkpointing: bool = False
    """Compute the answers of each block again for its gradients, instead of keeping them."""
    cudnn_attention: bool = field(default=True, metadata=UNLESS_DEFAULT)
    """Whether PyTorch may compute attention and its gradients with cuDNN."""
    rank: int = 16
    learning_rate: float = 1e-4
    steps: int = 8
    """Optimizer steps of one seed: what a sample is."""
    adapted: tuple[str, ...] = ("*.attn.to_q", "*.attn.to_k", "*.attn.to_v", "*.attn.to_out.0")
    """Linear modules with an adapter: patterns (`fnmatch`) of their qualified names."""
    unconverted: dict[str, str] = field(
        default_factory=lambda: {"proj_out": "its error is that of the output, undiluted"}
    )
    """Linear modules that stay in the scheme's dtype under any `float8`: pattern -> reason."""
    largest_loss_difference_pct: float = field(default=3.0, metadata=NEVER)
    """How far the loss over all steps may lie from that of bf16."""

    @property
    def id(self) -> str:
        """What a recipe's id says of it; never parsed back."""
        precision = () if self.float8 is None else (FLOAT8_NAMES[self.float8],)
        return "-".join(("lora", *precision, *(["ckpt"] if self.checkpointing else [])))

    @property
    def in_bf16(self) -> Training:
        """The same steps without float8, which speed-up is measured against."""
        return replace(self, float8=None)

    def is_adapted(self, name: str) -> bool:
        """Whether the Linear module with this qualified name gets an adapter."""
        return any(fnmatchcase(name, pattern) for pattern in self.adapted)

    def is_converted(self, name: str, in_features: int, out_features: int) -> bool:
        """Whether the Linear module with this qualified name and these sizes is to multiply in float8."""
        fits = in_features % FLOAT8_MULTIPLE == 0 and out_features % FLOAT8_MULTIPLE == 0
        left_out = any(fnmatchcase(name, pattern) for pattern in self.unconverted)
        return self.float8 is not None and fits and not left_out
