"""TABLE: CogVideoX pipelines."""

from __future__ import annotations

import dataclasses

from perf_tests.tables.lazy import Lazy, Value
from perf_tests.tables.pipelines.encoders import T5_MINI, T5_MINI_TOKENIZER, T5_XXL
from perf_tests.tables.pipelines.spec import (
    AnchorFloor,
    AnchorFloors,
    Module,
    PipelineSpec,
    Tokenizer,
    Workload,
)

COGVIDEOX_SCHEDULER_KWARGS: dict[str, Value] = {
    "timestep_spacing": "trailing",
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "prediction_type": "v_prediction",
    "rescale_betas_zero_snr": True,
    "set_alpha_to_one": True,
}
COGVIDEOX_SCHEDULER = Lazy(
    target="diffusers:CogVideoXDDIMScheduler",
    kwargs={**COGVIDEOX_SCHEDULER_KWARGS, "snr_shift_scale": 1.0},
)
COGVIDEOX_2B_SCHEDULER = dataclasses.replace(
    COGVIDEOX_SCHEDULER, kwargs={**COGVIDEOX_SCHEDULER_KWARGS, "snr_shift_scale": 3.0}
)
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
    scheduler=COGVIDEOX_SCHEDULER,
    workload=Workload(
        height=480,
        width=720,
        num_frames=49,
        steps=50,
        measured_steps=6,
        arguments={"guidance_scale": 6.0, "use_dynamic_cfg": True, "max_sequence_length": 226},
    ),
    batch_argument="num_videos_per_prompt",
    one_output_per_prompt=True,  # the pipeline's call sets that argument to 1
    output="frames",
    blocks=("transformer_blocks",),
    encoder_calls={"text_encoder": 2},
    single_row=("*norm*.linear", "time_*embed*"),
)
COGVIDEOX_2B = dataclasses.replace(
    COGVIDEOX_5B,
    id="cogvideox-2b",
    repo="THUDM/CogVideoX-2b",
    revision="1137dacfc2c9c012bed6a0793f4ecf2ca8e7ba01",
    modules={
        **COGVIDEOX_5B.modules,
        "transformer": COGVIDEOX_5B.modules["transformer"].with_config(
            num_attention_heads=30, num_layers=30, use_rotary_positional_embeddings=False
        ),
        "vae": COGVIDEOX_5B.modules["vae"].with_config(scaling_factor=1.15258426),
    },
    scheduler=COGVIDEOX_2B_SCHEDULER,
)
COGVIDEOX_MINI = PipelineSpec(
    id="cogvideox-mini",
    miniature_of=COGVIDEOX_5B.id,
    anchor=AnchorFloors(
        embeds=AnchorFloor(low_db=40.0, measured_db="42.0 to 43.3"),
        answer=AnchorFloor(low_db=44.0, measured_db="44.8 to 44.9"),
        latents=AnchorFloor(low_db=40.0, measured_db="42.0 to 43.6"),
        picture=AnchorFloor(low_db=34.2, measured_db="36.3 to 37.4"),
    ),
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
                # Fewer than for pictures, for the reason given there: a video has more of them.
                "block_out_channels": (4, 4, 4, 4),
                "norm_num_groups": 2,
                "layers_per_block": 1,
                "sample_height": 64,
                "sample_width": 96,
                "scaling_factor": 0.7,
            },
        ),
        "text_encoder": T5_MINI,
    },
    tokenizers={"tokenizer": T5_MINI_TOKENIZER},
    scheduler=COGVIDEOX_SCHEDULER,
    workload=Workload(
        height=64,
        width=96,
        num_frames=9,
        steps=4,
        arguments={"guidance_scale": 6.0, "use_dynamic_cfg": True, "max_sequence_length": 64},
    ),
    batch_argument="num_videos_per_prompt",
    one_output_per_prompt=True,  # the pipeline's call sets that argument to 1
    output="frames",
    blocks=("transformer_blocks",),
    encoder_calls={"text_encoder": 2},
    single_row=("*norm*.linear", "time_*embed*"),
)
COGVIDEOX_2B_MINI = dataclasses.replace(
    COGVIDEOX_MINI,
    id="cogvideox-2b-mini",
    miniature_of=COGVIDEOX_2B.id,
    anchor=AnchorFloors(
        embeds=AnchorFloor(low_db=40.0, measured_db="42.0 to 43.3"),
        answer=AnchorFloor(low_db=44.0, measured_db="44.5 to 44.6"),
        latents=AnchorFloor(low_db=41.6, measured_db="43.6 to 44.5"),
        picture=AnchorFloor(low_db=36.5, measured_db="38.6 to 39.8"),
    ),
    repo="perf-tests/cogvideox-2b-mini",
    revision="c2" * 20,
    modules={
        **COGVIDEOX_MINI.modules,
        "transformer": COGVIDEOX_MINI.modules["transformer"].with_config(
            use_rotary_positional_embeddings=False
        ),
        "vae": COGVIDEOX_MINI.modules["vae"].with_config(scaling_factor=1.15258426),
    },
    scheduler=COGVIDEOX_2B_SCHEDULER,
)
