"""TABLE: FLUX pipelines."""

from __future__ import annotations

from perf_tests.tables.lazy import Lazy, Value
from perf_tests.tables.pipelines.encoders import CLIP_L, CLIP_TOKENIZER, T5_XXL
from perf_tests.tables.pipelines.spec import Module, PipelineSpec, Tokenizer, Workload

FLUX_VAE_BLOCKS: dict[str, Value] = {
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
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
            config={
                **FLUX_VAE_BLOCKS,
                "block_out_channels": (128, 256, 512, 512),
                "layers_per_block": 2,
                "latent_channels": 16,
                "sample_size": 1024,
            },
        ),
        "text_encoder": CLIP_L,
        "text_encoder_2": T5_XXL,
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
    single_row=("*norm*.linear", "time_*embed*"),
)
FLUX_MINI = PipelineSpec(
    id="flux-mini",
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
            config={
                **FLUX_VAE_BLOCKS,
                "block_out_channels": (32, 32, 32, 32),
                "layers_per_block": 1,
                "latent_channels": 4,
                "sample_size": 128,
            },
        ),
        "text_encoder": Module(
            cls="transformers:CLIPTextModel",
            config_cls="transformers:CLIPTextConfig",
            config={
                "vocab_size": 512,
                "hidden_size": 64,
                "intermediate_size": 128,
                "num_hidden_layers": 2,
                "num_attention_heads": 4,
                "max_position_embeddings": 77,
                "hidden_act": "quick_gelu",
                "projection_dim": 64,
                "bos_token_id": 510,
                "eos_token_id": 511,
                "pad_token_id": 511,
            },
        ),
        "text_encoder_2": Module(
            cls="transformers:T5EncoderModel",
            config_cls="transformers:T5Config",
            config={
                "vocab_size": 512,
                "d_model": 64,
                "d_kv": 16,
                "d_ff": 128,
                "num_layers": 2,
                "num_heads": 4,
                "feed_forward_proj": "gated-gelu",
                "tie_word_embeddings": False,
            },
        ),
    },
    tokenizers={
        "tokenizer": Tokenizer(
            max_length=77, pad_token_id=511, bos_token_id=510, eos_token_id=511, first_byte_id=0
        ),
        "tokenizer_2": Tokenizer(max_length=64, pad_token_id=0, eos_token_id=1),
    },
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
    single_row=("*norm*.linear", "time_*embed*"),
)
