"""Whether an answer is the one that was asked for: a worker runs code that nobody has reviewed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from perf_tests.protocol.base import Struct
from perf_tests.protocol.messages import Generate, Generated, Inspect, Inspected, Quantize, Quantized, Request
from perf_tests.protocol.profiles import Profile, Profiled, Snapshot, Snapshotted
from perf_tests.protocol.reports import Capture
from perf_tests.tables.cases import Case
from perf_tests.tables.metrics.spec import STEP


def objection(request: Request, reply: Struct, case: Case) -> str | None:
    """What contradicts `request` in the `reply` of a worker that holds `case`, as a clause; None: nothing."""
    match request, reply:
        case Generate(), Generated():
            found = _of_generation(request, reply, case)
        case Quantize(), Quantized():
            found = _of_recording(request, reply)
        case Inspect(), Inspected():
            found = _different(
                "answers", reply.arrays and reply.arrays.file, request.trace and f"{request.trace}.timed.npz"
            )
        case Profile(), Profiled():
            found = _of_file("trace", reply.trace, request.trace)
        case Snapshot(), Snapshotted():
            found = _of_file("snapshot", reply.file, request.file)
        case _:
            return None
    return next(found, None)


def _of_generation(request: Generate, reply: Generated, case: Case) -> Iterator[str]:
    yield from _different("prompt and seed number", reply.sample.pair, request.pair)
    yield from _of_capture(reply.capture, request.capture)
    steps_ms = reply.sample.values.get(STEP)
    if steps_ms is not None:
        # The first has a metric of its own.
        yield from _different("number of steady steps", len(steps_ms), case.workload.generated_steps - 1)
    for name, values in reply.sample.values.items():
        if any(value < 0 for value in values):
            yield f"{name} is {min(values):g}, and nothing measured is negative"


def _of_recording(request: Quantize, reply: Quantized) -> Iterator[str]:
    asked = {trace.case.id: trace.stem for trace in request.traces}
    yield from _different("recorded cases", sorted(reply.recorded), sorted(asked))
    for case_id, recorded in reply.recorded.items():
        stem = f"{asked[case_id]}.eager"
        yield from _different("recorded answers", recorded.arrays.file, f"{stem}.npz")
        if recorded.picture is not None:
            yield from _of_capture(recorded.picture, stem)


def _of_capture(capture: Capture | None, stem: str | None) -> Iterator[str]:
    yield from _different("output", capture and capture.array, stem and f"{stem}.npy")
    yield from _different("picture", capture and capture.image, stem and f"{stem}.png")


def _of_file(what: str, reported: str | None, asked: str) -> Iterator[str]:
    if reported is not None:  # else it says why it kept none
        yield from _different(what, reported, asked)


def _different(what: str, reported: object, asked: object) -> Iterator[str]:
    if reported != asked:
        yield f"its {what} is {_shown(reported)}, asked for was {_shown(asked)}"


def _shown(value: object) -> str:
    return "none" if value is None else Path(value).name if isinstance(value, str) else str(value)
