"""The pictures of each pair of prompt and seed against the same pair in the baseline; pure."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence

import msgspec

from perf_tests.harness.runs.record import Run, Status, Verdict
from perf_tests.tables.metrics.spec import Metric, Tolerance


def judge_pairs(
    metric: Metric,
    tolerance: Tolerance,
    measured: Sequence[float],
    baseline: Sequence[float],
    *,
    floor: float | None,
    noise: float | None = None,
) -> Verdict:
    """The verdict on `measured`, one value for each pair, the higher the better.

    REGRESSED where a pair has lost more than the tolerance or is below `floor`, or where the pairs have lost
    on average more than the tolerance over the square root of their number: a trajectory amplifies rounding,
    so a single pair moves by itself, and their mean moves less. Pairs that an older baseline lacks are judged
    by the floor alone; INCONCLUSIVE where the baseline has more pairs than were measured.

    A pair that is as close to its reference as `noise` (see `noise_floor`), or closer, differs by rounding
    alone and says nothing, for or against. Where no pair says anything the verdict is PASS, or INCONCLUSIVE
    where `noise` itself is below `floor`, so that no picture could fail.
    """
    if len(measured) < len(baseline):
        finding = f"{len(measured)} of the {len(baseline)} pairs of its baseline were measured"
        judged = _verdict(metric, Status.INCONCLUSIVE, finding, measured, baseline, limit=floor)
    elif told := {n: each for n, each in enumerate(measured) if noise is None or each < noise}:
        changes = {n: told[n] - baseline[n] for n in told if n < len(baseline)}
        judged = _judged(metric, tolerance, told, changes, floor, measured, baseline)
    else:
        blind = noise is not None and floor is not None and noise < floor
        status, finding = (Status.INCONCLUSIVE, BLIND) if blind else (Status.PASS, NO_EVIDENCE)
        judged = _verdict(metric, status, finding, measured, baseline, limit=floor)
    return _with_noise(judged, metric, measured, noise)


def with_surprise(
    judged: Verdict, metric: Metric, surprise: Tolerance | None, noise: float | None
) -> Verdict:
    """`judged`, or SURPRISE where the mean of the pairs gained more than `surprise`.

    A baseline that is itself as good as `noise` has no better to come: what is gained there is chance.
    """
    now, before = judged.measured, judged.baseline
    if surprise is None or not judged.status.is_green or now is None or before is None:
        return judged
    if now - before <= surprise.allowance(before) or (noise is not None and before >= noise):
        return judged
    gained = f"the pairs gained {now - before:.3g} {metric.units} on average"
    reason = f"{gained}, more than {surprise.allowance(before):g}: accept it with a reason; {judged.reason}"
    return msgspec.structs.replace(judged, status=Status.SURPRISE, reason=reason)


NO_EVIDENCE = "no pair is evidence of anything, the answers, latents and layers are"
BLIND = "no pair is evidence, and compiling alone costs bf16 more than the floor allows: see the reference"


def noise_floor(metric: Metric, reference: Run | None) -> float | None:
    """What compiling alone costs the first pair of the `reference`; None where it is not compiled.

    The first stands for all: each costs the reference a generation more before it is compiled.
    """
    processes = reference.processes if reference else ()
    noise = next((process.noise for process in processes if process.noise), None)
    # The fields of a comparison have the names of the metrics.
    floor: float | None = None if noise is None else getattr(noise, metric.name)
    return floor


Values = Mapping[int, float]
"""Number of a pair -> its value."""


def _judged(
    metric: Metric,
    tolerance: Tolerance,
    told: Values,
    changes: Values,
    floor: float | None,
    measured: Sequence[float],
    baseline: Sequence[float],
) -> Verdict:
    status, finding = _finding(metric, tolerance, told, changes, floor)
    limits = [] if floor is None else [floor]
    if changes:
        before = statistics.fmean(baseline[n] for n in changes)
        limits.append(before - _allowance(tolerance, changes))
    limit = max(limits, default=None)
    return _verdict(metric, status, finding, measured, baseline, limit=limit, pairs=tuple(changes))


def _allowance(tolerance: Tolerance, changes: Values) -> float:
    """What the mean of the pairs may lose."""
    return tolerance.absolute / math.sqrt(len(changes))


def _finding(
    metric: Metric, tolerance: Tolerance, told: Values, changes: Values, floor: float | None
) -> tuple[Status, str]:
    unit = f" {metric.units}".rstrip()
    lowest = min(told, key=told.__getitem__)
    if changes:
        pairs = "1 pair" if len(changes) == 1 else f"{len(changes)} pairs"
        change, allowance = statistics.fmean(changes.values()), _allowance(tolerance, changes)
        worst = min(changes, key=changes.__getitem__)
        moved = f"{pairs} moved by {change:+.3g}{unit} on average"
        if change < -allowance:
            return Status.REGRESSED, f"{moved}, beyond the limit -{allowance:.3g}{unit}"
        if changes[worst] < -tolerance.absolute:
            beyond = f"beyond the limit -{tolerance.absolute:.3g}{unit} of one"
            return Status.REGRESSED, f"pair {worst} moved by {changes[worst]:+.3g}{unit}, {beyond}"
    if floor is not None and told[lowest] < floor:
        below = f"below the floor {floor:g}{unit}"
        return Status.REGRESSED, f"pair {lowest} is at {told[lowest]:.4g}{unit}, {below}"
    if not changes:
        return Status.PASS, "the pairs that its baseline has are no evidence, the others above their floor"
    return (
        Status.IMPROVED if change > allowance else Status.PASS,
        f"{moved}, within the limit -{allowance:.3g}{unit}",
    )


def _verdict(
    metric: Metric,
    status: Status,
    finding: str,
    measured: Sequence[float],
    baseline: Sequence[float],
    *,
    limit: float | None,
    pairs: Sequence[int] = (),
) -> Verdict:
    """With the means over `pairs`; without any, over all pairs that both sides have."""
    shared = pairs or range(min(len(measured), len(baseline)))
    now, before = (statistics.fmean(values[n] for n in shared) for values in (measured, baseline))
    return Verdict(
        metric=metric.name,
        status=status,
        measured=now,
        baseline=before,
        change_pct=None if before == 0 or metric.is_in_decibels else (now - before) / before * 100,
        ci_pct=None,
        limit=limit,
        reason=f"{finding} ({_listed(measured)} against {_listed(baseline)})",
    )


def _with_noise(judged: Verdict, metric: Metric, measured: Sequence[float], noise: float | None) -> Verdict:
    if noise is None:
        return judged
    note = f"bf16 compiled against eager is at {noise:.4g} {metric.units}".rstrip()
    if at_floor := sum(each >= noise for each in measured):
        note += f": {at_floor} of {len(measured)} pairs are at this noise floor, and no evidence"
    return msgspec.structs.replace(judged, reason=f"{judged.reason}; {note}")


def _listed(values: Sequence[float]) -> str:
    return ", ".join(f"{value:.4g}" for value in values)
