"""Layerwise casting leaves quantized weights as they are, and nobody is told.

    python tools/repro/layerwise_casting.py             # a bf16 layer beside an int8wo one
    python tools/repro/layerwise_casting.py --unchanged # one line of JSON

diffusers' layerwise casting stores weights in float8 between calls by `Module.to(dtype)`. A torchao tensor
takes the dtype for what it computes in, and keeps its bytes: nothing is saved. Only the bias is cast. Needs
no GPU.
"""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch  # else where it is needed, so that --help is quick

WIDTH = 64


def main() -> None:
    """Print the bytes of a weight before and after layerwise casting."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--unchanged", action="store_true")
    arguments = parser.parse_args()
    plain, quantized = weight_bytes(quantize=False), weight_bytes(quantize=True)
    if arguments.unchanged:
        print(json.dumps({"unchanged": int(quantized[0] == quantized[1]), "bf16": int(plain[0] == plain[1])}))
        return
    print("bf16:   {} bytes, {} after layerwise casting".format(*plain))
    print("int8wo: {} bytes, {} after layerwise casting".format(*quantized))


def weight_bytes(*, quantize: bool) -> tuple[int, int]:
    """Bytes of a layer's weight before and after layerwise casting to float8."""
    import torch
    from diffusers.hooks.layerwise_casting import apply_layerwise_casting
    from torch import nn
    from torchao.quantization import Int8WeightOnlyConfig, quantize_

    layer = nn.Linear(WIDTH, WIDTH)
    model = nn.Sequential(layer).to(torch.bfloat16).requires_grad_(False)
    if quantize:
        quantize_(model, Int8WeightOnlyConfig(set_inductor_config=False))
    before = _stored_bytes(layer.weight)
    apply_layerwise_casting(model, storage_dtype=torch.float8_e4m3fn, compute_dtype=torch.bfloat16)
    model(torch.ones(1, WIDTH, dtype=torch.bfloat16))
    return before, _stored_bytes(layer.weight)


def _stored_bytes(weight: torch.Tensor) -> int:
    """Those of the tensors inside a torchao tensor, whose own are made up."""
    subclass: Any = weight
    if not hasattr(subclass, "__tensor_flatten__"):
        return weight.nbytes
    return sum(getattr(subclass, name).nbytes for name in subclass.__tensor_flatten__()[0])


if __name__ == "__main__":
    main()
