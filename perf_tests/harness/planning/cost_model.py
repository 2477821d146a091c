"""What one case will cost: seconds per phase, from its own baseline or from those of its relatives.

What each phase takes, in one fresh process:

* import, load: the same whatever is done to the pipeline afterwards, so the median over all that the platform
  (import) or the pipeline (load) has recorded. The first worker on a machine reads everything from disk: a
  median does not follow it, and a record that gives it away by its import counts without the cold start.
* quantize, turn: as in the nearest record that knows them, quantized or not as the case is.
* generate: as recorded; or from the nearest record, times (this generation / that generation), both composed
  of their stages: encode + first step + further steps + decode.
* compile: contains a generation of two steps. What the nearest record of the same compile mode took beyond
  its own two steps, plus this case's two steps.
"""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from functools import partial

from perf_tests.harness.baselines import files
from perf_tests.harness.baselines.files import Baselines, Entry
from perf_tests.harness.stats import observations
from perf_tests.protocol.messages import Phase
from perf_tests.tables.cases import Case
from perf_tests.tables.platforms import Platform

WARMUPS = 1
"""Generations of a process before those that are timed."""
COMPOSED_WARMUPS = 2
"""The same where the latency of all steps is composed: two that agree, as nearly always on an H100."""
USUAL_SAMPLES = 7
"""Timed generations of a process until its time is precise: steps that differ by 2 %, 25 of them each."""
PRIMING_STEPS = 2
"""Steps of the generation that compiles (see `protocol.Compile`)."""

COLD_IMPORT = 2.0
"""Times the usual import beyond which a record is that of a machine's first worker."""


class CostBasis(StrEnum):
    """How an expectation is known."""

    RECORDED = "recorded"
    """The case's own baseline has its seconds."""
    ESTIMATED = "estimated"
    """From a record of the same pipeline."""
    GUESSED = "guessed"
    """From a record of another pipeline: the dearest of the nearest."""
    UNKNOWN = "unknown"
    """The platform has no records."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RecordedCase:
    """A case with its accepted numbers."""

    case: Case
    entry: Entry


Published = Mapping[str, Mapping[str, float]]
"""Case id -> GPU -> published latency; only ratios on one GPU are used."""


@dataclass(frozen=True, kw_only=True, slots=True)
class KnownCosts:
    """All that is known of one platform."""

    records: tuple[RecordedCase, ...] = ()
    published_s: Published = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class ProcessCost:
    """What a case is expected to take in one process."""

    seconds: Mapping[Phase, float]
    """Without the phases that no record tells anything about."""
    compile_again_s: float | None
    """`Phase.COMPILE` of every process after the first, which finds the compile cache filled; None where not
    even the first one's is known."""
    basis: CostBasis
    source: str | None
    """Id of the case that the time to generate is taken from; None where it is unknown."""


UNKNOWN = ProcessCost(seconds={}, compile_again_s=None, basis=CostBasis.UNKNOWN, source=None)


def recorded_cases(baselines: Mapping[str, Baselines], cases: Iterable[Case]) -> tuple[RecordedCase, ...]:
    """Those of `cases` that have an entry in a platform's `baselines` and have not changed since."""
    found = ((case, files.find(baselines, case)) for case in cases)
    return tuple(
        RecordedCase(case=case, entry=accepted.entry)
        for case, accepted in found
        if accepted is not None and accepted.entry.digest == case.digest
    )


def generations(case: Case, samples: int) -> int:
    """How often a process of `case` generates for `samples` timed ones."""
    return samples + (COMPOSED_WARMUPS if case.workload.measured_steps else WARMUPS)


def usual_samples(platform: Platform, generation_s: float) -> int:
    """Timed generations of a process that is sampled until it is precise (see `stats.sampling_end`)."""
    is_fixed = platform.interleave_twin or platform.process_noise is None
    if is_fixed or generation_s > observations.SLOW_GENERATION_S:
        return platform.samples
    return max(platform.samples, USUAL_SAMPLES)


def expected_cost(
    case: Case, platform: Platform, known: KnownCosts, samples: int | None = None
) -> ProcessCost:
    """What `case` takes on `platform`, in one process of its own with `samples` timed generations; None: as
    many as it had when it was recorded, or usually has.

    The nearest record that tells how long it generates is scaled: see `_distance` for what is near, and
    `_scaled` for how.
    """
    nearest = sorted(known.records, key=partial(_distance, case, known.published_s))
    timed = [(each, stages) for each in nearest if (stages := _stages(each.entry)) is not None]
    if not timed:
        return UNKNOWN
    source, before = timed[0]
    stages = _scaled(before, case, source, known.published_s)
    generate_s = stages.latency_s(case.workload.generated_steps) * _overhead(source, before, platform)
    usual = usual_samples(platform, generate_s)
    recorded_samples = source.entry.samples if source.case == case else None
    if recorded_samples is not None:
        # It may have been recorded when fewer were asked for.
        recorded_samples = max(recorded_samples, platform.samples)
    cold_s = _compile_s(case, stages, timed, _cold_s)
    again_s = _compile_s(case, stages, timed, _warm_s)
    found = {
        Phase.IMPORT: _median(known.records, Phase.IMPORT),
        Phase.LOAD: _load_s(case, nearest, platform),
        Phase.QUANTIZE: _first([each for each in nearest if _is_alike(case, each.case)], Phase.QUANTIZE),
        Phase.COMPILE: cold_s,
        Phase.GENERATE: generate_s * generations(case, samples or recorded_samples or usual),
        Phase.FIDELITY: _first(nearest, Phase.FIDELITY),
        Phase.SWITCH_WORKLOAD: _first(nearest, Phase.SWITCH_WORKLOAD),
    }
    return ProcessCost(
        seconds={phase: seconds for phase, seconds in found.items() if seconds is not None},
        compile_again_s=cold_s if cold_s is None or again_s is None else again_s,
        basis=_basis(case, source),
        source=source.case.id,
    )


def _basis(case: Case, source: RecordedCase) -> CostBasis:
    if source.case == case and Phase.GENERATE in source.entry.seconds:
        return CostBasis.RECORDED
    same = source.case.build.pipeline.id == case.build.pipeline.id
    return CostBasis.ESTIMATED if same else CostBasis.GUESSED


# What is near


def _distance(case: Case, published_s: Published, other: RecordedCase) -> tuple[object, ...]:
    """How far `other` is from `case`; the first difference decides.

    The case itself; its pipeline, then its family, because architecture decides over everything else; its
    recipe, at another workload; a recipe that both are published for, because a published ratio is better
    than none; what is compiled; the scheme, else none, because each is faster or slower in its own way and
    has changed since it was published; the nearest size; and the dearest, because a session that ends early
    does no harm.
    """
    mine, theirs = case.build, other.case.build
    return (
        other.case != case,
        theirs.pipeline.id != mine.pipeline.id,
        theirs.pipeline.family != mine.pipeline.family,
        theirs.recipe.id != mine.recipe.id,
        not _are_published(case, other.case, published_s),
        theirs.recipe.compile is not mine.recipe.compile,
        theirs.recipe.compile_vae is not mine.recipe.compile_vae,
        theirs.recipe.scheme.id != mine.recipe.scheme.id,
        theirs.recipe.scheme.config is not None,
        abs(math.log(case.workload.pixels / other.case.workload.pixels)),
        -max(other.entry.metrics.get("denoise_step_ms", (0.0,))),
        other.case.id,
    )


def _are_published(case: Case, other: Case, published_s: Published) -> bool:
    return _published_ratio(case, other, published_s) is not None


def _published_ratio(case: Case, other: Case, published_s: Published) -> float | None:
    """Published seconds per step of `case` / of `other`, on one GPU; None where no GPU has both.

    Encoding and decoding are a few percent of a published latency, and in both terms of the ratio.
    """
    mine, theirs = _published_step_s(case, published_s), _published_step_s(other, published_s)
    both = sorted(mine.keys() & theirs.keys())
    return statistics.median(mine[gpu] / theirs[gpu] for gpu in both) if both else None


def _published_step_s(case: Case, published_s: Published) -> dict[str, float]:
    """GPU -> seconds per step, as published for `case` or for all steps of what it generates few of."""
    default = case.build.pipeline.workload_of_batch(case.workload.batch_size)
    whole = (dataclasses.replace(case, workload=default),) if case.workload.pixels == default.pixels else ()
    known = next((each for each in (case, *whole) if each.id in published_s), None)
    if known is None:
        return {}
    return {gpu: latency_s / known.workload.steps for gpu, latency_s in published_s[known.id].items()}


def _is_alike(case: Case, other: Case) -> bool:
    """Whether both are quantized, or neither."""
    return (case.build.recipe.scheme.config is None) is (other.build.recipe.scheme.config is None)


def _compiles_alike(case: Case, other: Case) -> bool:
    mine, theirs = case.build.recipe, other.build.recipe
    return mine.compile is theirs.compile and mine.compiles == theirs.compiles


# To generate


@dataclass(frozen=True, kw_only=True, slots=True)
class _Stages:
    """Median milliseconds of the stages of a generation."""

    encode_ms: float
    first_step_ms: float
    step_ms: float
    decode_ms: float

    def latency_s(self, steps: int) -> float:
        return (self.encode_ms + self.first_step_ms + (steps - 1) * self.step_ms + self.decode_ms) / 1e3

    def scaled(self, *, encode: float, step: float, decode: float) -> _Stages:
        return _Stages(
            encode_ms=self.encode_ms * encode,
            first_step_ms=self.first_step_ms * step,
            step_ms=self.step_ms * step,
            decode_ms=self.decode_ms * decode,
        )


def _stages(entry: Entry) -> _Stages | None:
    names = ("encode_ms", "first_step_ms", "denoise_step_ms", "decode_ms")
    ms = {name: statistics.median(entry.metrics[name]) for name in names if name in entry.metrics}
    if not {"encode_ms", "first_step_ms", "decode_ms"} <= ms.keys():
        return None
    return _Stages(
        encode_ms=ms["encode_ms"],
        first_step_ms=ms["first_step_ms"],
        # A generation of one step has no later one.
        step_ms=ms.get("denoise_step_ms", ms["first_step_ms"]),
        decode_ms=ms["decode_ms"],
    )


def _scaled(stages: _Stages, case: Case, source: RecordedCase, published_s: Published) -> _Stages:
    """`stages`, those of `source`, for `case`.

    A step by the ratio of the published seconds per step, where both are published, else by that of the
    pixels; decoding by the pixels; encoding as it is, since the prompt is the same. All of them by the
    measured ratio, where the source was measured beside `case` as its fp32 twin.
    """
    of_twin = source.entry.metrics.get("time_ratio_vs_fp32")
    if of_twin is not None and case == source.case.fp32_twin:
        slower = 1 / statistics.median(of_twin)
        return stages.scaled(encode=slower, step=slower, decode=slower)
    sizes = case.workload.pixels / source.case.workload.pixels
    published = _published_ratio(case, source.case, published_s)
    return stages.scaled(encode=1.0, step=sizes if published is None else published, decode=sizes)


def _overhead(source: RecordedCase, stages: _Stages, platform: Platform) -> float:
    """What the host spent on the source's generations / what they took; 1 where it is not known."""
    spent_s = source.entry.seconds.get(Phase.GENERATE)
    if spent_s is None:
        return 1.0
    generated_s = stages.latency_s(source.case.workload.generated_steps)
    # What does not say how many samples it had was recorded when each process had the same number.
    samples = source.entry.samples or platform.samples
    return spent_s / (generations(source.case, samples) * generated_s)


# To compile


def _compile_s(
    case: Case,
    stages: _Stages,
    timed: Iterable[tuple[RecordedCase, _Stages]],
    compile_s: Callable[[Entry], float | None],
) -> float | None:
    priming_s = stages.latency_s(PRIMING_STEPS)
    for each, before in timed:
        spent_s = compile_s(each.entry)
        if spent_s is None or not _compiles_alike(case, each.case):
            continue
        if each.case == case:
            return spent_s
        return max(0.0, spent_s - before.latency_s(PRIMING_STEPS)) + priming_s
    return None if case.build.recipe.compiles else priming_s


def _cold_s(entry: Entry) -> float | None:
    # The phase's own median is that of a warm process as soon as there are several.
    cold_s = entry.metrics.get("compile_cold_s")
    return entry.seconds.get(Phase.COMPILE) if cold_s is None else statistics.median(cold_s)


def _warm_s(entry: Entry) -> float | None:
    warm_s = entry.metrics.get("compile_warm_s")
    return None if warm_s is None else statistics.median(warm_s)


# To build


def _load_s(case: Case, nearest: Sequence[RecordedCase], platform: Platform) -> float | None:
    mine = (case.build.pipeline.id, case.build.weights)
    warm_s = [(each, _warm_load_s(each, nearest, platform)) for each in nearest]
    loads = [(each, load_s) for each, load_s in warm_s if load_s is not None]
    same = [
        load_s for each, load_s in loads if (each.case.build.pipeline.id, each.case.build.weights) == mine
    ]
    if same:
        return statistics.median(same)
    return loads[0][1] if loads else None


def _warm_load_s(
    record: RecordedCase, all_records: Iterable[RecordedCase], platform: Platform
) -> float | None:
    load_s, import_s = (record.entry.seconds.get(phase) for phase in (Phase.LOAD, Phase.IMPORT))
    usual_s = _median(all_records, Phase.IMPORT)
    if load_s is None or import_s is None or usual_s is None or import_s < COLD_IMPORT * usual_s:
        return load_s
    return max(0.0, load_s - platform.cold_start_s)


def _first(nearest: Iterable[RecordedCase], phase: Phase) -> float | None:
    return next((each.entry.seconds[phase] for each in nearest if phase in each.entry.seconds), None)


def _median(records: Iterable[RecordedCase], phase: Phase) -> float | None:
    found = [each.entry.seconds[phase] for each in records if phase in each.entry.seconds]
    return statistics.median(found) if found else None
