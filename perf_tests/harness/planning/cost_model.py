"""What one case will cost: seconds per phase, from its own baseline or from those of its relatives.

Baselines of other GPUs count as those of this one, with their generations scaled (see `elsewhere`).
What each phase takes in one fresh process:

* import, load: independent of what is done to the pipeline afterwards, so the median over everything that has
  been recorded, on this platform (import) or of the pipeline (load). The first worker on a machine reads
  everything from disk: the median is not moved by it, and a record whose import gives it away counts without
  the cold start. Where workers import ahead, so does a record without that, whose import gives it away as
  well.
* quantize, switch workload: as in the nearest record that has them; quantizing only from a case that is
  quantized if this one is.
* fidelity: as in the nearest record that has it, and `FIDELITY_STEPS` times what a step takes longer.
* inspect: as recorded; otherwise `INSPECTING` times a generation of two steps; where memory is saved, a whole
  one, whose peaks and copies are looked at; and where shapes change, compiling and generating in the others.
* generate: as recorded; otherwise from the nearest record, times (this generation / that generation), both
  composed of their stages: encode + first step + further steps + decode.
* built twin: as in the nearest record of the same pipeline; otherwise what building it and one generation
  take. Unknown where it packages and no record does.
* compile: contains a generation of two steps. What the nearest record of the same compile mode took beyond
  its own two steps, plus this case's two steps; with gradients, `COMPILING_GRADIENTS` times as much. A first
  process also takes what its recipe tunes by timing, unless an earlier run has left its choices; a record
  that found such counts without. What tunes all of its kernels, and has no record, as long as the platform
  allows.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from perf_tests.harness.planning import relatives
from perf_tests.harness.planning.relatives import KnownCosts, RecordedCase
from perf_tests.harness.planning.stages import StageTimes, scaled_to, stages_of
from perf_tests.harness.runs.projection import least_samples
from perf_tests.harness.stats import precision
from perf_tests.protocol.messages import Phase
from perf_tests.tables.cases import Case
from perf_tests.tables.platforms import Platform, WorkerStart
from perf_tests.tables.recipes import CompileMode

COMPILING_GRADIENTS = 4.0
"""What compiling takes with gradients, over what it takes without: 36 s in bf16, 56 and 68 s in float8 where
generating took 14 (flux1-dev-slim on an H200)."""
WARMUPS = 1
"""Generations of a process before the timed ones."""
COMPOSED_WARMUPS = 2
"""Warm-ups where the latency of all steps is composed: until two agree, nearly always the first two on an
H100."""
USUAL_SAMPLES = 7
"""Timed generations of a process until its time is precise: for steps that differ by 2 %, 25 in each."""
PRIMING_STEPS = 2
"""Steps of the generation that compiles (see `protocol.messages.Compile`)."""

FIDELITY_STEPS = 14.5
"""Steps that recording and comparing the transformer's answers takes: 13.6 to 15.4 in eager bf16 rows, whose
steps take 0.02 to 2.9 s."""
LEAST_FIDELITY = 0.3
"""Share of the seconds of another record, at least: not all of them are steps."""

INSPECTING = 2.6
"""What inspecting takes, over a generation of two steps: 2.3 to 3.0 (six rows of cogvideox-5b on an H200)."""

COLD_IMPORT = 2.0
"""A record whose import took this many times the usual one is that of a machine's first worker."""
AHEAD_IMPORT_S = 0.4
"""What is left of importing for a worker that imported ahead: 0.2 to 0.4 s on H200s, all others took 1.6 or
more."""
IMPORTED_ON_LOADING_S = 5.0
"""What loading takes longer in a worker that did not import ahead: transformers and diffusers, 4.8 and 5.3 s
of two pipelines on H200s."""
LEAST_LOAD_S = 1.0
"""What loading takes at least without these imports."""
LEAST_IMPORT_S = 2.0
"""What importing takes at least, wherever it happens: a worker that imported ahead waits for less, and tells
nothing by it."""

BUILDING = (Phase.IMPORT, Phase.LOAD, Phase.QUANTIZE)
"""What a worker does before it compiles: once for all of its cases."""

TimedRecord = tuple[RecordedCase, StageTimes]
"""A record that has stage times, and these."""


class CostBasis(StrEnum):
    """What an expectation is based on."""

    RECORDED = "recorded"
    """The case's own baseline has its seconds."""
    ELSEWHERE = "elsewhere"
    """Another GPU has recorded the case, and both have recorded another one."""
    ESTIMATED = "estimated"
    """From a record of the same pipeline."""
    GUESSED = "guessed"
    """From a record of another pipeline: the most expensive of the nearest."""
    UNKNOWN = "unknown"
    """The platform has no records."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ProcessCost:
    """What a case is expected to take in one process."""

    seconds: Mapping[Phase, float]
    """Without the phases that no record says anything about."""
    compile_again_s: float | None
    """`Phase.COMPILE` of every later process, which finds a warm compile cache; None where not even that of
    the first process is known."""
    basis: CostBasis
    source: str | None
    """Id of the case that the time to generate is taken from; None where it is unknown."""


UNKNOWN = ProcessCost(seconds={}, compile_again_s=None, basis=CostBasis.UNKNOWN, source=None)


def generations(case: Case, samples: int) -> int:
    """How many times a process of `case` generates in order to time `samples` generations."""
    return samples + (COMPOSED_WARMUPS if case.workload.measured_steps else WARMUPS)


def usual_samples(case: Case, platform: Platform, generation_s: float) -> int:
    """Timed generations of a process that is sampled until it is precise, at `generation_s` seconds each."""
    is_fixed = platform.interleave_twin or platform.process_noise is None
    if is_fixed or generation_s > precision.SLOW_GENERATION_S:
        return least_samples(case, platform)
    return max(platform.samples, USUAL_SAMPLES)


def expected_cost(
    case: Case, platform: Platform, known: KnownCosts, samples: int | None = None
) -> ProcessCost:
    """What `case` takes on `platform` in one process of its own with `samples` timed generations.

    `samples` of None stands for as many as it had when it was recorded, or as it usually has. The time to
    generate is scaled from the nearest record that has one (see `stages.scaled_to`).
    """
    nearest = known.nearest_first(case)
    timed = [(each, stages) for each in nearest if (stages := stages_of(each.entry)) is not None]
    if not timed:
        return UNKNOWN
    source, before = timed[0]
    stages = scaled_to(before, case, source, known)
    generation_s = stages.latency_s(case.steps) * _overhead(source, before, platform)
    samples = (
        samples or _recorded_samples(case, source, platform) or usual_samples(case, platform, generation_s)
    )
    tuning_s = 0.0 if known.is_tuned else case.build.recipe.tuning_s
    cold_s = _compile_s(case, stages, timed, _cold_s, tuning_s=tuning_s)
    if cold_s is None and case.build.recipe.compile is CompileMode.MAX_AUTOTUNE:
        cold_s = platform.timeouts.compile_s
    again_s = _compile_s(case, stages, timed, _warm_s, tuning_s=0.0)
    quantized_alike = [each for each in nearest if relatives.are_both_quantized_or_neither(case, each.case)]
    found = {
        Phase.IMPORT: _import_s(known, platform),
        Phase.LOAD: _load_s(case, nearest, platform),
        Phase.QUANTIZE: _first(quantized_alike, Phase.QUANTIZE),
        Phase.COMPILE: cold_s,
        Phase.GENERATE: generation_s * generations(case, samples),
        Phase.FIDELITY: _fidelity_s(case, timed, known),
        Phase.INSPECT: _inspect_s(case, stages, source, cold_s or 0.0),
        Phase.SWITCH_WORKLOAD: _first(nearest, Phase.SWITCH_WORKLOAD),
        Phase.BUILT_TWIN: _built_twin_s(case, platform, known, nearest),
    }
    return ProcessCost(
        seconds={phase: seconds for phase, seconds in found.items() if seconds is not None},
        compile_again_s=cold_s if cold_s is None or again_s is None else again_s,
        basis=_basis(case, source),
        source=source.case.id,
    )


def _recorded_samples(case: Case, source: RecordedCase, platform: Platform) -> int | None:
    """Timed generations that a process of `case` had; None where `source` is another case or does not say.

    None, too, where the platform fixes their number, which may have been another then.
    """
    if source.case != case or source.entry.samples is None or platform.interleave_twin:
        return None
    if source.entry.samples == platform.samples:  # as few as were allowed, which may be fewer now
        return least_samples(case, platform)
    # It may have been recorded when fewer were asked for.
    return max(source.entry.samples, least_samples(case, platform))


def _basis(case: Case, source: RecordedCase) -> CostBasis:
    if source.case == case and Phase.GENERATE in source.entry.seconds:
        return CostBasis.ELSEWHERE if source.is_elsewhere else CostBasis.RECORDED
    same = source.case.build.pipeline.id == case.build.pipeline.id
    return CostBasis.ESTIMATED if same else CostBasis.GUESSED


# To generate


def _overhead(source: RecordedCase, stages: StageTimes, platform: Platform) -> float:
    """Host seconds spent on the source's generations / the seconds of their stages; 1 where it is unknown."""
    spent_s = source.entry.seconds.get(Phase.GENERATE)
    if spent_s is None:
        return 1.0
    generated_s = stages.latency_s(source.case.steps)
    # An entry that does not say how many samples it had dates from when every process had the same number.
    samples = source.entry.samples or platform.samples
    return spent_s / (generations(source.case, samples) * generated_s)


def _fidelity_s(case: Case, timed: Iterable[TimedRecord], known: KnownCosts) -> float | None:
    """Recording and comparing answers takes eager steps, and what belongs to pipeline and compile mode."""
    for each, before in timed:
        spent_s = each.entry.seconds.get(Phase.FIDELITY)
        if spent_s is not None:
            longer_ms = scaled_to(before, case, each, known).step_ms - before.step_ms
            return max(spent_s * LEAST_FIDELITY, spent_s + FIDELITY_STEPS * longer_ms / 1e3)
    return None


def _inspect_s(case: Case, stages: StageTimes, source: RecordedCase, cold_s: float) -> float:
    """`cold_s` is what compiling takes in one shape."""
    recorded_s = source.entry.seconds.get(Phase.INSPECT) if source.case == case else None
    if recorded_s is not None:
        return recorded_s
    looked_at_s = stages.latency_s(case.steps) if case.build.recipe.saves_memory else 0.0
    return INSPECTING * stages.latency_s(PRIMING_STEPS) + looked_at_s + _other_shapes_s(case, stages, cold_s)


def _other_shapes_s(case: Case, stages: StageTimes, cold_s: float) -> float:
    reshaping, timed = case.build.recipe.reshaping, case.workload
    if reshaping is None:
        return 0.0
    others = reshaping.workloads(timed)
    # Each twice, and back in the shape that was timed.
    images = 1 + 2 * sum(each.pixels for each in others) / timed.pixels
    return (1 if reshaping.dynamic else len(others)) * cold_s + images * stages.latency_s(case.steps)


# To compile


def _compile_s(
    case: Case,
    stages: StageTimes,
    timed: Iterable[TimedRecord],
    compile_s: Callable[[RecordedCase], float | None],
    *,
    tuning_s: float,
) -> float | None:
    """`compile_s` says what a record spent without tuning, which takes `tuning_s` in addition; None without a
    record."""
    priming_s = stages.latency_s(PRIMING_STEPS)
    for each, before in timed:
        spent_s = compile_s(each)
        if spent_s is None or not relatives.compile_alike(case, each.case):
            continue
        if each.case == case:
            return spent_s + tuning_s
        gradients = COMPILING_GRADIENTS if case.is_training and not each.case.is_training else 1.0
        return gradients * max(0.0, spent_s - before.latency_s(PRIMING_STEPS)) + priming_s + tuning_s
    return None if case.build.recipe.compiles else priming_s


def _cold_s(record: RecordedCase) -> float | None:
    # The phase's own median is that of a warm process as soon as there are several.
    cold_s = record.entry.metrics.get("compile_cold_s")
    if cold_s is None:
        return record.entry.seconds.get(Phase.COMPILE)
    # Not below zero where a host tuned faster than the recipe expects.
    return max(0.0, statistics.median(cold_s) - record.case.build.recipe.tuning_s)


def _warm_s(record: RecordedCase) -> float | None:
    warm_s = record.entry.metrics.get("compile_warm_s")
    return None if warm_s is None else statistics.median(warm_s)


# To build


def _imports_ahead(platform: Platform) -> bool:
    return platform.worker_start is WorkerStart.AHEAD


def _import_s(known: KnownCosts, platform: Platform) -> float | None:
    usual_s = _median((each for each in known.records if not each.is_elsewhere), Phase.IMPORT)
    return min(usual_s, AHEAD_IMPORT_S) if usual_s is not None and _imports_ahead(platform) else usual_s


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


def _built_twin_s(
    case: Case, platform: Platform, known: KnownCosts, nearest: Iterable[RecordedCase]
) -> float | None:
    twin, is_packaged = case.built_twin, case.build.recipe.is_packaged
    if twin is None:
        return None
    alike = (
        each
        for each in nearest
        if each.case.build.pipeline.id == case.build.pipeline.id
        and each.case.build.recipe.is_packaged is is_packaged
    )
    recorded_s = _first(alike, Phase.BUILT_TWIN)
    if recorded_s is not None or is_packaged:
        return recorded_s
    seconds = expected_cost(twin, platform, known, 1).seconds
    phases = (*BUILDING, Phase.COMPILE) if twin.build.recipe.compiles else BUILDING
    built_s = math.fsum(seconds.get(phase, 0.0) for phase in phases)
    return built_s + seconds.get(Phase.GENERATE, 0.0) / generations(twin, 1)


def _warm_load_s(
    record: RecordedCase, all_records: Iterable[RecordedCase], platform: Platform
) -> float | None:
    load_s, import_s = (record.entry.seconds.get(phase) for phase in (Phase.LOAD, Phase.IMPORT))
    usual_s = _median(all_records, Phase.IMPORT)
    if load_s is None or import_s is None or usual_s is None:
        return load_s
    if import_s >= COLD_IMPORT * max(usual_s, LEAST_IMPORT_S):
        load_s = max(0.0, load_s - platform.cold_start_s)
    if _imports_ahead(platform) and import_s > COLD_IMPORT * AHEAD_IMPORT_S:
        load_s = max(min(load_s, LEAST_LOAD_S), load_s - IMPORTED_ON_LOADING_S)
    return load_s


def _first(nearest: Iterable[RecordedCase], phase: Phase) -> float | None:
    return next((each.entry.seconds[phase] for each in nearest if phase in each.entry.seconds), None)


def _median(records: Iterable[RecordedCase], phase: Phase) -> float | None:
    found = [each.entry.seconds[phase] for each in records if phase in each.entry.seconds]
    return statistics.median(found) if found else None
