"""Before anything is judged: is the run what was asked for, and is it the same picture."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from perf_tests.harness import evidence, stats, verdict
from perf_tests.harness.errors import PerfError
from perf_tests.harness.protocol import Arrays, Capture, Failure, FailureKind, Phase
from perf_tests.harness.records import STATUS_OF_FAILURE, Fidelity, Process, Run
from perf_tests.tables.cases import Case
from perf_tests.tables.platforms import PLATFORM_BY_ID

if TYPE_CHECKING:  # numpy, too, is imported only where there is something to compare
    import numpy as np


def prove(case: Case, run: Run, reference: Run | None, out: Path) -> Run:
    """`run` with the fidelity of its captures (files under `out`): ERROR(numerics) where an output is no
    picture, ERROR(unproven) where the evidence of any process contradicts the recipe."""
    try:
        run = _with_fidelity(run, reference, out)
    except PerfError as error:
        return _failed(run, FailureKind.NUMERICS, str(error))
    contradictions = [evidence.contradictions(case, process.build) for process in run.processes]
    sentences = tuple(_unique((*contradictions, _different_plans(run))))
    if not sentences:
        return run
    message = f"what was built is not what was asked for: {sentences[0]}"
    return _failed(run, FailureKind.UNPROVEN, message, details="\n".join(sentences[1:]))


def prepared(cases: Mapping[str, Case], out: Path, run: Run, reference: Run | None) -> Run:
    """`prove` for a campaign, which knows runs by their ids; then what there is to show of the run."""
    proven = prove(cases[run.id], run, reference, out)
    return msgspec.structs.replace(proven, measured=_measured(cases[run.id], proven, reference))


def _measured(case: Case, run: Run, reference: Run | None) -> dict[str, float]:
    """Metric name -> median over processes; of a run that failed only what its failure leaves meaningful."""
    platform = PLATFORM_BY_ID[run.platform]
    metrics = (*verdict.gated_metrics(case, platform), *verdict.shown_metrics(case, platform))
    observed = {
        metric.name: stats.observe(metric, run, reference).values
        for metric in metrics
        if run.failure is None or not metric.proven_only
    }
    return {name: statistics.median(values) for name, values in observed.items() if values}


def _failed(run: Run, kind: FailureKind, message: str, details: str = "") -> Run:
    failure = Failure(kind=kind, phase=Phase.INSPECT, message=message, details=details)
    status = STATUS_OF_FAILURE[kind]
    return msgspec.structs.replace(run, failure=failure, status=status, reason=message)


def _unique(groups: Iterable[tuple[str, ...]]) -> dict[str, None]:
    return {sentence: None for group in groups for sentence in group}


def _different_plans(run: Run) -> tuple[str, ...]:
    """The processes of a run are samples of one thing: a search may choose otherwise each time."""
    builds = (process.build.quantization for process in run.processes)
    followed = {each.plan.sha256: each.plan.file for each in builds if each and each.plan}
    if len(followed) < 2:
        return ()
    named = ", ".join(f"{file} (sha256 {digest[:12]})" for digest, file in followed.items())
    return (f"its {len(run.processes)} processes followed {len(followed)} plans: {named}",)


def _with_fidelity(run: Run, reference: Run | None, out: Path) -> Run:
    original = _captured(reference)
    processes = tuple(_compared(process, original, out) for process in run.processes)
    if run.reference is None:
        processes = tuple(_with_noise(process, out) for process in processes)
    return msgspec.structs.replace(run, processes=processes)


def _captured(reference: Run | None) -> Process | None:
    """The process of the reference that left something to be compared with."""
    if reference is None or reference.failure is not None:
        return None
    return next((process for process in reference.processes if process.captures), None)


def _compared(process: Process, original: Process | None, out: Path) -> Process:
    if not process.captures:
        return process
    from perf_tests.harness import fidelity  # here: scikit-image doubles the time that pytest takes to start

    pairs = []
    # A reference of another sampling rule may have fewer of them, and the exhaustive cases have one.
    originals = original.captures[: len(process.captures)] if original else ()
    for capture, wanted in itertools.zip_longest(process.captures, originals):
        reference = None if wanted is None else _picture(wanted, out)
        measured = _picture(capture, out)
        catastrophe = fidelity.catastrophe(
            measured,
            measured.shape if reference is None else reference.shape,
            # A picture that may be of one colour is known from its reference only.
            constant=frozenset() if reference is None else fidelity.constant_frames(reference),
        )
        if catastrophe is not None:
            raise PerfError(catastrophe)
        if reference is not None:
            pairs.append((measured, reference))
    if original is None or not pairs:
        return process
    compared = msgspec.structs.replace(
        fidelity.compare_pairs(pairs), reference_arrays=tuple(each.array for each in originals)
    )
    compared = _with_answers(compared, process, original.arrays, out)
    return msgspec.structs.replace(process, fidelity=compared)


def _with_noise(process: Process, out: Path) -> Process:
    """A compiled reference beside itself before it was compiled: no quantized case can be closer."""
    recorded = process.recorded
    if recorded is None or recorded.picture is None or not process.captures:
        return process
    from perf_tests.harness import fidelity  # as above

    noise = fidelity.compare(_picture(process.captures[0], out), _picture(recorded.picture, out))
    return msgspec.structs.replace(process, noise=_with_answers(noise, process, recorded.arrays, out))


def _with_answers(compared: Fidelity, process: Process, latents_of: Arrays | None, out: Path) -> Fidelity:
    """The errors of the transformer as it is timed, against itself as it was, and of the latents, against
    those of `latents_of`."""
    if process.recorded is None or process.arrays is None or latents_of is None:
        return compared
    from perf_tests.harness import fidelity  # as above

    answered, latents = _answers(process.arrays, out)
    wanted, _ = _answers(process.recorded.arrays, out)
    _, wanted_latents = _answers(latents_of, out)
    pairs = zip(answered, wanted, strict=True)
    return msgspec.structs.replace(
        compared,
        step_sqnrs_db=tuple(fidelity.sqnr_db(now, before) for now, before in pairs),
        latents_sqnr_db=fidelity.sqnr_db(latents, wanted_latents),
    )


def _picture(capture: Capture, out: Path) -> np.ndarray:
    from perf_tests.harness import fidelity  # as above

    fidelity.require_unchanged(out / capture.array, capture.sha256)
    return fidelity.load(out / capture.array)


def _answers(arrays: Arrays, out: Path) -> tuple[np.ndarray, np.ndarray]:
    from perf_tests.harness import fidelity  # as above

    fidelity.require_unchanged(out / arrays.file, arrays.sha256)
    return fidelity.load_answers(out / arrays.file)
