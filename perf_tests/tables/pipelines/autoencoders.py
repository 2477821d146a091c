"""TABLE: image autoencoders that several pipelines share."""

from __future__ import annotations

from perf_tests.tables.lazy import Value
from perf_tests.tables.pipelines.spec import Module

KL_BLOCKS: dict[str, Value] = {
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
}
KL_FULL_SIZE: dict[str, Value] = {
    **KL_BLOCKS,
    "block_out_channels": (128, 256, 512, 512),
    "layers_per_block": 2,
    "sample_size": 1024,
}
KL_MINI: dict[str, Value] = {
    **KL_BLOCKS,
    "block_out_channels": (32, 32, 32, 32),
    "layers_per_block": 1,
    "sample_size": 128,
}
SDXL_VAE = Module(
    cls="diffusers:AutoencoderKL",
    config={**KL_FULL_SIZE, "latent_channels": 4, "scaling_factor": 0.13025},
)
SDXL_VAE_MINI = SDXL_VAE.with_config(**KL_MINI)
