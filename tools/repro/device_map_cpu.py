"""`device_map={"": "cpu"}` quantizes nothing, and nobody is told.

    python tools/repro/device_map_cpu.py          # without a map, with this one, and with "cpu"
    python tools/repro/device_map_cpu.py --plain  # one line of JSON

diffusers takes a dictionary with "cpu" for a model that is to be offloaded, and leaves weights that are to be
offloaded unquantized. `device_map="cpu"` and no map at all quantize every layer. Needs no GPU.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from typing import Any

MAPS: tuple[str | dict[str, str] | None, ...] = (None, {"": "cpu"}, "cpu")


def main() -> None:
    """Print how many layers each map leaves unquantized."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--plain", action="store_true")
    arguments = parser.parse_args()
    found = [plain_share(device_map) for device_map in MAPS]
    if arguments.plain:
        without, dictionary, text = found
        print(json.dumps({"plain": dictionary, "without_map": without, "as_text": text}))
        return
    for device_map, share in zip(MAPS, found, strict=True):
        print(f"device_map={device_map!r}: {100 * share:g} % of the linear layers are not quantized")


def plain_share(device_map: str | dict[str, str] | None) -> float:
    """The share of linear layers whose weights are plain tensors after loading with an int8wo config."""
    import torch
    from diffusers import FluxTransformer2DModel, TorchAoConfig
    from torch import nn
    from torchao.quantization import Int8WeightOnlyConfig
    from torchao.utils import TorchAOBaseTensor

    config = TorchAoConfig(Int8WeightOnlyConfig(set_inductor_config=False))
    model: Any = FluxTransformer2DModel(
        in_channels=4,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=32,
        num_attention_heads=2,
        joint_attention_dim=32,
        pooled_projection_dim=32,
        axes_dims_rope=(8, 12, 12),
    )
    with tempfile.TemporaryDirectory() as folder:
        model.to(torch.bfloat16).save_pretrained(folder)
        loaded: Any = FluxTransformer2DModel.from_pretrained(
            folder, torch_dtype=torch.bfloat16, quantization_config=config, device_map=device_map
        )
    layers = [module for module in loaded.modules() if isinstance(module, nn.Linear)]
    return sum(not isinstance(layer.weight, TorchAOBaseTensor) for layer in layers) / len(layers)


if __name__ == "__main__":
    main()
