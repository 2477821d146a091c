"""TABLE: text encoders and tokenizers that several pipelines share."""

from __future__ import annotations

from perf_tests.tables.pipelines.spec import Module, Tokenizer

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
