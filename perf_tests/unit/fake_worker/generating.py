"""Answers to a request for an image: how long it took, what was computed, and the picture."""

from __future__ import annotations

import hashlib
import math
import os
from array import array
from pathlib import Path

import msgspec

from perf_tests.protocol.messages import Fault, Generate, Generated
from perf_tests.protocol.reports import Capture, Sample, Telemetry
from perf_tests.tables.cases import Case
from perf_tests.tables.platforms import Device
from perf_tests.tables.recipes import Activity, CompileMode
from perf_tests.unit.fake_worker import quantizing, training
from perf_tests.unit.fake_worker.endings import STRIKES, die_once
from perf_tests.unit.fake_worker.pictures import NOISE, SIDE, npy, picture, png
from perf_tests.unit.fake_worker.subject import Subject

STEP_MS = 20.0
PEAK_MIB = 400.0
TELEMETRY = Telemetry(
    sm_clock_mhz=1980.0,
    memory_clock_mhz=2619.0,
    power_w=650.0,
    temperature_c=55.0,
    throttle_reasons=(),
    throttled_ms={},
    compute_processes=1,
    device_used_mib=PEAK_MIB,
)


def generate(subject: Subject, request: Generate) -> Generated:
    """Make one image."""
    if not request.warmup:
        _strike(subject)
    subject.timed += not request.warmup
    slower = _slower(subject)
    times = TIMES[subject.case.build.activity](subject)
    values = {
        **{name: tuple(value * slower for value in spans) for name, spans in times.items()},
        **_live(subject),
        **_counts(subject),
    }
    values.pop(subject.argument("missing-metric") or "", None)
    captured = capture(subject, request.capture, subject.case) if request.capture else None
    if subject.has("one-step"):
        values["denoise_step_ms"] = values["denoise_step_ms"][:1]
    sample = Sample(
        values=values,
        output_sha256=subject.argument("one-hash") or _output_sha256(subject),
        telemetry=_telemetry(subject, request.warmup) if subject.device is Device.CUDA else None,
        pair=request.pair + subject.has("next-pair"),
    )
    return Generated(sample=sample, capture=captured)


def capture(subject: Subject, path: str, case: Case) -> Capture:
    """Write the picture of `case` under that path."""
    if subject.has("captures-elsewhere"):
        path = f"{path}.elsewhere"
    pixels, copies = _output(subject, case)
    array_path, image_path = Path(f"{path}.npy"), Path(f"{path}.png")
    array_path.parent.mkdir(parents=True, exist_ok=True)
    content = npy(pixels, copies, (SIDE, SIDE, 3))
    if subject.has("claims-terabytes"):
        content = npy(array("f"), (), (1_000_000, 1_000_000, 3))
    array_path.write_bytes(content)
    image_path.write_bytes(png(bytes(round(value * 255) for value in pixels), SIDE, SIDE))
    digest = hashlib.sha256(array_path.read_bytes()).hexdigest()
    return Capture(array=str(array_path), sha256=digest, image=str(image_path))


def _strike(subject: Subject) -> None:
    """Apply the faults that spoil a timed generation, like the real worker."""
    marker = subject.argument("die-once")
    if marker is not None:
        die_once(Path(marker))
    for fault in subject.amounts:
        if fault in STRIKES:
            STRIKES[fault]()


# Figures


def _times(case: Case) -> dict[str, tuple[float, ...]]:
    recipe, steps = case.build.recipe, case.workload.generated_steps
    eager = recipe.compile is CompileMode.EAGER and not recipe.compile_vae
    faster = (0.5 if recipe.scheme.weight else 1.0) * (1.0 if eager else 0.5)
    step_ms = STEP_MS * case.workload.batch_size * faster * (2.0 if recipe.scheme.dtype == "float32" else 1.0)
    times = {
        "encode_ms": (5.0,),
        "first_step_ms": (step_ms * 1.1,),
        "denoise_step_ms": (step_ms,) * (steps - 1),
        "decode_ms": (10.0,),
        "latency_s": ((15.0 + step_ms * (steps + 0.1)) / 1000,),
    }
    return {**times, "device_latency_s": times["latency_s"]}


TIMES = {
    Activity.GENERATING: lambda subject: _times(subject.case),
    Activity.TRAINING: training.times,
    Activity.QUANTIZING: quantizing.times,
}


def _slower(subject: Subject) -> float:
    """Times as slow as it should be."""
    slows_pct = subject.number("slows") * max(0, subject.timed - 1)
    stalls = 2.0 if 3 <= subject.timed < 3 + subject.number("stalls") else 1.0
    slower = 1 + subject.number("slower") / 100
    return slower * stalls * (1 + subject.amounts.get(Fault.LATENCY, 0.0) / 100) * (1 + slows_pct / 100)


def _live(subject: Subject) -> dict[str, tuple[float, ...]]:
    mib = 300.0 + subject.number("leaks") * subject.timed
    return {"live_allocated_mib": (mib,), "live_host_mib": (mib,)}


def _counts(subject: Subject) -> dict[str, tuple[float, ...]]:
    calls = {
        "transformer_calls": subject.case.workload.generated_steps,
        "decode_calls": 1,
        **{f"{name}_calls": n for name, n in subject.case.build.pipeline.encoder_calls.items()},
    }
    return {
        **{name: (subject.reported(name, float(n)),) for name, n in calls.items()},
        "batch_psnr_db": (subject.reported("batch_psnr_db", 12.0),),
    }


def _telemetry(subject: Subject, warmup: bool) -> Telemetry:
    throttled = not warmup and subject.timed <= subject.number("throttled")
    return msgspec.structs.replace(
        TELEMETRY,
        throttled_ms={"hw_thermal": 12.5} if throttled else {},
        cpu_pressure_pct=subject.number("busy-host") or None,
    )


# The picture


def _output(subject: Subject, case: Case) -> tuple[array[float], tuple[int, ...]]:
    """The picture, and the shape of the copies of it that one generation of `case` makes."""
    workload = case.workload
    same = subject.switches.argument("same-picture", case) is not None
    quantized = case.build.recipe.scheme.weight is not None and not same
    frames = () if workload.num_frames is None else (workload.num_frames,)
    return picture(noise=NOISE if quantized else 0.0), (workload.batch_size, *frames)


def _output_sha256(subject: Subject) -> str:
    pixels, copies = _output(subject, subject.case)
    drifts = subject.argument("drifts")
    if drifts is not None and subject.timed > int(drifts):
        content = b"drifted"
    elif subject.has("never-repeats"):
        content = f"{os.getpid()} {subject.timed}".encode()
    elif subject.has("other-picture"):
        content = b"another picture"
    else:
        content = pixels.tobytes() * math.prod(copies)
    return hashlib.sha256(content).hexdigest()
