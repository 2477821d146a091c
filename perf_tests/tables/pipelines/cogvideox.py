"""TABLE: CogVideoX pipelines."""

from __future__ import annotations

from perf_tests.tables.lazy import Lazy, Value
from perf_tests.tables.pipelines.encoders import T5_XXL
from perf_tests.tables.pipelines.spec import Module, PipelineSpec, Tokenizer, Workload

COGVIDEOX_SCHEDULER_KWARGS: dict[str, Value] = {
    "timestep_spacing": "trailing",
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "prediction_type": "v_prediction",
    "rescale_betas_zero_snr": True,
    "set_alpha_to_one": True,
}
COGVIDEOX_5B = PipelineSpec(
    id="cogvideox-5b",
    family="cogvideox",
    cls="diffusers:CogVideoXPipeline",
    repo="THUDM/CogVideoX-5b",
    revision="8d6ea3f817438460b25595a120f109b88d5fdfad",
    licence=None,
    modules={
        "transformer": Module(
            cls="diffusers:CogVideoXTransformer3DModel",
            config={
                "num_attention_heads": 48,
                "attention_head_dim": 64,
                "in_channels": 16,
                "out_channels": 16,
                "num_layers": 42,
                "time_embed_dim": 512,
                "text_embed_dim": 4096,
                "sample_width": 90,
                "sample_height": 60,
                "sample_frames": 49,
                "patch_size": 2,
                "max_text_seq_length": 226,
                "use_rotary_positional_embeddings": True,
            },
        ),
        "vae": Module(cls="diffusers:AutoencoderKLCogVideoX", config={"scaling_factor": 0.7}),
        "text_encoder": T5_XXL,
    },
    tokenizers={"tokenizer": Tokenizer(max_length=226, pad_token_id=0, eos_token_id=1)},
    scheduler=Lazy(
        target="diffusers:CogVideoXDDIMScheduler",
        kwargs={**COGVIDEOX_SCHEDULER_KWARGS, "snr_shift_scale": 1.0},
    ),
    workload=Workload(
        height=480,
        width=720,
        num_frames=49,
        steps=50,
        arguments={"guidance_scale": 6.0, "use_dynamic_cfg": True, "max_sequence_length": 226},
    ),
    batch_argument="num_videos_per_prompt",
    output="frames",
    blocks=("transformer_blocks",),
    single_row=("*norm*.linear", "time_*embed*"),
)
COGVIDEOX_MINI = PipelineSpec(
    id="cogvideox-mini",
    family="cogvideox",
    cls="diffusers:CogVideoXPipeline",
    repo="perf-tests/cogvideox-mini",
    revision="c0" * 20,
    licence=None,
    modules={
        "transformer": Module(
            cls="diffusers:CogVideoXTransformer3DModel",
            config={
                "num_attention_heads": 4,
                "attention_head_dim": 64,
                "in_channels": 16,
                "out_channels": 16,
                "num_layers": 2,
                "time_embed_dim": 64,
                "text_embed_dim": 64,
                "sample_width": 12,
                "sample_height": 8,
                "sample_frames": 9,
                "patch_size": 2,
                "max_text_seq_length": 64,
                "use_rotary_positional_embeddings": True,
            },
        ),
        "vae": Module(
            cls="diffusers:AutoencoderKLCogVideoX",
            config={
                "block_out_channels": (32, 32, 32, 32),
                "layers_per_block": 1,
                "sample_height": 64,
                "sample_width": 96,
                "scaling_factor": 0.7,
            },
        ),
        "text_encoder": Module(
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
    tokenizers={"tokenizer": Tokenizer(max_length=64, pad_token_id=0, eos_token_id=1)},
    scheduler=Lazy(
        target="diffusers:CogVideoXDDIMScheduler",
        kwargs={**COGVIDEOX_SCHEDULER_KWARGS, "snr_shift_scale": 1.0},
    ),
    workload=Workload(
        height=64,
        width=96,
        num_frames=9,
        steps=4,
        arguments={"guidance_scale": 6.0, "use_dynamic_cfg": True, "max_sequence_length": 64},
    ),
    batch_argument="num_videos_per_prompt",
    output="frames",
    blocks=("transformer_blocks",),
    single_row=("*norm*.linear", "time_*embed*"),
)
