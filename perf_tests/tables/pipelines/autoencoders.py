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
# Few: a processor without bf16 instructions takes a hundred times as long for a convolution in bf16 as in
# fp32, and with 32 channels a miniature's time would show nothing else.
KL_MINI: dict[str, Value] = {
    **KL_BLOCKS,
    "block_out_channels": (8, 8, 8, 8),
    "norm_num_groups": 4,
    "layers_per_block": 1,
    "sample_size": 128,
}
SDXL_VAE = Module(
    cls="diffusers:AutoencoderKL",
    config={**KL_FULL_SIZE, "latent_channels": 4, "scaling_factor": 0.13025},
)
SDXL_VAE_MINI = SDXL_VAE.with_config(**KL_MINI)
