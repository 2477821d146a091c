"""A model quantized by `quantize_` cannot be saved with the defaults of `save_pretrained`.

    python tools/repro/save_quantized.py           # as safetensors, which is the default, and as a pickle
    python tools/repro/save_quantized.py --refused # one line of JSON

diffusers flattens torchao tensors for safetensors only where the model was quantized by diffusers itself,
which leaves an `hf_quantizer` behind. Without it, the address of each tensor's storage is asked for, and
torchao's have none. Workarounds: `safe_serialization=False`, or `from_pretrained(quantization_config=...)`.
Needs no GPU.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from typing import Any

SYMPTOM = "invalid python storage"


def main() -> None:
    """Print which of the two ways to save a quantized model is refused."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--refused", action="store_true")
    arguments = parser.parse_args()
    as_safetensors, as_pickle = refused(), refused(safe_serialization=False)
    if arguments.refused:
        print(json.dumps({"refused": int(as_safetensors), "as_pickle": int(as_pickle)}))
        return
    print(f"safetensors: {'refused' if as_safetensors else 'saved'}")
    print(f"pickle:      {'refused' if as_pickle else 'saved'}")


def refused(**options: Any) -> bool:
    """Whether `save_pretrained` fails with the storage's address; any other error is raised."""
    import torch
    from diffusers import FluxTransformer2DModel
    from torchao.quantization import Int8WeightOnlyConfig, quantize_

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
    quantize_(model.to(torch.bfloat16), Int8WeightOnlyConfig(set_inductor_config=False))
    with tempfile.TemporaryDirectory() as folder:
        try:
            model.save_pretrained(folder, **options)
        except RuntimeError as error:
            if SYMPTOM not in str(error):
                raise
            return True
    return False


if __name__ == "__main__":
    main()
