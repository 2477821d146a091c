"""Adapters over int8dq layers get no gradient, and nobody is told.

    python tools/repro/lora_int8dq.py                     # over int8wo and over int8dq
    python tools/repro/lora_int8dq.py --without_gradient  # one line of JSON

The attention layers of a small FLUX are quantized; q, k and v of each get a LoRA adapter of two matrices: 36
in all. The output of an int8dq layer does not require a gradient, whatever its input does, so the 12 matrices
whose only way out is the quantized `to_out` of a double block are left without one, while the loss still has
one from the others. Needs no GPU.
"""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch  # else where it is needed, so that --help is quick

RANK = 8
ADAPTED = ("to_q", "to_k", "to_v")
IMAGE_TOKENS, TEXT_TOKENS, WIDTH = 64, 32, 32
MATRICES = 36


def main() -> None:
    """Print how many matrices of adapters are left without a gradient."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--without_gradient", action="store_true")
    arguments = parser.parse_args()
    int8wo = without_gradient("Int8WeightOnlyConfig")
    int8dq = without_gradient("Int8DynamicActivationInt8WeightConfig")
    if arguments.without_gradient:
        print(json.dumps({"without_gradient": int8dq, "int8wo": int8wo}))
        return
    print(f"int8wo: {int8wo} of {MATRICES} without a gradient\nint8dq: {int8dq} of {MATRICES}")


def without_gradient(config: str) -> int:
    """Matrices of adapters without a gradient after a step over layers quantized as `config` says."""
    import torch
    from torch import nn
    from torchao import quantization

    model = _transformer()
    quantization.quantize_(
        model,
        getattr(quantization, config)(set_inductor_config=False),
        filter_fn=lambda module, name: isinstance(module, nn.Linear) and ".attn." in name,
    )
    matrices = [matrix for layer in _adapted_layers(model) for matrix in _adapt(layer)]
    assert len(matrices) == MATRICES
    torch.manual_seed(0)
    model(**_inputs())[0].float().square().mean().backward()
    return sum(matrix.grad is None for matrix in matrices)


def _transformer() -> Any:
    import torch
    from diffusers import FluxTransformer2DModel

    model: Any = FluxTransformer2DModel(
        in_channels=4,
        num_layers=2,
        num_single_layers=4,
        attention_head_dim=32,
        num_attention_heads=2,
        joint_attention_dim=WIDTH,
        pooled_projection_dim=WIDTH,
        axes_dims_rope=(8, 12, 12),
    )
    return model.to(torch.bfloat16).requires_grad_(False)


def _adapted_layers(model: Any) -> list[Any]:
    return [module for name, module in model.named_modules() if name.endswith(ADAPTED)]


def _adapt(layer: Any) -> list[torch.Tensor]:
    """Add an adapter to what `layer` returns; both are random, as zeros would take the other's gradient."""
    import torch
    from torch.nn import functional

    down, up = (
        (0.1 * torch.randn(shape, dtype=torch.bfloat16)).requires_grad_()
        for shape in ((RANK, layer.in_features), (layer.out_features, RANK))
    )
    layer.register_forward_hook(
        lambda _layer, given, answer: answer + functional.linear(functional.linear(given[0], down), up)
    )
    return [down, up]


def _inputs() -> dict[str, Any]:
    import torch

    return {
        "hidden_states": torch.randn(1, IMAGE_TOKENS, 4, dtype=torch.bfloat16),
        "encoder_hidden_states": torch.randn(1, TEXT_TOKENS, WIDTH, dtype=torch.bfloat16),
        "pooled_projections": torch.randn(1, WIDTH, dtype=torch.bfloat16),
        "timestep": torch.ones(1, dtype=torch.bfloat16),
        "img_ids": torch.zeros(IMAGE_TOKENS, 3),
        "txt_ids": torch.zeros(TEXT_TOKENS, 3),
        "return_dict": False,
    }


if __name__ == "__main__":
    main()
