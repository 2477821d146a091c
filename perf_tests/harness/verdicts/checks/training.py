"""What was trained against what the recipe asked for; every contradiction is a sentence."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from perf_tests.protocol.training import TrainingReport
from perf_tests.tables.recipes import Recipe

NAMED = 3
ADAPTER_DTYPE = "float32"
"""Steps as small as those of training vanish in bf16."""


def contradictions(recipe: Recipe, report: TrainingReport | None) -> Iterator[str]:
    """What of `report` contradicts `recipe`, which trains; None is what a worker reports that does not."""
    if report is None:
        yield "the worker did not report what it has trained"
        return
    for check in CHECKS:
        yield from check(recipe, report)


def _wrong_conversion(recipe: Recipe, report: TrainingReport) -> Iterator[str]:
    if recipe.trains_in_float8 and not report.expected_float8:
        yield f"the recipe {recipe.id} found no Linear module to convert to float8"
    if report.float8 != report.expected_float8 or report.wrong_linears:
        yield (
            f"{report.float8} Linear modules multiply in float8, and the recipe {recipe.id} says "
            f"{report.expected_float8}; not as it says: {_named(report.wrong_linears)}"
        )


def _wrong_adapters(recipe: Recipe, report: TrainingReport) -> Iterator[str]:
    if not report.adapters:
        yield f"the recipe {recipe.id} trains adapters, and nothing was trained"
    elif report.adapter_dtypes != (ADAPTER_DTYPE,):
        yield f"the adapters are {', '.join(report.adapter_dtypes)}, and are to be {ADAPTER_DTYPE}"
    if report.idle_adapters:
        yield (
            f"{len(report.idle_adapters)} of {report.adapters} adapters had no finite gradient other than 0, "
            f"or did not move: {_named(report.idle_adapters)}"
        )


def _changed_weights(_recipe: Recipe, report: TrainingReport) -> Iterator[str]:
    before, after = report.frozen_sha256
    if not report.frozen:
        yield "no weight was frozen, so that what was trained is not an adapter alone"
    elif report.changed or before != after:
        yield (
            f"{len(report.changed)} of {report.frozen} frozen weights changed while the adapters were "
            f"trained: {_named(report.changed)}"
        )


def _wrong_products(recipe: Recipe, report: TrainingReport) -> Iterator[str]:
    if report.kernels is None:  # not a contradiction: their metrics are missing
        return
    for when, kernels in (("forward", report.kernels.forward), ("backward", report.kernels.backward)):
        if recipe.trains_in_float8 and not kernels:
            yield f"the recipe {recipe.id} multiplies in float8, and no product of the {when} pass did"
        elif kernels and not recipe.trains_in_float8:
            yield (
                f"the recipe {recipe.id} multiplies in {recipe.scheme.dtype}, and the {when} pass ran "
                f"{_named(tuple(kernels))}"
            )


def _named(names: Sequence[str]) -> str:
    return ", ".join(names[:NAMED]) or "none is named"


CHECKS: tuple[Callable[[Recipe, TrainingReport], Iterator[str]], ...] = (
    _wrong_conversion,
    _wrong_adapters,
    _changed_weights,
    _wrong_products,
)
