"""What a pipeline is called with in the place of its text encoders' answers."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from perf_tests.tables.cases import Case

Shapes = dict[str, tuple[int, ...]]
"""Keyword of the pipeline's call -> shape."""


def _flux(case: Case) -> tuple[Shapes, Shapes]:
    return _prompt(case, _tokens(case), "joint_attention_dim") | _pooled(case), {}


def _sd3(case: Case) -> tuple[Shapes, Shapes]:
    tokens = case.build.pipeline.tokenizers["tokenizer"].max_length + _tokens(case)  # CLIP's come first
    given = _prompt(case, tokens, "joint_attention_dim") | _pooled(case)
    return _with_negative(given), {}


def _pixart(case: Case) -> tuple[Shapes, Shapes]:
    return _masked(case, "caption_channels")


def _cogvideox(case: Case) -> tuple[Shapes, Shapes]:
    return _with_negative(_prompt(case, _tokens(case), "text_embed_dim")), {}


def _auraflow(case: Case) -> tuple[Shapes, Shapes]:
    return _masked(case, "joint_attention_dim")


SHAPES: Mapping[str, Callable[[Case], tuple[Shapes, Shapes]]] = {
    "diffusers:FluxPipeline": _flux,
    "diffusers:StableDiffusion3Pipeline": _sd3,
    "diffusers:PixArtSigmaPipeline": _pixart,
    "diffusers:CogVideoXPipeline": _cogvideox,
    "diffusers:AuraFlowPipeline": _auraflow,
}
"""Class of a pipeline -> the shapes of its embeddings and of their masks, for all prompts of a case."""


def _tokens(case: Case) -> int:
    tokens = case.workload.arguments["max_sequence_length"]
    assert isinstance(tokens, int), "a number of tokens"
    return tokens


def _of_transformer(case: Case, name: str) -> int:
    width = case.build.pipeline.modules["transformer"].config[name]
    assert isinstance(width, int), "a number of channels"
    return width


def _prompt(case: Case, tokens: int, width: str) -> Shapes:
    return {"prompt_embeds": (case.workload.batch_size, tokens, _of_transformer(case, width))}


def _pooled(case: Case) -> Shapes:
    width = _of_transformer(case, "pooled_projection_dim")
    return {"pooled_prompt_embeds": (case.workload.batch_size, width)}


def _masked(case: Case, width: str) -> tuple[Shapes, Shapes]:
    tokens = _tokens(case)
    masks: Shapes = {"prompt_attention_mask": (case.workload.batch_size, tokens)}
    return _with_negative(_prompt(case, tokens, width)), _with_negative(masks)


def _with_negative(given: Shapes) -> Shapes:
    return given | {f"negative_{name}": shape for name, shape in given.items()}
