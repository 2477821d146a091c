"""LoRA adapters beside the frozen Linear modules of a transformer.

Written here and not taken from `peft`: the stack under test does not need it, half of its adapters have no
gradient in the first step, and both sides of a comparison must start from the same bits.
"""

from __future__ import annotations

from typing import Final

import torch
import torch.nn.functional as F
from torch import nn

from perf_tests.tables.training.spec import Training
from perf_tests.worker.model import synthetic

UP_GAIN: Final = 0.1
"""On the weights of `up`: not 0, so that `down` has a gradient from the first step on, and small, so that the
answers are close to those without adapters."""


class LoraLinear(nn.Module):
    """A frozen Linear module, and what is added to its answers: `up @ down @ input`, both in float32."""

    def __init__(self, base: nn.Linear, rank: int) -> None:
        super().__init__()
        self.base = base
        device = base.weight.device
        self.down = nn.Parameter(torch.empty(rank, base.in_features, device=device))
        self.up = nn.Parameter(torch.empty(base.out_features, rank, device=device))

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """The answers of both, computed in the dtype of the inputs, as under autocast."""
        dtype = inputs.dtype
        low = F.linear(inputs, self.down.to(dtype))
        answer: torch.Tensor = self.base(inputs) + F.linear(low, self.up.to(dtype))
        return answer


class Adapters:
    """All adapters of one transformer."""

    def __init__(self, transformer: nn.Module, training: Training) -> None:
        """Add an adapter to each Linear module that `training` names. The others stay as they are."""
        self._transformer = transformer
        self._layers: dict[str, LoraLinear] = {}
        for name, module in list(transformer.named_modules()):
            if isinstance(module, nn.Linear) and training.is_adapted(name):
                self._layers[name] = LoraLinear(module, training.rank)
                transformer.set_submodule(name, self._layers[name])
        self.reset()

    @property
    def parameters(self) -> dict[str, nn.Parameter]:
        """What is trained, by qualified name."""
        return {
            f"{name}.{local}": parameter
            for name, layer in self._layers.items()
            for local, parameter in (("down", layer.down), ("up", layer.up))
        }

    @property
    def dtypes(self) -> tuple[str, ...]:
        """All that they have, such as `float32`."""
        return tuple(sorted({str(each.dtype).removeprefix("torch.") for each in self.parameters.values()}))

    @torch.no_grad()
    def reset(self) -> None:
        """Start again: each value is a function of its name and index, as those of synthetic weights."""
        for name, parameter in self.parameters.items():
            synthetic.fill(f"lora.{name}", parameter, gain=UP_GAIN if name.endswith(".up") else 1.0)
            parameter.grad = None

    def gradients(self) -> torch.Tensor:
        """All of them as one vector on the host; 0 where there is none."""
        found = (
            torch.zeros_like(each) if each.grad is None else each.grad for each in self.parameters.values()
        )
        return torch.cat([gradient.detach().flatten().float().cpu() for gradient in found])

    def without_gradient(self) -> tuple[str, ...]:
        """Names of those whose gradient is missing, zero or not finite."""
        return tuple(name for name, each in self.parameters.items() if not _is_trained_by(each.grad))

    def remove(self) -> None:
        """Put back the Linear modules."""
        for name, layer in self._layers.items():
            self._transformer.set_submodule(name, layer.base)
        self._layers = {}


def _is_trained_by(gradient: torch.Tensor | None) -> bool:
    return gradient is not None and bool(gradient.isfinite().all()) and bool(gradient.any())
