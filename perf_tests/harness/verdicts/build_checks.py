"""What a worker built against what the recipe asked for; every contradiction is a sentence."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping

import msgspec

from perf_tests.harness.records.builds import BuildReport
from perf_tests.harness.verdicts.checks import compiled, placement, training
from perf_tests.protocol.offloading import MemorySaving, OffloadedComponent
from perf_tests.protocol.reports import (
    ORDINARY,
    ComponentState,
    ModuleGroup,
    PipelineState,
    Quantization,
)
from perf_tests.tables.cases import Build, Case
from perf_tests.tables.platforms import Device
from perf_tests.tables.recipes import Decoding, Offload, Recipe
from perf_tests.tables.schemes.spec import QuantizedWeight


def contradictions(case: Case, build: BuildReport) -> tuple[str, ...]:
    """What of `build` contradicts the recipe of `case`, a sentence each; empty where nothing does.

    To be called after the last generation. A counter that was not reported is not a contradiction: its metric
    is missing, and has a verdict of its own.
    """
    recipe = case.build.recipe
    found = [*compiled.contradictions(recipe, build)]
    if recipe.training is not None:
        return (*found, *training.contradictions(recipe, build.training))
    if build.quantization is None:
        found.append("the worker did not report what the Linear modules are")
    else:
        for check in CHECKS:
            found.extend(check(case.build, build.quantization))
    found.extend(_wrong_use(case, build))
    if build.state is None or build.final_state is None:
        found.append("the worker did not read its weights both before the first image and after the last")
    else:
        found.extend(_wrong_memory_format(recipe, build.state))
        found.extend(_changes(_to_be_left(case.build, build.state, build.final_state), build.final_state))
    if recipe.saves_memory:
        found.extend(_wrong_memory_saving(case, build.memory_saving))
    if case.built_twin is not None:
        found.extend(_unlike_built_twin(case, build))
    return tuple(found)


def _wrong_use(case: Case, build: BuildReport) -> Iterator[str]:
    recipe = case.build.recipe
    if not case.build.pipeline.generates:
        yield from placement.contradictions(recipe, build.placement, build.quantization)
    elif build.step is None:
        yield "the worker did not look at what runs in a step"
    else:
        yield from compiled.blocks_that_ran_otherwise(recipe, build.step)


def _wrong_count(build: Build, quantization: Quantization) -> Iterator[str]:
    recipe = build.recipe
    if recipe.scheme.config is None:
        return
    expected = quantization.expected_modules
    as_asked = sum(
        group.count
        for group in quantization.groups
        if group.component in recipe.quantized_components and group.is_quantized_as(recipe.scheme)
    )
    # A plan may leave all of them as they are.
    if expected == 0 and recipe.scheme.search is None:
        yield f"the scheme {recipe.scheme.id} found no Linear module to quantize"
    elif as_asked != expected:
        names = ", ".join(quantization.unquantized) or "none is named"
        yield (
            f"{as_asked} of {expected} Linear modules are quantized as {recipe.scheme.id} says; "
            f"not as it says: {names}"
        )


def _wrong_look(build: Build, quantization: Quantization) -> Iterator[str]:
    recipe = build.recipe
    for group in quantization.groups:
        weight = recipe.scheme.weight_of(group.chosen)
        if group.subclass == ORDINARY:
            continue
        if recipe.scheme.config is None:
            yield f"{_described(group)}, but the scheme {recipe.scheme.id} quantizes nothing"
        elif group.component not in recipe.quantized_components:
            allowed = ", ".join(recipe.quantized_components)
            yield f"{_described(group)}, but the recipe quantizes only {allowed}"
        elif weight is None:
            yield f"{_described(group)}, but the plan of {recipe.scheme.id} leaves them as they are"
        elif not group.looks_like(weight):
            scheme = group.chosen or recipe.scheme.id
            yield f"{_described(group)}, but the scheme {scheme} says {_wanted(weight)}"


def _wrong_exclusions(build: Build, quantization: Quantization) -> Iterator[str]:
    declared = build.exclusions
    for pattern in declared:
        if not quantization.excluded.get(pattern):
            yield (
                f"the exclusion {pattern!r} of the scheme {build.recipe.scheme.id} excluded no module of "
                f"{build.pipeline.id}"
            )
    for pattern, count in quantization.excluded.items():
        # Whether a shape breaks a rule depends on the pipeline: excluding nothing is not a contradiction.
        if pattern not in declared and pattern not in build.recipe.scheme.shape_rules:
            yield f"{count} modules were excluded by {pattern!r}, which the scheme does not declare"


def _wrong_start(build: Build, quantization: Quantization) -> Iterator[str]:
    # What becomes of the weights does not show it: the same tensors, on the device, are what is wanted.
    found = None if quantization.weights is None else quantization.weights.device
    if build.recipe.starts_on_host and found != Device.CPU:
        yield (
            f"the recipe {build.recipe.id} quantizes weights of the host, and they were on "
            f"{found or 'a device that was not reported'}"
        )


def _wrong_plan(build: Build, quantization: Quantization) -> Iterator[str]:
    scheme, plan = build.recipe.scheme, quantization.plan
    if (scheme.search is None) is not (plan is None):
        reported = "no plan" if plan is None else f"the plan {plan.file}"
        asked = "one scheme for all modules"
        if scheme.search is not None:
            asked = "a scheme that is chosen for each module"
        yield f"the worker reported {reported}, and the recipe asks for {asked}"
    if scheme.search is None or plan is None:
        return
    known = {candidate.id for candidate in scheme.search.candidates}
    for name in sorted(plan.chosen.keys() - known):
        yield f"the plan {plan.file} chose {name!r}, which is not a candidate of {scheme.id}"
    found: Counter[str] = Counter()
    for group in quantization.groups:
        found[group.chosen or ""] += group.count
    for name, count in plan.chosen.items():
        if found[name] != count:
            yield f"the plan {plan.file} chose {name} for {count} modules, and {found[name]} were found"


CHECKS: tuple[Callable[[Build, Quantization], Iterator[str]], ...] = (
    _wrong_count,
    _wrong_look,
    _wrong_exclusions,
    _wrong_start,
    _wrong_plan,
)


NAMED_TENSORS = 3


def _unlike_built_twin(case: Case, build: BuildReport) -> Iterator[str]:
    recipe, twin = case.build.recipe, build.built_twin
    if twin is None or not twin.tensors:
        yield f"the recipe {recipe.id} is to equal another build, whose tensors nobody hashed"
        return
    names = {**twin.tensors, **build.tensors}
    if unlike := [name for name in names if twin.tensors.get(name) != build.tensors.get(name)]:
        named = ", ".join(unlike[:NAMED_TENSORS])
        yield f"{len(unlike)} of {len(names)} tensors are not those of the built twin: {named}"
    if not recipe.is_loaded:
        return
    if recipe.scheme.config is not None and twin.converted == 0:
        yield (
            "no module was counted in the process that quantized them, so that the count of a process that "
            "loads them proves nothing"
        )
    if not twin.files:
        yield f"the recipe {recipe.id} loads its transformer, and nothing was saved"
    if build.converted is None:
        yield "the worker did not count the modules that it quantized"
    elif build.converted:
        yield (
            f"{build.converted} modules were quantized in a process that was to load them: the recipe "
            f"{recipe.id} quantizes nothing"
        )


def _wrong_memory_saving(case: Case, saving: MemorySaving | None) -> Iterator[str]:
    recipe = case.build.recipe
    if saving is None:
        yield f"the worker did not look at what the recipe {recipe.id} saves of memory"
        return
    yield from _wrong_decoding(case, saving.decodes)
    if recipe.offload is None:
        return
    for name in case.build.pipeline.modules:
        for when, components in (("before the first image", saving.set_up), (LATER, saving.final)):
            for sentence in _wrong_offload(name, recipe.offload, components.get(name)):
                yield f"{when}, {sentence}"
        before, after = (each.get(name) for each in (saving.set_up, saving.final))
        if before and after and before.hooks != after.hooks:
            yield f"the hooks of {name} changed during generation: {before.hooks} before, {after.hooks} after"


LATER = "after the last image"


def _wrong_offload(name: str, offload: Offload, component: OffloadedComponent | None) -> Iterator[str]:
    if component is None:
        yield f"the worker did not say where the weights of {name} were"
        return
    if foreign := sorted(component.hooks.keys() - {offload.hook}):
        yield f"{name} had hooks of {', '.join(foreign)}, and {offload.id} sets those of {offload.hook}"
    if component.unmoved_bytes or not component.hooks.get(offload.hook):
        yield f"no {offload.hook} moved {component.unmoved_bytes} bytes of the weights of {name}"
    for device, count in component.bytes_on.items():
        if count and device != offload.waits_on:
            yield (
                f"{count} bytes of the weights of {name} were on {device}, and {offload.id} leaves them on "
                f"{offload.waits_on}"
            )


def _wrong_decoding(case: Case, decodes: Mapping[str, int]) -> Iterator[str]:
    decoding, batch = case.build.recipe.decoding, case.workload.batch_size
    parts = decodes.get("decode", 0) * (batch if decoding is Decoding.SLICED else 1)
    wanted = {"_decode": parts, "tiled_decode": parts if decoding is Decoding.TILED else 0}
    found = {method: decodes.get(method, 0) for method in wanted}
    if decoding is Decoding.SLICED and batch == 1:
        yield "the VAE was to decode one picture after another, and there is only one"
    elif not parts or found != wanted:
        yield (
            f"the VAE was to decode {decoding}, which is {wanted} calls in a generation, and there were "
            f"{found}"
        )


VAE, HALF, SINGLE = "vae", "float16", "float32"
LAID_OUT = ("transformer", VAE)
"""The components that a recipe with `channels_last` lays out."""


def _wrong_memory_format(recipe: Recipe, state: PipelineState) -> Iterator[str]:
    for name, component in state.components.items():
        wanted = component.convolutions if recipe.channels_last and name in LAID_OUT else 0
        if component.channels_last != wanted:
            yield (
                f"{component.channels_last} of the {component.convolutions} convolutions of {name} are in "
                f"channels_last, and the recipe {recipe.id} says {wanted}"
            )


def _to_be_left(build: Build, before: PipelineState, after: PipelineState) -> PipelineState:
    """What generating must leave of `before`: all of it, but for a VAE that the pipeline itself upcasts.

    The checksum of that one is of other words, so its values are taken to be those of `after`.
    """
    if not build.pipeline.upcasts_vae or build.recipe.scheme.dtype != HALF:
        return before
    components, left = dict(before.components), after.components.get(VAE)
    if left is not None and VAE in components:
        weight_bytes = 2 * components[VAE].weight_bytes
        components[VAE] = msgspec.structs.replace(
            components[VAE], weight_bytes=weight_bytes, checksum=left.checksum
        )
    groups = tuple(
        msgspec.structs.replace(group, dtype=SINGLE)
        if (group.component, group.dtype) == (VAE, HALF)
        else group
        for group in before.groups
    )
    return PipelineState(components=components, groups=groups)


def _changes(before: PipelineState, after: PipelineState) -> Iterator[str]:
    """What is no longer as it was before the first generation."""
    yield from _changed_looks(before.groups, after.groups)
    for name in dict.fromkeys((*before.components, *after.components)):
        was, now = before.components.get(name), after.components.get(name)
        if was is None or now is None:
            happened = "appeared" if was is None else "disappeared"
            yield f"the component {name} {happened} during generation"
        elif was != now:
            yield f"{_changed_weights(was, now)} of {name} changed during generation"


def _changed_weights(was: ComponentState, now: ComponentState) -> str:
    if was.weight_bytes != now.weight_bytes:
        return f"the size of the weights ({was.weight_bytes} bytes before, {now.weight_bytes} after)"
    # Before the values: another format stores the same ones in other words.
    if was.channels_last != now.channels_last:
        return f"the memory format ({was.channels_last} in channels_last before, {now.channels_last} after)"
    return "values of the weights"


def _changed_looks(before: tuple[ModuleGroup, ...], after: tuple[ModuleGroup, ...]) -> Iterator[str]:
    was, now = (Counter({_look_of(group): group.count for group in groups}) for groups in (before, after))
    for groups, surplus, verb in ((before, was - now, "were"), (after, now - was, "are")):
        when = "before the first image" if groups is before else "after the last image"
        for group in groups:
            if count := surplus[_look_of(group)]:
                yield f"{when}, {_described(msgspec.structs.replace(group, count=count), verb)}"


def _look_of(group: ModuleGroup) -> tuple[str, str, str, str | None, str | None]:
    return group.component, group.subclass, group.dtype, group.scale, group.activation


def _described(group: ModuleGroup, verb: str = "are") -> str:
    look = _look(group.subclass, group.dtype, group.scale, group.activation)
    return f"{group.count} Linear modules of {group.component} {verb} {look} ({', '.join(group.examples)})"


def _wanted(weight: QuantizedWeight) -> str:
    return _look(weight.subclass, weight.dtype, weight.granularity, weight.activation)


def _look(subclass: str, dtype: str, scale: str | None, activation: str | None) -> str:
    return f"{subclass} {dtype} with {scale or 'no'} scales and {activation or 'unquantized'} activations"
