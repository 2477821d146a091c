"""TABLE: pipelines, with the architectures, schedulers and workloads of their published checkpoints."""

from __future__ import annotations

from dataclasses import dataclass, field

from perf_tests.tables.identity import NEVER, UNLESS_DEFAULT
from perf_tests.tables.lazy import Lazy, Value


@dataclass(frozen=True, kw_only=True, slots=True)
class Module:
    """A component with weights: a class of diffusers or transformers and its config."""

    cls: str
    """`"package:Class"`."""
    config: dict[str, Value]
    config_cls: str | None = None
    """`"package:Config"` where the class takes one (transformers); None where it takes keywords."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Tokenizer:
    """A tokenizer made offline: byte-level, with the special tokens where the checkpoint has them."""

    max_length: int
    pad_token_id: int
    eos_token_id: int
    bos_token_id: int | None = None
    """None where the tokenizer adds none."""
    first_byte_id: int = 3
    """Token id of byte 0."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Workload:
    """What one generation is asked for."""

    height: int
    width: int
    steps: int
    batch_size: int = 1
    num_frames: int | None = None
    """None for images."""
    seed: int = 0
    prompt: str = "An astronaut in a garden on Mars, oil painting"
    arguments: dict[str, Value] = field(default_factory=dict)
    """Further keyword arguments of the pipeline call."""
    measured_steps: int | None = field(default=None, metadata=UNLESS_DEFAULT)
    """Steps that are generated, where the latency of all `steps` is composed from measured stages; None:
    all of them."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PipelineSpec:
    """An architecture with everything needed to build it offline, and its default workload."""

    id: str
    family: str = field(metadata=NEVER)
    """The pytest marker shared by full size and miniature."""
    cls: str
    """`"diffusers:Class"`."""
    repo: str
    revision: str
    """Commit of `repo`, 40 hex digits."""
    licence: str | None = field(metadata=NEVER)
    """Where the licence is accepted, for gated repositories."""
    modules: dict[str, Module]
    tokenizers: dict[str, Tokenizer]
    scheduler: Lazy
    workload: Workload = field(metadata=NEVER)
    """The default; what a case runs is its own."""
    batch_argument: str
    """The call's keyword for the batch size."""
    output: str
    """The attribute of the pipeline's output which holds the images or videos."""
    blocks: tuple[str, ...]
    """Module lists of the transformer whose items are its repeated blocks."""
    arguments: dict[str, Value] = field(default_factory=dict)
    """Arguments of the pipeline's constructor besides its components."""
    single_row: tuple[str, ...] = field(default=(), metadata=NEVER)
    """Linear modules of the transformer that see one row per image: patterns (`fnmatch`) of their names."""


T5_XXL = Module(
    cls="transformers:T5EncoderModel",
    config_cls="transformers:T5Config",
    config={
        "vocab_size": 32128,
        "d_model": 4096,
        "d_kv": 64,
        "d_ff": 10240,
        "num_layers": 24,
        "num_heads": 64,
        "feed_forward_proj": "gated-gelu",
        "tie_word_embeddings": False,
    },
)
CLIP_L = Module(
    cls="transformers:CLIPTextModel",
    config_cls="transformers:CLIPTextConfig",
    config={
        "vocab_size": 49408,
        "hidden_size": 768,
        "intermediate_size": 3072,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
        "max_position_embeddings": 77,
        "hidden_act": "quick_gelu",
        "projection_dim": 768,
        "bos_token_id": 49406,
        "eos_token_id": 49407,
        "pad_token_id": 49407,
    },
)
CLIP_TOKENIZER = Tokenizer(
    max_length=77, pad_token_id=49407, bos_token_id=49406, eos_token_id=49407, first_byte_id=0
)

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

PIPELINES = (FLUX1_DEV, COGVIDEOX_5B, FLUX_MINI, COGVIDEOX_MINI)
