"""Compile the parts of a pipeline that its recipe names."""

from __future__ import annotations

from typing import Any

from perf_tests.tables.cases import Build
from perf_tests.tables.recipes import CompileMode
from perf_tests.worker.model import inductor_settings
from perf_tests.worker.model.compiled import cuda_graph
from perf_tests.worker.model.lazy import construct

# Not `fullgraph`: a graph break is to be counted and judged like everything else, not to end the case.
# All shapes are those of one workload, so `dynamic` would gain nothing where a recipe does not say otherwise.
OPTIONS: dict[str, Any] = {"dynamic": False}
# As published, where a graph break ends the case.
AUTOTUNED: dict[str, Any] = {**OPTIONS, "mode": "max-autotune", "fullgraph": True}


def apply(pipeline: Any, build: Build) -> None:
    """Apply the recipe's settings and mark modules for compilation, which happens at their first call."""
    if build.recipe.compiles:
        inductor_settings.use_ptxas_of_pool()
    for setting in build.recipe.settings:
        construct(setting.call)
    MODES[build.recipe.compile](pipeline, build)
    if build.recipe.compile_vae:
        # The pipeline calls `decode`, and not the module itself.
        import torch

        tuned = build.recipe.compile is CompileMode.MAX_AUTOTUNE
        pipeline.vae.decode = torch.compile(pipeline.vae.decode, **(AUTOTUNED if tuned else OPTIONS))
    if build.recipe.cuda_graph:
        cuda_graph.attach(pipeline.transformer)


def _eager(pipeline: Any, build: Build) -> None:
    """Nothing to compile."""


def _regional(pipeline: Any, build: Build) -> None:
    options = _options(build)
    if getattr(pipeline.transformer, "_repeated_blocks", None):
        pipeline.transformer.compile_repeated_blocks(**options)
        return
    for name in build.pipeline.blocks:
        for block in getattr(pipeline.transformer, name):
            block.compile(**options)


def _options(build: Build) -> dict[str, Any]:
    reshaping = build.recipe.reshaping
    return OPTIONS if reshaping is None else {**OPTIONS, "dynamic": reshaping.dynamic}


def _packaged(pipeline: Any, build: Build) -> None:
    """Nothing to compile: another process did (`packages.load`)."""


def _full(pipeline: Any, build: Build) -> None:
    pipeline.transformer.compile(**_options(build))


def _max_autotune(pipeline: Any, build: Build) -> None:
    pipeline.transformer.compile(**AUTOTUNED)


MODES = {
    CompileMode.EAGER: _eager,
    CompileMode.REGIONAL: _regional,
    CompileMode.FULL: _full,
    CompileMode.MAX_AUTOTUNE: _max_autotune,
    CompileMode.AOTI: _packaged,
}
