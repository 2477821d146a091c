"""What another worker makes before a case is measured: the files that it loads, and what it must equal."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path

import msgspec

from perf_tests.harness.execution.launcher import Launcher
from perf_tests.harness.execution.planned import Planned
from perf_tests.harness.execution.replicate import MadeTwin, Replicate
from perf_tests.harness.runs import validity
from perf_tests.protocol.errors import WorkerError
from perf_tests.protocol.messages import (
    Compile,
    Compiled,
    Generate,
    Generated,
    Load,
    Loaded,
    Package,
    Packaged,
    Phase,
    Quantize,
    Quantized,
    Save,
    Saved,
)
from perf_tests.protocol.packages import CompiledHere
from perf_tests.protocol.reports import BuiltTwin
from perf_tests.tables.cases import Case
from perf_tests.tables.metrics.spec import STEP

Timed = Callable[[], AbstractContextManager[None]]
"""Makes a block in which nothing else computes on behalf of the device."""
GENERATIONS = 3
"""Of a twin whose steps are compared with those of blocks from packages."""


def made_twin(
    launcher: Launcher, planned: Planned, stem: str, index: int, timed: Timed = nullcontext
) -> MadeTwin | None:
    """What a worker of its own makes of the built twin of a case, free of faults; None without one.

    `timed` is a block in which nothing else computes: it is entered for the steps that are timed. Raises
    WorkerError, naming the twin, where it fails.
    """
    wanted = planned.case.built_twin
    if wanted is None:
        return None
    twin, recipe = Planned(wanted, planned.platform), planned.case.build.recipe
    folder = launcher.files.checkpoint(stem, index) if recipe.is_loaded or recipe.is_packaged else None
    try:
        with _started(launcher, twin, f"{stem}.built", index) as replicate:
            made = _made(replicate, planned, folder, timed)
        if made.report.compiled is None or folder is None:
            return made
        with _started(launcher, twin, f"{stem}.cached", index) as replicate:
            return _beside_cached(replicate, made, made.report.compiled, _artifacts(folder))
    except WorkerError as error:
        message = f"built twin {wanted.id}: {error.failure.message}"
        raise WorkerError(msgspec.structs.replace(error.failure, message=message)) from error


@contextmanager
def _started(launcher: Launcher, twin: Planned, name: str, index: int) -> Iterator[Replicate]:
    with launcher.start(twin, name, index) as worker:
        log = launcher.files.log_name(name, index)
        yield Replicate(worker, twin, log, index=index, watch=launcher.watch)


def _artifacts(folder: Path) -> Path:
    """The file of what the twin compiles, beside the folder of what it packages."""
    return folder.with_name(f"{folder.name}.artifacts")


def _made(twin: Replicate, planned: Planned, folder: Path | None, timed: Timed) -> MadeTwin:
    """Build the twin of a case, generate, and write what the case loads into `folder`."""
    case = planned.case
    loaded, quantized = _built(twin)
    report = BuiltTwin(
        seconds={Phase.LOAD.value: loaded.seconds, Phase.QUANTIZE.value: quantized.seconds},
        memory={Phase.LOAD.value: loaded.memory, Phase.QUANTIZE.value: quantized.memory},
        tensors=quantized.tensors,
        output_sha256="",
        files={},
        converted=quantized.converted,
    )
    if folder is not None and case.build.recipe.is_packaged:
        report = _packaged(twin, report, folder, None if planned.verified_only else timed)
    else:
        report = _saved(twin, report, case, folder)
    return MadeTwin(report=report, folder=folder, host_s=math.fsum(twin.worker.seconds.values()))


def _built(twin: Replicate) -> tuple[Loaded, Quantized]:
    load = Load(case=twin.planned.case, device=twin.planned.platform.device)
    loaded = twin.ask(load, Loaded, Phase.LOAD)
    return loaded, twin.ask(Quantize(tensors=True), Quantized, Phase.QUANTIZE)


def _saved(twin: Replicate, report: BuiltTwin, case: Case, folder: Path | None) -> BuiltTwin:
    """`report` with what was saved, where `case` loads it, and the picture."""
    if folder is not None:
        saved = twin.ask(Save(case=case, folder=str(folder)), Saved, Phase.SAVE)
        seconds = {**report.seconds, Phase.SAVE.value: saved.seconds}
        report = msgspec.structs.replace(report, seconds=seconds, files=saved.files)
    if case.build.recipe.compiles:
        twin.ask(Compile(), Compiled, Phase.COMPILE)
    return msgspec.structs.replace(report, output_sha256=twin.generate(Generate()).sample.output_sha256)


def _packaged(twin: Replicate, report: BuiltTwin, folder: Path, timed: Timed | None) -> BuiltTwin:
    """`report` with packages of the blocks and, unless `timed` is None, with what the twin takes without."""
    if timed is not None:
        report = _compiled_here(twin, report, _artifacts(folder), timed)
    folder.mkdir(parents=True)
    packaged = twin.ask(Package(folder=str(folder)), Packaged, Phase.PACKAGE)
    return msgspec.structs.replace(report, packages=packaged.packages)


def _compiled_here(twin: Replicate, report: BuiltTwin, artifacts: Path, timed: Timed) -> BuiltTwin:
    compiled = twin.ask(Compile(artifacts=str(artifacts)), Compiled, Phase.COMPILE)
    first = twin.generate(Generate(warmup=True))
    with timed():
        samples = [twin.sample(place=0) for _ in range(GENERATIONS)]
    # One that stays disturbed after its retakes would make any step look fast beside it.
    steps_ms = [ms for each in samples if not validity.reasons(each) for ms in each.values[STEP]]
    here = CompiledHere(
        first_image_s=compiled.seconds + _latency_s(first),
        step_ms=statistics.median(steps_ms) if steps_ms else None,
    )
    return msgspec.structs.replace(report, output_sha256=samples[0].output_sha256, compiled=here)


def _beside_cached(twin: Replicate, made: MadeTwin, cold: CompiledHere, artifacts: Path) -> MadeTwin:
    """`made`, with what the first image takes a fresh process that loads what the first has compiled."""
    _built(twin)
    compiled = twin.ask(Compile(artifacts=str(artifacts)), Compiled, Phase.COMPILE)
    first_image_s = compiled.seconds + _latency_s(twin.generate(Generate(warmup=True)))
    artifacts.unlink(missing_ok=True)
    # Where nothing could be saved, it has compiled again.
    loaded = compiled.cache is not None and compiled.cache.artifacts == "loaded"
    here = msgspec.structs.replace(cold, cached_first_image_s=first_image_s if loaded else None)
    report = msgspec.structs.replace(made.report, compiled=here)
    return replace(made, report=report, host_s=made.host_s + math.fsum(twin.worker.seconds.values()))


def _latency_s(generated: Generated) -> float:
    (latency_s,) = generated.sample.values["latency_s"]
    return latency_s
