"""The denoise step of a case as a script that needs neither pytest nor this package; pure."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator, Mapping
from importlib import resources
from string import Template

from perf_tests.harness.reproducing.embeddings import SHAPES, Shapes
from perf_tests.tables.cases import Case
from perf_tests.tables.lazy import Lazy
from perf_tests.tables.pipelines.spec import Module
from perf_tests.tables.platforms import Device
from perf_tests.tables.recipes import CompileMode

TEMPLATE = "step_script.txt"
OURS = "perf_tests."
WIDTH = 100
LEAST_STEPS = 3
"""Of a generation: the first begins it, and the second may be profiled."""


def obstacle(case: Case) -> str | None:
    """Why there can be no such script of the case, in a sentence's end; None where there can be."""
    recipe = case.build.recipe
    config = case.build.config_of(recipe.scheme)
    calls = [each.call for each in recipe.settings if not each.inductor] + ([config] if config else [])
    own = next((each.target for each in calls if each.target.startswith(OURS)), None)
    reasons = (
        (case.is_training, "it trains adapters, in steps that this suite takes itself"),
        (not case.build.pipeline.generates, "it is only quantized and moved, and takes no denoise step"),
        (recipe.is_packaged, "another process compiles and packages its blocks"),
        (recipe.scheme.search is not None, "how each layer is quantized was found by timing them"),
        (own is not None, f"it takes {own}, which is part of this suite"),
        (recipe.offload is not None, "its weights move between host and device while it runs"),
        (recipe.cuda_graph, "this suite records its CUDA graph itself"),
        (case.build.pipeline.cls not in SHAPES, "nobody has written down what its text encoders answer"),
    )
    return next((reason for applies, reason in reasons if applies), None)


def script(case: Case, device: Device, file: str, about: Iterable[str] = ()) -> str:
    """The text of a Python script that times the denoise steps of `case` on `device`.

    `file` is what it will be called, and `about` sentences on what was measured. There must be no `obstacle`.
    """
    spec, transformer, vae = case.build.pipeline, *_modules(case)
    assert spec.scheduler is not None, "there is an obstacle"
    embeddings, masks = SHAPES[spec.cls](case)
    config = case.build.config_of(case.build.recipe.scheme)
    calls = [each.call for each in case.build.recipe.settings if not each.inductor]
    objects = (spec.cls, spec.scheduler.target, transformer.cls, vae.cls)
    template = resources.files(__package__).joinpath(TEMPLATE).read_text(encoding="utf-8")
    return Template(template).substitute(
        title=f"The denoise step of {case.id}.",
        file=file,
        about="\n\n".join(textwrap.fill(_quotable(each), WIDTH) for each in (*about, *_remarks(case))),
        imports="\n".join(_imports(objects, [*calls, *([config] if config else [])])),
        device=device.value,
        dtype=case.build.recipe.scheme.dtype,
        pipeline=_literal({**_absent(case), **spec.arguments}),
        scheduler=_literal(spec.scheduler.kwargs),
        transformer=_literal(transformer.config),
        vae=_literal(vae.config),
        call=_literal(_call(case) | _unsaid(embeddings)),
        embeddings=_literal(embeddings),
        masks=_literal(masks),
        quantization="\n".join(_quantization(case, config)),
        transformer_cls=_name(transformer.cls),
        pipeline_cls=_name(spec.cls),
        vae_cls=_name(vae.cls),
        scheduler_cls=_name(spec.scheduler.target),
        prepare=textwrap.indent("\n".join(_prepared(case)), "    "),
        steps=max(LEAST_STEPS, case.workload.generated_steps),
    )


def _modules(case: Case) -> tuple[Module, Module]:
    modules = case.build.pipeline.modules
    return modules["transformer"], modules["vae"]


def _absent(case: Case) -> dict[str, None]:
    """The components that are left out."""
    spec, kept = case.build.pipeline, ("transformer", "vae")
    return {name: None for name in (*spec.modules, *spec.tokenizers) if name not in kept}


def _call(case: Case) -> dict[str, object]:
    workload = case.workload
    frames = {} if workload.num_frames is None else {"num_frames": workload.num_frames}
    return {"height": workload.height, "width": workload.width, **frames, **workload.arguments}


def _unsaid(embeddings: Shapes) -> dict[str, None]:
    """The negative prompt, for which some pipelines have a default, where embeddings take its place."""
    return {"negative_prompt": None} if "negative_prompt_embeds" in embeddings else {}


def _remarks(case: Case) -> Iterator[str]:
    recipe = case.build.recipe
    yield (
        "Made from a row of a suite that measures quantized and compiled diffusion pipelines. It needs "
        "torch, diffusers, accelerate and torchao. Weights and the text's embeddings are random."
    )
    others = [name for name in recipe.quantized_components if name != "transformer"]
    if others or recipe.compile_vae or recipe.saves_memory:
        yield "What the row does to text encoders and VAE is left out: the steps do not depend on it."
    if recipe.is_loaded or recipe.starts_on_host:
        yield "The row quantizes elsewhere, and has the same tensors."


def _quotable(text: str) -> str:
    """`text` as it may stand in a docstring."""
    return text.replace("\\", "/").replace('"', "'")


# What is imported


def _imports(objects: Iterable[str], calls: Iterable[Lazy]) -> Iterator[str]:
    names: dict[str, set[str]] = {"accelerate": {"init_empty_weights"}}
    for target in (*objects, *(each for call in calls for each in call.targets)):
        module, _, name = target.partition(":")
        if module != "torch":  # which is imported as a whole
            names.setdefault(module, set()).add(name)
        if module.startswith("torchao."):
            names.setdefault("torchao.quantization", set()).add("quantize_")
    for module in sorted(names):
        yield f"from {module} import {', '.join(sorted(names[module]))}"


def _name(target: str) -> str:
    """How the script calls `target`."""
    module, _, name = target.partition(":")
    return f"torch.{name}" if module == "torch" else name


def _expression(call: Lazy) -> str:
    """The call as code."""
    arguments = {
        **{name: repr(value) for name, value in call.kwargs.items()},
        **{name: _expression(value) for name, value in call.nested.items()},
        **{name: _name(target) for name, target in call.named.items()},
    }
    return f"{_name(call.target)}({', '.join(f'{name}={value}' for name, value in arguments.items())})"


def _literal(values: Mapping[str, object] | Shapes) -> str:
    """A dict as code, one item a line."""
    if not values:
        return "{}"
    return "\n".join(("{", *(f"    {name!r}: {value!r}," for name, value in values.items()), "}"))


# What is done to the transformer


def _quantization(case: Case, config: Lazy | None) -> Iterator[str]:
    """What to quantize and how, as statements of the module."""
    if config is None:
        return
    rules = case.build.recipe.scheme.shape_rules.values()
    yield f"CONFIG = {_expression(config)}"
    yield f"LEFT_ALONE = {sorted(case.build.exclusions)!r}"
    yield f"MULTIPLES = {dict(rules)!r}"
    yield ""
    yield ""
    yield "def is_quantized(module, name):"
    yield '    """Whether the row quantizes a module."""'
    yield "    left_alone = any(fnmatch.fnmatch(name, pattern) for pattern in LEFT_ALONE)"
    yield "    if left_alone or not isinstance(module, nn.Linear):"
    yield "        return False"
    yield "    return all(getattr(module, size) % multiple == 0 for size, multiple in MULTIPLES.items())"
    yield ""
    yield ""


def _prepared(case: Case) -> Iterator[str]:
    """What is done to the pipeline once it is built, as statements of `build`, in the order of a worker."""
    recipe = case.build.recipe
    if recipe.channels_last:
        yield "for parameter in (*pipe.transformer.parameters(), *pipe.vae.parameters()):"
        yield "    if parameter.ndim == 4:"
        yield "        parameter.data = parameter.data.to(memory_format=torch.channels_last)"
    if recipe.fuse_qkv:
        yield "pipe.transformer.fuse_qkv_projections()"
    if recipe.scheme.config is not None:
        yield "quantize_(pipe.transformer, CONFIG, filter_fn=is_quantized)"
    for setting in recipe.settings:
        if setting.inductor:
            yield "from torch._inductor import config as inductor"
            yield from (f"inductor.{name} = {value!r}" for name, value in setting.inductor.items())
        else:
            yield _expression(setting.call)
    yield from COMPILING[recipe.compile](case)


def _eager(_case: Case) -> Iterator[str]:
    yield from ()


def _regional(case: Case) -> Iterator[str]:
    names = ", ".join(f"*pipe.transformer.{name}" for name in case.build.pipeline.blocks)
    yield f"for block in [{names}]:"
    yield f"    block.compile(dynamic={_is_dynamic(case)})"


def _full(case: Case) -> Iterator[str]:
    yield f"pipe.transformer.compile(dynamic={_is_dynamic(case)})"


def _max_autotune(_case: Case) -> Iterator[str]:
    yield 'pipe.transformer.compile(dynamic=False, mode="max-autotune", fullgraph=True)'


def _is_dynamic(case: Case) -> bool:
    reshaping = case.build.recipe.reshaping
    return reshaping is not None and reshaping.dynamic


COMPILING = {
    CompileMode.EAGER: _eager,
    CompileMode.REGIONAL: _regional,
    CompileMode.FULL: _full,
    CompileMode.MAX_AUTOTUNE: _max_autotune,
}
"""Compile mode -> the statements that mark what is compiled."""
