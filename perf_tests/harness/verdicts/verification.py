"""Before anything is judged: whether the run is what was asked for, and shows the same picture; not pure."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import msgspec

from perf_tests.harness.fidelity.picture_pool import PoolEndedError
from perf_tests.harness.runs.record import Run, status_of
from perf_tests.harness.stats import observations
from perf_tests.harness.verdicts import build_checks, gates
from perf_tests.protocol.errors import PerfError
from perf_tests.protocol.messages import Failure, FailureKind, Phase
from perf_tests.tables.cases import Case
from perf_tests.tables.platforms import PLATFORM_BY_ID


def verify(
    case: Case, run: Run, reference: Run | None, out: Path, map_pairs: Callable[..., Any] = map
) -> Run:
    """`run` with the fidelity of its captures (files under `out`), which `map_pairs` compares.

    ERROR(crash) where a process that compares them has ended, ERROR(numerics) where an output is not a
    picture, ERROR(unproven) where the build of any process contradicts the recipe.
    """
    from perf_tests.harness.fidelity import captures

    try:
        run = captures.compared(run, reference, out, map_pairs)
    except PoolEndedError as error:
        return _failed(run, FailureKind.CRASH, str(error))
    except PerfError as error:
        return _failed(run, FailureKind.NUMERICS, str(error))
    contradictions = [build_checks.contradictions(case, process.build) for process in run.processes]
    sentences = tuple(_unique((*contradictions, _different_plans(run))))
    if not sentences:
        return run
    message = f"what was built is not what was asked for: {sentences[0]}"
    return _failed(run, FailureKind.UNPROVEN, message, details="\n".join(sentences[1:]))


def prepare(
    cases: Mapping[str, Case],
    out: Path,
    map_pairs: Callable[..., Any],
    run: Run,
    reference: Run | None,
) -> Run:
    """`run` verified, with the median of each metric that there is to show; a campaign knows cases by id."""
    proven = verify(cases[run.id], run, reference, out, map_pairs)
    return msgspec.structs.replace(proven, measured=_measured(cases[run.id], proven, reference))


def _measured(case: Case, run: Run, reference: Run | None) -> dict[str, float]:
    """Metric name -> median over processes; for a failed run, only what its failure leaves meaningful."""
    platform = PLATFORM_BY_ID[run.platform]
    metrics = (*gates.gated_metrics(case, platform), *gates.shown_metrics(case, platform))
    observed = {
        metric.name: observations.observe(metric, run, reference).values
        for metric in metrics
        if run.failure is None or not metric.needs_verification
    }
    return {name: statistics.median(values) for name, values in observed.items() if values}


def _failed(run: Run, kind: FailureKind, message: str, details: str = "") -> Run:
    failure = Failure(kind=kind, phase=Phase.INSPECT, message=message, details=details)
    status = status_of(failure)
    return msgspec.structs.replace(run, failure=failure, status=status, reason=message)


def _unique(groups: Iterable[tuple[str, ...]]) -> dict[str, None]:
    return {sentence: None for group in groups for sentence in group}


def _different_plans(run: Run) -> tuple[str, ...]:
    """That the processes followed different plans: a search may choose differently each time, and the
    processes of a run must be samples of one thing."""
    builds = (process.build.quantization for process in run.processes)
    followed = {each.plan.sha256: each.plan.file for each in builds if each and each.plan}
    if len(followed) < 2:
        return ()
    named = ", ".join(f"{file} (sha256 {digest[:12]})" for digest, file in followed.items())
    return (f"its {len(run.processes)} processes followed {len(followed)} plans: {named}",)
