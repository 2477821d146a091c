"""Files of processes, compared: pictures and latents with the reference's, answers with bf16 eager's."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path

import msgspec
import numpy as np

from perf_tests.harness.fidelity import array_files, image_metrics
from perf_tests.harness.records.fidelity import Fidelity
from perf_tests.harness.runs.record import Process, Run
from perf_tests.protocol.errors import PerfError
from perf_tests.protocol.reports import Arrays, Capture, Sample

MapPairs = Callable[..., Iterable[Fidelity | None]]
"""`map`, or what does the same."""
LARGE_BYTES = 4 << 20
"""Size of a capture from which comparing takes longer than starting a process: 590 x 590 pixels."""


def compared(run: Run, reference: Run | None, out: Path, map_pairs: MapPairs = map) -> Run:
    """`run` with the fidelity of its first process, and with the noise floor if it is a compiled reference.

    All files are under `out`. `map_pairs` applies a function to pairs like `map`, perhaps in other processes.
    Raises PerfError for a file that is gone or was changed since it was written,
    and for an output that is not a picture.
    """
    original = _captured(reference)
    processes = tuple(_compared(process, original, out, map_pairs) for process in run.processes)
    if run.reference is None:
        processes = tuple(_with_noise(process, out) for process in processes)
    return msgspec.structs.replace(run, processes=processes)


def _captured(reference: Run | None) -> Process | None:
    """The process of the reference that has captures; None where there is none, or the reference failed."""
    if reference is None or reference.failure is not None:
        return None
    return next((process for process in reference.processes if process.captures), None)


def _compared(process: Process, original: Process | None, out: Path, map_pairs: MapPairs) -> Process:
    if not process.captures:
        return process
    # A reference under another sampling rule may have fewer captures, and the exhaustive cases have one.
    originals = original.captures[: len(process.captures)] if original else ()
    pairs = list(itertools.zip_longest(process.captures, originals))
    samples = [process.samples[number : number + 1] for number in range(len(pairs))]
    each = map_pairs if _is_large(out / process.captures[0].array) else map
    compared = list(each(partial(_compare_pair, out), pairs, samples))
    found = [each for each in compared if each is not None]
    if original is None or not found:
        return process
    fidelity = msgspec.structs.replace(
        image_metrics.over_pairs(found), reference_arrays=tuple(each.array for each in originals)
    )
    fidelity = _with_answers(fidelity, process, original.arrays, out)
    return msgspec.structs.replace(process, fidelity=fidelity)


def _is_large(path: Path) -> bool:
    return path.exists() and path.stat().st_size >= LARGE_BYTES


def _compare_pair(
    out: Path, pair: tuple[Capture, Capture | None], samples: Sequence[Sample]
) -> Fidelity | None:
    """The fidelity of a capture, which one of `samples` reports, to the reference's; None without one."""
    capture, wanted = pair
    reference = None if wanted is None else _picture(wanted, out)
    measured = _picture(capture, out)
    _require_hashed(measured, samples, out / capture.array)
    catastrophe = image_metrics.catastrophe(
        measured,
        measured.shape if reference is None else reference.shape,
        # Only the reference can tell which pictures may be of a single colour.
        constant=frozenset() if reference is None else image_metrics.constant_frames(reference),
    )
    if catastrophe is not None:
        raise PerfError(catastrophe)
    return None if reference is None else image_metrics.compare(measured, reference)


def _require_hashed(measured: np.ndarray, samples: Sequence[Sample], path: Path) -> None:
    """Raise PerfError unless the hash that a sample reports, which tells repetitions, is its output's."""
    found = hashlib.sha256(measured.tobytes()).hexdigest()
    for sample in samples:
        if sample.output_sha256 != found:
            raise PerfError(
                f"{path} holds an output with the sha256 {found[:12]}, its generation reported "
                f"{sample.output_sha256[:12]}: what it reports tells nothing about repeated outputs"
            )


def _with_noise(process: Process, out: Path) -> Process:
    """Compare a compiled reference with itself before compiling: no quantized case can be closer."""
    recorded = process.recorded
    if recorded is None or recorded.picture is None or not process.captures:
        return process
    noise = image_metrics.compare(_picture(process.captures[0], out), _picture(recorded.picture, out))
    return msgspec.structs.replace(process, noise=_with_answers(noise, process, recorded.arrays, out))


def _with_answers(compared: Fidelity, process: Process, latents_of: Arrays | None, out: Path) -> Fidelity:
    """`compared` with the error of the timed transformer against itself in bf16 eager, and of its latents
    against `latents_of`."""
    if process.recorded is None or process.arrays is None or latents_of is None:
        return compared
    answered, latents = _answers(process.arrays, out)
    wanted, _ = _answers(process.recorded.arrays, out)
    _, wanted_latents = _answers(latents_of, out)
    pairs = zip(answered, wanted, strict=True)
    return msgspec.structs.replace(
        compared,
        step_sqnrs_db=tuple(image_metrics.sqnr_db(now, before) for now, before in pairs),
        latents_sqnr_db=image_metrics.sqnr_db(latents, wanted_latents),
    )


def _picture(capture: Capture, out: Path) -> np.ndarray:
    return array_files.load(out / capture.array, capture.sha256)


def _answers(arrays: Arrays, out: Path) -> tuple[np.ndarray, np.ndarray]:
    return array_files.load_answers(out / arrays.file, arrays.sha256)
