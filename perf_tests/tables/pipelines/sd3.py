"""TABLE: Stable Diffusion 3 pipelines."""

from __future__ import annotations

import dataclasses

from perf_tests.tables.lazy import Lazy, Value
from perf_tests.tables.pipelines.autoencoders import KL_FULL_SIZE, KL_MINI
from perf_tests.tables.pipelines.encoders import (
    CLIP_G_PROJECTED,
    CLIP_G_TOKENIZER,
    CLIP_L_PROJECTED,
    CLIP_MINI_TOKENIZER,
    CLIP_PROJECTED_MINI,
    CLIP_TOKENIZER,
    T5_MINI_TOKENIZER,
    T5_WIDE_MINI,
    T5_XXL,
)
from perf_tests.tables.pipelines.spec import (
    AnchorFloor,
    AnchorFloors,
    Module,
    PipelineSpec,
    Tokenizer,
    Workload,
)

SD3_VAE: dict[str, Value] = {
    "latent_channels": 16,
    "use_quant_conv": False,
    "use_post_quant_conv": False,
    "scaling_factor": 1.5305,
    "shift_factor": 0.0609,
}
SD3_MEDIUM = PipelineSpec(
    id="sd3-medium",
    family="sd3",
    cls="diffusers:StableDiffusion3Pipeline",
    repo="stabilityai/stable-diffusion-3-medium-diffusers",
    revision="ea42f8cef0f178587cf766dc8129abd379c90671",
    licence="https://huggingface.co/stabilityai/stable-diffusion-3-medium-diffusers",
    modules={
        "transformer": Module(
            cls="diffusers:SD3Transformer2DModel",
            config={
                "sample_size": 128,
                "patch_size": 2,
                "in_channels": 16,
                "out_channels": 16,
                "num_layers": 24,
                "attention_head_dim": 64,
                "num_attention_heads": 24,
                "joint_attention_dim": 4096,
                "caption_projection_dim": 1536,
                "pooled_projection_dim": 2048,
                "pos_embed_max_size": 192,
            },
        ),
        "vae": Module(cls="diffusers:AutoencoderKL", config={**KL_FULL_SIZE, **SD3_VAE}),
        "text_encoder": CLIP_L_PROJECTED,
        "text_encoder_2": CLIP_G_PROJECTED,
        "text_encoder_3": T5_XXL,
    },
    tokenizers={
        "tokenizer": CLIP_TOKENIZER,
        "tokenizer_2": CLIP_G_TOKENIZER,
        "tokenizer_3": Tokenizer(max_length=512, pad_token_id=0, eos_token_id=1),
    },
    scheduler=Lazy(target="diffusers:FlowMatchEulerDiscreteScheduler", kwargs={"shift": 3.0}),
    workload=Workload(
        height=1024,
        width=1024,
        steps=28,
        arguments={"guidance_scale": 7.0, "max_sequence_length": 256},
    ),
    batch_argument="num_images_per_prompt",
    output="images",
    blocks=("transformer_blocks",),
    encoder_calls={"text_encoder": 2, "text_encoder_2": 2, "text_encoder_3": 2},
    single_row=("*norm*.linear", "time_*embed*"),
)
SD3_MINI = dataclasses.replace(
    SD3_MEDIUM,
    id="sd3-mini",
    miniature_of=SD3_MEDIUM.id,
    anchor=AnchorFloors(
        embeds=AnchorFloor(low_db=38.6, measured_db="40.7 to 44.7"),
        answer=AnchorFloor(low_db=40.5, measured_db="41.3 to 41.9"),
        latents=AnchorFloor(low_db=32.3, measured_db="34.3 to 37.9"),
        picture=AnchorFloor(low_db=34.6, measured_db="36.7 to 38.1"),
    ),
    repo="perf-tests/sd3-mini",
    revision="d3" * 20,
    licence=None,
    modules={
        "transformer": SD3_MEDIUM.modules["transformer"].with_config(
            sample_size=16,
            num_layers=3,  # the last block is of another kind: it drops the text
            num_attention_heads=4,
            joint_attention_dim=128,
            caption_projection_dim=256,
            pooled_projection_dim=128,
            pos_embed_max_size=24,
        ),
        "vae": Module(cls="diffusers:AutoencoderKL", config={**KL_MINI, **SD3_VAE}),
        "text_encoder": CLIP_PROJECTED_MINI,
        "text_encoder_2": CLIP_PROJECTED_MINI,
        # As wide as both others side by side: the pipeline pads those to its width.
        "text_encoder_3": T5_WIDE_MINI,
    },
    tokenizers={
        "tokenizer": CLIP_MINI_TOKENIZER,
        "tokenizer_2": CLIP_MINI_TOKENIZER,
        "tokenizer_3": T5_MINI_TOKENIZER,
    },
    workload=Workload(
        height=128,
        width=128,
        steps=4,
        arguments={"guidance_scale": 7.0, "max_sequence_length": 64},
    ),
)
