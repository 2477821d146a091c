"""What a worker compiled or loaded, and what ran, against the recipe; every contradiction is a sentence."""

from __future__ import annotations

from collections.abc import Iterator

from perf_tests.harness.records.builds import BuildReport
from perf_tests.protocol.reports import StepReport
from perf_tests.tables.recipes import CompileMode, Recipe


def contradictions(recipe: Recipe, build: BuildReport) -> Iterator[str]:
    """What of the counters of `build` contradicts the compile mode and the settings of `recipe`."""
    yield from _compile_contradictions(recipe, build)
    yield from _compiled_though_packaged(recipe, build)
    yield from _nothing_timed(recipe, build)
    yield from _ineffective_settings(recipe, build)


def _compile_contradictions(recipe: Recipe, build: BuildReport) -> Iterator[str]:
    graphs = build.values.get("compiled_graphs")
    if recipe.compiles:
        if graphs == 0:
            yield f"the recipe {recipe.id} compiles, but no graph was compiled: it fell back to eager"
        if build.cache is None:
            yield f"the recipe {recipe.id} compiles, but inductor's cache was never asked"
    else:
        if graphs:
            yield f"the recipe {recipe.id} {_without(recipe)}, but {graphs:.0f} graphs were compiled"
        if build.cache is not None:
            yield f"the recipe {recipe.id} {_without(recipe)}, but inductor's cache counters were reported"


def _without(recipe: Recipe) -> str:
    return "loads compiled blocks" if recipe.is_packaged else "is eager"


def _compiled_though_packaged(recipe: Recipe, build: BuildReport) -> Iterator[str]:
    """What shows that blocks from packages were compiled all the same, or that there were none."""
    if not recipe.is_packaged:
        return
    if build.built_twin is None or build.built_twin.packages is None:
        yield f"the recipe {recipe.id} loads compiled blocks, and nothing was packaged"
    kernels = build.values.get("generated_kernels")
    if kernels is None:
        yield f"the recipe {recipe.id} loads compiled blocks, and nobody counted generated kernels"
    elif kernels:
        yield f"the recipe {recipe.id} loads compiled blocks, but {kernels:.0f} kernels were generated"


def _nothing_timed(recipe: Recipe, build: BuildReport) -> Iterator[str]:
    cache = build.cache
    # Of a CPU, inductor may have a single kernel for each product.
    on_gpu = any(window.allocated_mib is not None for window in build.memory.values())
    timed = cache is None or cache.state != "cold" or cache.tuned is not None
    if recipe.compile is CompileMode.MAX_AUTOTUNE and on_gpu and not timed:
        yield f"the recipe {recipe.id} chooses kernels by timing them, and compiled without timing any"


def _ineffective_settings(recipe: Recipe, build: BuildReport) -> Iterator[str]:
    """Settings that have another value than the recipe's, or whose kernels did not run."""
    for setting in recipe.settings:
        report = (build.settings or {}).get(setting.id)
        if report is None:
            yield f"the worker did not say what became of the setting {setting.id} of the recipe {recipe.id}"
            continue
        for name, value in setting.inductor.items():
            if (found := report.inductor.get(name)) != str(value):
                yield f"the recipe {recipe.id} sets {name} of inductor to {value}, and it ended as {found}"
        if report.kernels == 0:
            yield (
                f"the setting {setting.id} of the recipe {recipe.id} had no effect: no kernel of a step is "
                f"called {setting.kernels}"
            )


def blocks_that_ran_otherwise(recipe: Recipe, step: StepReport) -> Iterator[str]:
    """Repeated blocks whose Python code ran in a step though it is compiled, or did not though it is not."""
    compiles = recipe.compile is not CompileMode.EAGER
    for name, calls in step.blocks.items():
        if compiles and calls:
            how = "loads" if recipe.is_packaged else "compiles"
            yield f"the recipe {recipe.id} {how} every {name}, and {calls} calls in a step were eager"
        elif not compiles and not calls:
            yield f"the recipe {recipe.id} is eager, and no {name} ran eager in a step"
