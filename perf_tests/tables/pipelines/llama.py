"""TABLE: the language model whose quantization was published, and its miniature; they generate nothing."""

from __future__ import annotations

import dataclasses

from perf_tests.tables.pipelines.spec import Module, PipelineSpec, Workload

# torchao's Transformer(ModelArgs()) (pytorch/ao pull request 699). Its 225 Linear modules are quantized,
# lm_head among them; the embedding, which is untied, and 65 norms stay in bf16.
LLAMA_7B = PipelineSpec(
    id="llama-7b",
    family="llama",
    cls="transformers:LlamaForCausalLM",
    repo="perf-tests/llama-7b",
    revision="a7" * 20,
    licence=None,
    modules={
        "transformer": Module(
            cls="transformers:LlamaForCausalLM",
            config_cls="transformers:LlamaConfig",
            config={
                "hidden_size": 4096,
                "intermediate_size": 11008,
                "num_hidden_layers": 32,
                "num_attention_heads": 32,
                "num_key_value_heads": 32,
                "vocab_size": 32000,
                "tie_word_embeddings": False,
            },
        )
    },
    tokenizers={},
    scheduler=None,
    # As many tokens as it has width.
    workload=Workload(height=1, width=64, steps=1),
    batch_argument="",
    output="logits",
    blocks=("model.layers",),
)
LLAMA_MINI = dataclasses.replace(
    LLAMA_7B,
    id="llama-mini",
    miniature_of=LLAMA_7B.id,
    repo="perf-tests/llama-mini",
    revision="f7" * 20,
    modules={
        "transformer": LLAMA_7B.modules["transformer"].with_config(
            hidden_size=256,
            intermediate_size=704,
            num_hidden_layers=3,
            num_attention_heads=4,
            num_key_value_heads=4,
            vocab_size=1024,
        )
    },
)
