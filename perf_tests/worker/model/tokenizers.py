"""Tokenizers without a download: every byte is a token, and special tokens have the ids of the checkpoint."""

from __future__ import annotations

from typing import Any

from perf_tests.tables.pipelines.spec import Tokenizer


def offline(row: Tokenizer) -> Any:
    """A transformers fast tokenizer with the id range, length and padding of the checkpoint, not its words.

    Speed and memory of a text encoder depend on the padded length alone.
    """
    from tokenizers import Tokenizer as Backend
    from tokenizers import decoders, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    specials = {"<pad>": row.pad_token_id, "<eos>": row.eos_token_id}
    if row.bos_token_id is not None:
        specials["<bos>"] = row.bos_token_id
    if row.pad_token_id == row.eos_token_id:
        del specials["<pad>"]
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocab = {letter: row.first_byte_id + index for index, letter in enumerate(letters)} | specials
    backend = Backend(models.BPE(vocab=vocab, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    start = "<bos> " if row.bos_token_id is not None else ""
    backend.post_processor = processors.TemplateProcessing(
        single=f"{start}$A <eos>",
        special_tokens=[(name, specials[name]) for name in ("<bos>", "<eos>") if name in specials],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        model_max_length=row.max_length,
        eos_token="<eos>",
        bos_token="<bos>" if row.bos_token_id is not None else None,
        pad_token="<pad>" if "<pad>" in specials else "<eos>",
        padding_side="right",
        # Exactly what the checkpoints' tokenizers return: pipelines pass all of it to the text encoder.
        model_input_names=["input_ids", "attention_mask"],
    )
