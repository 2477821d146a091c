"""Which recorded cases say most about a case: its own record, then that of its nearest relative; pure."""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial

from perf_tests.harness.baselines.entry import Baselines, Entry, find_accepted
from perf_tests.tables.cases import Case
from perf_tests.tables.metrics.spec import STEP
from perf_tests.tables.recipes import CompileMode

Published = Mapping[str, Mapping[str, float]]
"""Case id -> GPU -> published latency in seconds; only ratios on one GPU are used."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RecordedCase:
    """A case with its accepted numbers."""

    case: Case
    entry: Entry
    is_elsewhere: bool = False
    """Whether another GPU has recorded it, and its times are scaled to this one."""


@dataclass(frozen=True, kw_only=True, slots=True)
class KnownCosts:
    """All that is known about one platform."""

    records: tuple[RecordedCase, ...] = ()
    published_s: Published = field(default_factory=dict)
    is_tuned: bool = False
    """Whether an earlier run has left what it chose by timing."""

    def nearest_first(self, case: Case) -> list[RecordedCase]:
        """The records, those that say most about `case` first (see `_distance`)."""
        return sorted(self.records, key=partial(_distance, case, self.published_s))

    def published_ratio(self, case: Case, other: Case) -> float | None:
        """Published seconds per step of `case` / of `other`, on one GPU; None where no GPU has both."""
        return _published_ratio(case, other, self.published_s)


def recorded_cases(baselines: Mapping[str, Baselines], cases: Iterable[Case]) -> tuple[RecordedCase, ...]:
    """Those of `cases` that have an entry in a platform's `baselines` and have not changed since."""
    found = ((case, find_accepted(baselines, case)) for case in cases)
    return tuple(
        RecordedCase(case=case, entry=accepted.entry)
        for case, accepted in found
        if accepted is not None and accepted.entry.digest == case.digest
    )


def are_both_quantized_or_neither(case: Case, other: Case) -> bool:
    """Whether quantizing takes one about as long as the other."""
    return (case.build.recipe.scheme.config is None) is (other.build.recipe.scheme.config is None)


def compile_alike(case: Case, other: Case) -> bool:
    """Whether the same parts of both are compiled, in the same mode.

    Tuning all kernels takes most of the time, and other schemes, and a decoder, have other kernels.
    """
    mine, theirs = case.build.recipe, other.build.recipe
    alike = mine.compile is theirs.compile and mine.compiles == theirs.compiles
    if not alike or mine.compile is not CompileMode.MAX_AUTOTUNE:
        return alike
    return (mine.scheme, mine.compile_vae) == (theirs.scheme, theirs.compile_vae)


def _distance(case: Case, published_s: Published, other: RecordedCase) -> tuple[object, ...]:
    """How far `other` is from `case`, as a sort key: the first difference decides.

    In this order: the case itself; what is done with it; its pipeline, then its family, because architecture
    matters most; its recipe, at another workload; a recipe where both have published times, because a
    published ratio is better than none; what is compiled; what moves the weights, which may take longer than
    to use them; the scheme, or else no scheme, because each scheme is faster or slower in its own way and has
    changed since it was published; where weights are quantized, which takes a hundred times as long on the
    host; the nearest size; and the most expensive, because a session that ends early does no harm.
    """
    mine, theirs = case.build, other.case.build
    return (
        other.case != case,
        theirs.activity is not mine.activity,
        theirs.pipeline.id != mine.pipeline.id,
        theirs.pipeline.family != mine.pipeline.family,
        theirs.recipe.id != mine.recipe.id,
        _published_ratio(case, other.case, published_s) is None,
        theirs.recipe.compile is not mine.recipe.compile,
        theirs.recipe.compile_vae is not mine.recipe.compile_vae,
        theirs.recipe.offload != mine.recipe.offload,
        theirs.recipe.scheme.id != mine.recipe.scheme.id,
        theirs.recipe.scheme.config is not None,
        theirs.recipe.quantized_on is not mine.recipe.quantized_on,
        abs(math.log(case.workload.pixels / other.case.workload.pixels)),
        -max(other.entry.metrics.get(STEP, (0.0,))),
        other.case.id,
    )


def _published_ratio(case: Case, other: Case, published_s: Published) -> float | None:
    # Encoding and decoding are a few percent of a published latency, and in both terms of the ratio.
    mine, theirs = _published_step_s(case, published_s), _published_step_s(other, published_s)
    both = sorted(mine.keys() & theirs.keys())
    return statistics.median(mine[gpu] / theirs[gpu] for gpu in both) if both else None


def _published_step_s(case: Case, published_s: Published) -> dict[str, float]:
    """GPU -> seconds per step, as published for `case` or for the full number of its steps."""
    default = case.build.pipeline.workload_of_batch(case.workload.batch_size)
    whole = (dataclasses.replace(case, workload=default),) if case.workload.pixels == default.pixels else ()
    known = next((each for each in (case, *whole) if each.id in published_s), None)
    if known is None:
        return {}
    return {gpu: latency_s / known.workload.steps for gpu, latency_s in published_s[known.id].items()}
