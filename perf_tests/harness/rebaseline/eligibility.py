"""Why a run cannot become a baseline: one sentence, or None where it can."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from perf_tests.harness.baselines.entry import Entry
from perf_tests.harness.processes.plain_text import harmless
from perf_tests.harness.rebaseline.candidates import CASES, drift_of, reference_of, shows_noise
from perf_tests.harness.runs import validity
from perf_tests.harness.runs.record import Progress, Run, RunRecord, Status
from perf_tests.harness.stats import location, observations, precision, sequential_bounds
from perf_tests.harness.verdicts.gates import as_judged, gated_metrics
from perf_tests.tables.cases import Case
from perf_tests.tables.metrics.host_bound import unsteady_of
from perf_tests.tables.metrics.rows import METRIC_BY_NAME
from perf_tests.tables.metrics.spec import Better
from perf_tests.tables.platforms import PLATFORM_BY_ID, Noise
from perf_tests.tables.recipes import Recipe

MAX_NOISE_PCT = 5.0
"""Between the generations of one process: anything above means that the machine was disturbed."""
MOST_ENCODE_RATIO = 1.75
"""A process that takes so many times the fastest encoding was held up by its host. Of 68 processes on H100s,
67 took at most 1.61 times the fastest of their case and reference, one 1.89 times in all its generations."""
ENCODE = METRIC_BY_NAME["encode_ms"]
UNMEASURED = frozenset({Status.INVALID, Status.INCONCLUSIVE, Status.UNSUPPORTED, Status.NOT_RUN})


def objection_to_run(run: Run, record: RunRecord, platform: str | None) -> str | None:
    """Why `run`, a case of `record`, cannot become a baseline, judging by how it was measured.

    `platform` is the only platform that was asked for; None allows all.
    """
    if platform is not None and run.platform != platform:
        return f"it is a run of another platform: it was measured on {run.platform}, not on {platform}"
    for check in (_unknown, _injected, _failed, _moved, _foreign, _invalid, _noisy, _stalled, _unmeasured):
        why = check(run, record)
        if why is not None:
            return harmless(why)  # it quotes the record, which anybody may have written
    return None


def _unknown(run: Run, _record: RunRecord) -> str | None:
    known = CASES.get(run.id)
    if known is None:
        return "the matrix has no such case: it was renamed or removed since the run"
    if run.platform not in known.platforms or run.pipeline != known.case.build.pipeline.id:
        return (
            f"it is a run of another platform: measured on {run.platform}, while the matrix has the case on "
            f"{', '.join(known.platforms)}"
        )
    return None


def _injected(run: Run, _record: RunRecord) -> str | None:
    return f"faults were injected into it: {', '.join(run.injected)}" if run.injected else None


def _failed(run: Run, _record: RunRecord) -> str | None:
    if run.failure is not None:
        return f"it failed: {run.failure.message}"
    if run.progress is Progress.INTERRUPTED:
        return "it was interrupted before it had all its processes"
    unjudged = run.status is Status.INCONCLUSIVE and run.progress is Progress.MEASURED
    if run.status.is_error or (run.status in UNMEASURED and not unjudged):
        return f"it is {run.status}: {run.reason}"
    for each in run.verdicts:
        if each.status in UNMEASURED or each.status.is_error:
            return f"{each.metric} is {each.status}: {each.reason}"
    return None


def _moved(run: Run, _record: RunRecord) -> str | None:
    digest = CASES[run.id].case.digest
    if run.digest == digest:
        return None
    digests = f"digest {run.digest[:12]} then, {digest[:12]} now"
    return f"the case has changed since the run ({digests}): measure it again"


def _foreign(run: Run, _record: RunRecord) -> str | None:
    asked = PLATFORM_BY_ID[run.platform].gpu
    asked_name = asked.name if asked else None
    for process in run.processes:
        gpu = process.environment.gpu
        if (gpu.name if gpu else None) != asked_name:
            return (
                f"it is a run of another platform: it ran on {gpu.name if gpu else 'a processor'}, "
                f"which is not {run.platform}"
            )
    units = sorted({process.environment.unit for process in run.processes})
    return f"its processes ran on different units: {', '.join(units)}" if len(units) > 1 else None


def _invalid(run: Run, _record: RunRecord) -> str | None:
    # Without a test of latency there is no INVALID verdict, but the times are just as bad.
    why = validity.invalidity(run)
    return f"its times cannot be trusted: {why}" if why else None


def _noisy(run: Run, _record: RunRecord) -> str | None:
    case, platform = CASES[run.id].case, PLATFORM_BY_ID[run.platform]
    if not any(metric.is_noisy for metric in gated_metrics(case, platform)):
        return None
    noise_pct, most_pct = precision.generation_noise_pct(run), _most_noise_pct(case)
    if noise_pct <= most_pct:
        return None
    return (
        f"its generations scatter by {noise_pct:.1f} %, more than {most_pct:g} %: a baseline made from it "
        "would gate nothing; measure it again"
    )


def _stalled(run: Run, record: RunRecord) -> str | None:
    """Why the host held up the encoders of a process, which are those of the reference unless quantized, or
    copied to the device first."""
    recipe, platform = CASES[run.id].case.build.recipe, PLATFORM_BY_ID[run.platform]
    if platform.device not in ENCODE.gates:
        return None
    reference = None if _encodes_otherwise(recipe) else reference_of(run, record)
    fastest_ms = min((*_encodes_ms(run), *(_encodes_ms(reference) if reference else ())), default=math.inf)
    for number, took_ms in enumerate(observations.observe(ENCODE, run, None).values, start=1):
        if took_ms > MOST_ENCODE_RATIO * fastest_ms:
            return (
                f"the host held it up: encoding took {took_ms:.0f} ms in process {number}, "
                f"{took_ms / fastest_ms:.2f} times the {fastest_ms:.0f} ms of the fastest of the same, and "
                f"at most {MOST_ENCODE_RATIO:g} times is usual; measure it again on a quiet machine"
            )
    return None


def _encodes_otherwise(recipe: Recipe) -> bool:
    quantizes_encoders = any(name.startswith("text_encoder") for name in recipe.quantized_components)
    return quantizes_encoders or recipe.offload is not None


def _encodes_ms(run: Run) -> tuple[float, ...]:
    return tuple(
        value
        for process in run.processes
        for sample in process.samples
        for value in sample.values.get(ENCODE.name, ())
    )


def _most_noise_pct(case: Case) -> float:
    unsteady = unsteady_of(case)
    # What is unsteady has a limit that allows for its noise: half of the limit may be used up.
    return MAX_NOISE_PCT if unsteady is None else max(MAX_NOISE_PCT, unsteady.slower_pct / 2)


def _most_scatter_pct(case: Case, name: str) -> float:
    """Of processes in the metric `name`, which is not tested but limited: half of the limit, too."""
    gates = as_judged(METRIC_BY_NAME[name], case).gates.values()
    limit_pct = max((gate.tolerance.relative_pct for gate in gates), default=0.0)
    return max(_most_noise_pct(case), limit_pct / 2)


def _unmeasured(run: Run, record: RunRecord) -> str | None:
    case, platform = CASES[run.id].case, PLATFORM_BY_ID[run.platform]
    for metric in gated_metrics(case, platform):
        observation = observations.observe(metric, run, reference_of(run, record))
        if observation.missing is not None:
            return observation.missing
        may_differ = metric.where_tuned is not None and case.build.recipe.is_tuned
        if metric.better is Better.EXACT and not may_differ and len(set(observation.values)) > 1:
            values = ", ".join(f"{value:g}" for value in observation.values)
            return f"{metric.name} has no exact value, its processes differ: {values}"
    return None


# Of the numbers


def objection_to_entry(case_id: str, entry: Entry, noise: Mapping[str, Noise]) -> str | None:
    """Why `entry`, made from a run without objections, cannot be accepted, judging by its numbers.

    `noise` maps the noisy metrics to the noise of the platform; empty where it has none.
    """
    for name in sorted(noise.keys() & entry.metrics.keys()):
        values = entry.metrics[name]
        why = _too_noisy(values, noise[name])
        if not shows_noise(case_id, name):
            why = _too_unsteady(values, _most_scatter_pct(CASES[case_id].case, name))
        if why is not None:
            return f"its {len(values)} processes scatter too much: the standard deviation of {name} is {why}"
    return drifted(entry)


def _too_noisy(values: Sequence[float], noise: Noise) -> str | None:
    times = sequential_bounds.excess_spread(values, noise)
    if times is None:
        return None
    return f"{times:.1f} times the {noise.sd_pct:.2g} % of this platform; measure it again on a quiet machine"


def _too_unsteady(values: Sequence[float], most_pct: float) -> str | None:
    sd_pct = 100.0 * math.sqrt(location.log_variance(values)) if len(values) > 1 else 0.0
    if sd_pct <= most_pct:
        return None
    return f"{sd_pct:.3g} %, more than {most_pct:g} %; measure it again on a quiet machine"


def drifted(entry: Entry) -> str | None:
    """Which metric accepted steps have moved too far from its first reference, in words; None if none."""
    for name in sorted(entry.first.keys() & entry.metrics.keys()):
        moved = drift_of(entry, name)
        if moved is not None and moved.is_beyond:
            return (
                f"has drifted too far: accepted steps have moved {name} by {moved.change_pct:+.2f} % from "
                f"its first reference, and the limit is {moved.limit_pct:+.2f} %: undo one of them, or start "
                "over with --new-first-reference REASON"
            )
    return None
