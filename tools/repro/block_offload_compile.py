"""Blocks with torchao weights that are offloaded and compiled cannot be called.

    python tools/repro/block_offload_compile.py           # a bf16 FLUX beside an int8wo one
    python tools/repro/block_offload_compile.py --refused # one line of JSON

diffusers' group offloading moves torchao weights by `torch.utils.swap_tensors`, which refuses a tensor with
weak references to it; dynamo leaves some behind where it starts tracing a block again. Backend `eager`, so
that only dynamo takes part; from CPU to CPU, so that it needs no GPU. Workaround:
`offload_type="leaf_level"`.
"""

from __future__ import annotations

import argparse
import json
from typing import Any

SYMPTOM = "Cannot swap t1 because it has weakref"
TOKENS, WIDTH = 16, 32


def main() -> None:
    """Print which of the two models can be called."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--refused", action="store_true")
    arguments = parser.parse_args()
    plain, quantized = refused(quantize=False), refused(quantize=True)
    if arguments.refused:
        print(json.dumps({"refused": int(quantized), "bf16": int(plain)}))
        return
    print(f"bf16:   {SYMPTOM if plain else 'works'}\nint8wo: {SYMPTOM if quantized else 'works'}")


def refused(*, quantize: bool) -> bool:
    """Whether the first or the second call fails to swap a weight; any other error is raised."""
    import torch
    from torchao.quantization import Int8WeightOnlyConfig, quantize_

    torch._dynamo.reset()
    model = _transformer()
    if quantize:
        quantize_(model, Int8WeightOnlyConfig(set_inductor_config=False))
    cpu = torch.device("cpu")
    model.enable_group_offload(
        onload_device=cpu, offload_device=cpu, offload_type="block_level", num_blocks_per_group=1
    )
    model.compile_repeated_blocks(backend="eager", dynamic=False)
    try:
        with torch.no_grad():
            for _ in range(2):
                model(**_inputs())
    except RuntimeError as error:
        if SYMPTOM not in str(error.__cause__):
            raise
        return True
    return False


def _transformer() -> Any:
    import torch
    from diffusers import FluxTransformer2DModel

    model: Any = FluxTransformer2DModel(
        in_channels=4,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=32,
        num_attention_heads=2,
        joint_attention_dim=WIDTH,
        pooled_projection_dim=WIDTH,
        axes_dims_rope=(8, 12, 12),
    )
    return model.to(torch.bfloat16).eval().requires_grad_(False)


def _inputs() -> dict[str, Any]:
    import torch

    return {
        "hidden_states": torch.ones(1, TOKENS, 4, dtype=torch.bfloat16),
        "encoder_hidden_states": torch.ones(1, TOKENS, WIDTH, dtype=torch.bfloat16),
        "pooled_projections": torch.ones(1, WIDTH, dtype=torch.bfloat16),
        "timestep": torch.ones(1, dtype=torch.bfloat16),
        "img_ids": torch.zeros(TOKENS, 3),
        "txt_ids": torch.zeros(TOKENS, 3),
        "return_dict": False,
    }


if __name__ == "__main__":
    main()
