"""TaylorSeer caches nothing of CogVideoX, and nobody is told.

    python tools/repro/taylorseer_cogvideox.py            # attention layers of FLUX and of CogVideoX
    python tools/repro/taylorseer_cogvideox.py --uncached # one line of JSON

The patterns that diffusers' TaylorSeer looks for by default must match a whole name and end in `attn`; the
layers of CogVideoX are called `attn1`. `cache_identifiers=[r"^transformer_blocks.*attn1"]` finds them. Needs
no GPU.
"""

from __future__ import annotations

import argparse
import json
from typing import Any

LAYERS = 2
FLUX = {
    "in_channels": 4,
    "num_layers": LAYERS,
    "num_single_layers": 0,
    "attention_head_dim": 32,
    "num_attention_heads": 2,
    "joint_attention_dim": 32,
    "pooled_projection_dim": 32,
    "axes_dims_rope": (8, 12, 12),
}
COGVIDEOX = {
    "in_channels": 4,
    "out_channels": 4,
    "num_layers": LAYERS,
    "num_attention_heads": 2,
    "attention_head_dim": 16,
    "text_embed_dim": 32,
    "time_embed_dim": 32,
    "sample_width": 8,
    "sample_height": 8,
    "sample_frames": 5,
    "max_text_seq_length": 8,
}


def main() -> None:
    """Print how many attention layers are not cached."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--uncached", action="store_true")
    arguments = parser.parse_args()
    flux = uncached("FluxTransformer2DModel", FLUX)
    cogvideox = uncached("CogVideoXTransformer3DModel", COGVIDEOX)
    if arguments.uncached:
        print(json.dumps({"uncached": cogvideox, "flux": flux}))
        return
    print(
        f"FLUX:      {flux} of {LAYERS} attention layers are not cached\nCogVideoX: {cogvideox} of {LAYERS}"
    )


def uncached(cls: str, config: dict[str, Any]) -> int:
    """Attention layers that TaylorSeer leaves as they were."""
    import diffusers
    from diffusers.hooks.taylorseer_cache import _TAYLORSEER_CACHE_HOOK

    model: Any = getattr(diffusers, cls)(**config)
    model.enable_cache(diffusers.TaylorSeerCacheConfig(cache_interval=2))
    layers = [module for module in model.modules() if type(module).__name__.endswith("Attention")]
    assert len(layers) == LAYERS
    registries = (getattr(layer, "_diffusers_hook", None) for layer in layers)
    return sum(
        registry is None or registry.get_hook(_TAYLORSEER_CACHE_HOOK) is None for registry in registries
    )


if __name__ == "__main__":
    main()
