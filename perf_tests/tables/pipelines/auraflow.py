"""TABLE: AuraFlow pipelines."""

from __future__ import annotations

import dataclasses

from perf_tests.tables.lazy import Lazy
from perf_tests.tables.pipelines.autoencoders import SDXL_VAE, SDXL_VAE_MINI
from perf_tests.tables.pipelines.encoders import UMT5_WIDE_MINI, UMT5_XL
from perf_tests.tables.pipelines.spec import (
    AnchorFloor,
    AnchorFloors,
    Module,
    PipelineSpec,
    Tokenizer,
    Workload,
)

AURAFLOW = PipelineSpec(
    id="auraflow",
    family="auraflow",
    cls="diffusers:AuraFlowPipeline",
    repo="fal/AuraFlow-v0.2",
    revision="ea13150f559b7f85d2c5959297f7de10325584b4",
    licence=None,
    modules={
        "transformer": Module(
            cls="diffusers:AuraFlowTransformer2DModel",
            config={
                "sample_size": 64,
                "patch_size": 2,
                "in_channels": 4,
                "out_channels": 4,
                "num_mmdit_layers": 4,
                "num_single_dit_layers": 32,
                "attention_head_dim": 256,
                "num_attention_heads": 12,
                "joint_attention_dim": 2048,
                "caption_projection_dim": 3072,
                # The 64 x 64 patches of 1024 x 1024 pixels; the default of diffusers is too small for them.
                "pos_embed_max_size": 4096,
            },
        ),
        "vae": SDXL_VAE,
        "text_encoder": UMT5_XL,
    },
    tokenizers={"tokenizer": Tokenizer(max_length=256, pad_token_id=1, eos_token_id=2)},
    scheduler=Lazy(target="diffusers:FlowMatchEulerDiscreteScheduler", kwargs={"shift": 1.73}),
    workload=Workload(
        height=1024,
        width=1024,
        steps=50,
        measured_steps=6,
        arguments={"guidance_scale": 3.5, "max_sequence_length": 256},
    ),
    batch_argument="num_images_per_prompt",
    output="images",
    blocks=("joint_transformer_blocks", "single_transformer_blocks"),
    encoder_calls={"text_encoder": 2},
    # The pipeline zeroes the rows of padded tokens, and rows of zeros have a scale of 0, which is divided by.
    scheme_arguments={"fp8dqrow": {"activation_value_lb": 1e-12}},
    single_row=("*norm*.linear", "time_step_proj.*"),
    # `force_upcast` of SDXL's VAE.
    upcasts_vae=True,
)
AURAFLOW_MINI = dataclasses.replace(
    AURAFLOW,
    id="auraflow-mini",
    miniature_of=AURAFLOW.id,
    anchor=AnchorFloors(
        embeds=AnchorFloor(low_db=38.7, measured_db="40.7 to 43.7"),
        answer=AnchorFloor(low_db=44.5, measured_db="45.1 to 45.2"),
        latents=AnchorFloor(low_db=36.9, measured_db="39.0 to 40.0"),
        picture=AnchorFloor(low_db=41.1, measured_db="43.2 to 43.5"),
    ),
    repo="perf-tests/auraflow-mini",
    revision="af" * 20,
    modules={
        "transformer": AURAFLOW.modules["transformer"].with_config(
            sample_size=16,
            num_mmdit_layers=2,
            num_single_dit_layers=2,
            attention_head_dim=64,
            num_attention_heads=4,
            joint_attention_dim=128,
            caption_projection_dim=256,
            pos_embed_max_size=64,
        ),
        "vae": SDXL_VAE_MINI,
        "text_encoder": UMT5_WIDE_MINI,
    },
    tokenizers={"tokenizer": Tokenizer(max_length=64, pad_token_id=1, eos_token_id=2)},
    workload=Workload(
        height=128,
        width=128,
        steps=4,
        arguments={"guidance_scale": 3.5, "max_sequence_length": 64},
    ),
)
