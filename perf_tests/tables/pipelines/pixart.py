"""TABLE: PixArt pipelines."""

from __future__ import annotations

import dataclasses

from perf_tests.tables.lazy import Lazy, Value
from perf_tests.tables.pipelines.autoencoders import SDXL_VAE, SDXL_VAE_MINI
from perf_tests.tables.pipelines.encoders import T5_MINI_TOKENIZER, T5_WIDE_MINI, T5_XXL
from perf_tests.tables.pipelines.spec import (
    AnchorFloor,
    AnchorFloors,
    Module,
    PipelineSpec,
    Tokenizer,
    Workload,
)

PIXART_ARGUMENTS: dict[str, Value] = {
    "guidance_scale": 4.5,
    "clean_caption": False,  # needs two HTML libraries, and changes the prompt only
    "use_resolution_binning": False,  # the picture is of the size that is asked for
}
PIXART_SIGMA = PipelineSpec(
    id="pixart-sigma",
    family="pixart",
    cls="diffusers:PixArtSigmaPipeline",
    repo="PixArt-alpha/PixArt-Sigma-XL-2-1024-MS",
    revision="e102b3591cc82e97071b8b4cb90d834d0c487207",
    licence=None,
    modules={
        "transformer": Module(
            cls="diffusers:PixArtTransformer2DModel",
            config={
                "num_attention_heads": 16,
                "attention_head_dim": 72,
                "in_channels": 4,
                "out_channels": 8,
                "num_layers": 28,
                "cross_attention_dim": 1152,
                "attention_bias": True,
                "sample_size": 128,
                "patch_size": 2,
                "norm_type": "ada_norm_single",
                "caption_channels": 4096,
                "interpolation_scale": 2,
                "use_additional_conditions": False,
            },
        ),
        "vae": SDXL_VAE,
        "text_encoder": T5_XXL,
    },
    tokenizers={"tokenizer": Tokenizer(max_length=300, pad_token_id=0, eos_token_id=1)},
    scheduler=Lazy(
        target="diffusers:DPMSolverMultistepScheduler",
        kwargs={
            "beta_start": 0.0001,
            "beta_end": 0.02,
            "beta_schedule": "linear",
            "prediction_type": "epsilon",
            "algorithm_type": "dpmsolver++",
            "solver_order": 2,
            "solver_type": "midpoint",
            "lower_order_final": True,
            "timestep_spacing": "linspace",
        },
    ),
    workload=Workload(
        height=1024,
        width=1024,
        steps=20,
        arguments={**PIXART_ARGUMENTS, "max_sequence_length": 300},
    ),
    batch_argument="num_images_per_prompt",
    output="images",
    blocks=("transformer_blocks",),
    encoder_calls={"text_encoder": 2},
    single_row=("adaln_single.*",),
)
PIXART_MINI = dataclasses.replace(
    PIXART_SIGMA,
    id="pixart-mini",
    miniature_of=PIXART_SIGMA.id,
    anchor=AnchorFloors(
        embeds=AnchorFloor(low_db=38.8, measured_db="40.8 to 42.8"),
        answer=AnchorFloor(low_db=41.5, measured_db="42.3 to 42.4"),
        latents=AnchorFloor(low_db=31.7, measured_db="33.7 to 35.4"),
        picture=AnchorFloor(low_db=37.0, measured_db="39.1 to 39.8"),
    ),
    repo="perf-tests/pixart-mini",
    revision="a5" * 20,
    modules={
        "transformer": PIXART_SIGMA.modules["transformer"].with_config(
            num_attention_heads=4,
            attention_head_dim=64,
            num_layers=3,
            cross_attention_dim=256,
            sample_size=16,
            caption_channels=128,
            interpolation_scale=1,
        ),
        "vae": SDXL_VAE_MINI,
        "text_encoder": T5_WIDE_MINI,
    },
    tokenizers={"tokenizer": T5_MINI_TOKENIZER},
    workload=Workload(
        height=128,
        width=128,
        steps=4,
        arguments={**PIXART_ARGUMENTS, "max_sequence_length": 64},
    ),
)
