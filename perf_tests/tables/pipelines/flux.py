"""TABLE: FLUX pipelines."""

from __future__ import annotations

import dataclasses

from perf_tests.tables.lazy import Lazy, Value
from perf_tests.tables.pipelines.autoencoders import KL_FULL_SIZE, KL_MINI
from perf_tests.tables.pipelines.encoders import (
    CLIP_L,
    CLIP_MINI,
    CLIP_MINI_TOKENIZER,
    CLIP_TOKENIZER,
    T5_MINI,
    T5_MINI_TOKENIZER,
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

FLUX_VAE: dict[str, Value] = {
    "use_quant_conv": False,
    "use_post_quant_conv": False,
    "scaling_factor": 0.3611,
    "shift_factor": 0.1159,
    "force_upcast": False,
}
FLUX_SCHEDULER = Lazy(
    target="diffusers:FlowMatchEulerDiscreteScheduler",
    kwargs={
        "shift": 3.0,
        "use_dynamic_shifting": True,
        "base_shift": 0.5,
        "max_shift": 1.15,
        "base_image_seq_len": 256,
        "max_image_seq_len": 4096,
    },
)
FLUX_SCHNELL_SCHEDULER = dataclasses.replace(
    FLUX_SCHEDULER, kwargs={**FLUX_SCHEDULER.kwargs, "shift": 1.0, "use_dynamic_shifting": False}
)
FLUX1_DEV = PipelineSpec(
    id="flux1-dev",
    family="flux",
    cls="diffusers:FluxPipeline",
    repo="black-forest-labs/FLUX.1-dev",
    revision="3de623fc3c33e44ffbe2bad470d0f45bccf2eb21",
    licence="https://huggingface.co/black-forest-labs/FLUX.1-dev",
    modules={
        "transformer": Module(
            cls="diffusers:FluxTransformer2DModel",
            config={
                "patch_size": 1,
                "in_channels": 64,
                "num_layers": 19,
                "num_single_layers": 38,
                "attention_head_dim": 128,
                "num_attention_heads": 24,
                "joint_attention_dim": 4096,
                "pooled_projection_dim": 768,
                "guidance_embeds": True,
                "axes_dims_rope": (16, 56, 56),
            },
        ),
        "vae": Module(
            cls="diffusers:AutoencoderKL",
            config={**FLUX_VAE, **KL_FULL_SIZE, "latent_channels": 16},
        ),
        "text_encoder": CLIP_L,
        # Without the gains, which came after its first baselines; its texts do not survive a change of dtype.
        "text_encoder_2": dataclasses.replace(T5_XXL, gains={}),
    },
    tokenizers={
        "tokenizer": CLIP_TOKENIZER,
        "tokenizer_2": Tokenizer(max_length=512, pad_token_id=0, eos_token_id=1),
    },
    scheduler=FLUX_SCHEDULER,
    workload=Workload(
        height=1024,
        width=1024,
        steps=28,
        arguments={"guidance_scale": 3.5, "max_sequence_length": 512},
    ),
    batch_argument="num_images_per_prompt",
    output="images",
    blocks=("transformer_blocks", "single_transformer_blocks"),
    encoder_calls={"text_encoder": 1, "text_encoder_2": 1},
    single_row=("*norm*.linear", "time_*embed*"),
    batch_measured_steps=6,
)
FLUX1_SCHNELL = dataclasses.replace(
    FLUX1_DEV,
    id="flux1-schnell",
    repo="black-forest-labs/FLUX.1-schnell",
    revision="741f7c3ce8b383c54771c7003378a50191e9efe9",
    licence=None,
    modules={
        **FLUX1_DEV.modules,
        "transformer": FLUX1_DEV.modules["transformer"].with_config(guidance_embeds=False),
        "text_encoder_2": T5_XXL,
    },
    scheduler=FLUX_SCHNELL_SCHEDULER,
    workload=dataclasses.replace(
        FLUX1_DEV.workload, steps=4, arguments={"guidance_scale": 0.0, "max_sequence_length": 256}
    ),
)
# Every layer as wide as in FLUX.1-dev, a tenth of the blocks: a step has the kernels of a real one, and a
# fresh process takes seconds. For what needs many processes: the noise of a platform, A/B, fire drills.
FLUX1_DEV_SLIM = dataclasses.replace(
    FLUX1_DEV,
    id="flux1-dev-slim",
    anchor=AnchorFloors(
        # All but the first answer are estimates, until an H100 has measured them.
        embeds=AnchorFloor(low_db=38.2, measured_db="40.3 (H100)"),
        answer=AnchorFloor(low_db=37.0, measured_db="38.6 (CPU) and 39.2 (H100)"),
        latents=AnchorFloor(low_db=39.8, measured_db="41.8 (H100)"),
        picture=AnchorFloor(low_db=41.4, measured_db="43.4 (H100)"),
    ),
    repo="perf-tests/flux1-dev-slim",
    revision="f6" * 20,
    licence=None,
    modules={
        **FLUX1_DEV.modules,
        "transformer": FLUX1_DEV.modules["transformer"].with_config(num_layers=2, num_single_layers=4),
        "text_encoder_2": T5_XXL.with_config(num_layers=2),
    },
)
FLUX_MINI = PipelineSpec(
    id="flux-mini",
    miniature_of=FLUX1_DEV.id,
    anchor=AnchorFloors(
        embeds=AnchorFloor(low_db=39.3, measured_db="41.4 to 45.3"),
        answer=AnchorFloor(low_db=37.0, measured_db="38.3 to 41.3"),
        latents=AnchorFloor(low_db=39.4, measured_db="41.5 to 44.5"),
        picture=AnchorFloor(low_db=41.4, measured_db="43.5 to 44.1"),
    ),
    family="flux",
    cls="diffusers:FluxPipeline",
    repo="perf-tests/flux-mini",
    revision="f1" * 20,
    licence=None,
    modules={
        "transformer": Module(
            cls="diffusers:FluxTransformer2DModel",
            config={
                "patch_size": 1,
                "in_channels": 16,
                "num_layers": 2,
                "num_single_layers": 4,
                "attention_head_dim": 64,
                "num_attention_heads": 4,
                "joint_attention_dim": 64,
                "pooled_projection_dim": 64,
                "guidance_embeds": True,
                "axes_dims_rope": (16, 24, 24),
            },
        ),
        "vae": Module(
            cls="diffusers:AutoencoderKL",
            config={**FLUX_VAE, **KL_MINI, "latent_channels": 4},
        ),
        "text_encoder": CLIP_MINI,
        "text_encoder_2": T5_MINI,
    },
    tokenizers={"tokenizer": CLIP_MINI_TOKENIZER, "tokenizer_2": T5_MINI_TOKENIZER},
    scheduler=FLUX_SCHEDULER,
    workload=Workload(
        height=128,
        width=128,
        steps=4,
        arguments={"guidance_scale": 3.5, "max_sequence_length": 64},
    ),
    batch_argument="num_images_per_prompt",
    output="images",
    blocks=("transformer_blocks", "single_transformer_blocks"),
    encoder_calls={"text_encoder": 1, "text_encoder_2": 1},
    single_row=("*norm*.linear", "time_*embed*"),
)
FLUX_SCHNELL_MINI = dataclasses.replace(
    FLUX_MINI,
    id="flux-schnell-mini",
    miniature_of=FLUX1_SCHNELL.id,
    anchor=AnchorFloors(
        embeds=AnchorFloor(low_db=39.3, measured_db="41.4 to 45.3"),
        answer=AnchorFloor(low_db=39.0, measured_db="40.4 to 42.2"),
        latents=AnchorFloor(low_db=42.0, measured_db="44.0 to 46.2"),
        picture=AnchorFloor(low_db=42.2, measured_db="44.2 to 44.8"),
    ),
    repo="perf-tests/flux-schnell-mini",
    revision="f5" * 20,
    modules={
        **FLUX_MINI.modules,
        "transformer": FLUX_MINI.modules["transformer"].with_config(guidance_embeds=False),
    },
    scheduler=FLUX_SCHNELL_SCHEDULER,
    workload=dataclasses.replace(
        FLUX_MINI.workload, arguments={"guidance_scale": 0.0, "max_sequence_length": 64}
    ),
)
