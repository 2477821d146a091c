"""TABLE: text encoders and tokenizers that several pipelines share."""

from __future__ import annotations

import dataclasses

from perf_tests.tables.pipelines.spec import Module, Tokenizer

# T5 does not divide attention scores by sqrt(d_kv): its initialisation has that in the query projection
# (transformers, T5PreTrainedModel._init_weights). Without it the softmax is saturated, and 24 layers turn
# the rounding of bf16 into another text: -1 dB between bf16 and float32, 33 dB with it.
QUERY = "*SelfAttention.q.weight"
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
    gains={QUERY: 64**-0.5},
)
T5_MINI = dataclasses.replace(
    T5_XXL.with_config(vocab_size=512, d_model=64, d_kv=16, d_ff=128, num_layers=2, num_heads=4),
    gains={QUERY: 16**-0.5},
)
T5_WIDE_MINI = T5_MINI.with_config(d_model=128)
T5_MINI_TOKENIZER = Tokenizer(max_length=64, pad_token_id=0, eos_token_id=1)

UMT5_XL = Module(
    cls="transformers:UMT5EncoderModel",
    config_cls="transformers:UMT5Config",
    config={
        "vocab_size": 32128,
        "d_model": 2048,
        "d_kv": 64,
        "d_ff": 5120,
        "num_layers": 24,
        "num_heads": 32,
        "feed_forward_proj": "gated-gelu",
    },
    gains={QUERY: 64**-0.5},
)
UMT5_WIDE_MINI = dataclasses.replace(
    UMT5_XL.with_config(vocab_size=512, d_model=128, d_kv=16, d_ff=128, num_layers=2, num_heads=4),
    gains={QUERY: 16**-0.5},
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
CLIP_L_PROJECTED = dataclasses.replace(CLIP_L, cls="transformers:CLIPTextModelWithProjection")
CLIP_G_PROJECTED = CLIP_L_PROJECTED.with_config(
    hidden_size=1280,
    intermediate_size=5120,
    num_hidden_layers=32,
    num_attention_heads=20,
    hidden_act="gelu",
    projection_dim=1280,
    pad_token_id=0,
)
CLIP_MINI = CLIP_L.with_config(
    vocab_size=512,
    hidden_size=64,
    intermediate_size=128,
    num_hidden_layers=2,
    num_attention_heads=4,
    projection_dim=64,
    bos_token_id=510,
    eos_token_id=511,
    pad_token_id=511,
)
CLIP_PROJECTED_MINI = dataclasses.replace(CLIP_MINI, cls="transformers:CLIPTextModelWithProjection")
CLIP_TOKENIZER = Tokenizer(
    max_length=77, pad_token_id=49407, bos_token_id=49406, eos_token_id=49407, first_byte_id=0
)
# Padded with token 0, which no byte can have then.
CLIP_G_TOKENIZER = dataclasses.replace(CLIP_TOKENIZER, pad_token_id=0, first_byte_id=1)
CLIP_MINI_TOKENIZER = dataclasses.replace(
    CLIP_TOKENIZER, pad_token_id=511, bos_token_id=510, eos_token_id=511
)
