"""What a script says of the run that it is to reproduce, and where a session keeps it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from perf_tests.harness.reproducing.script import obstacle, script
from perf_tests.harness.runs.record import Run, Status
from perf_tests.protocol.errors import PerfError, UsageError
from perf_tests.protocol.files import replace_atomically
from perf_tests.tables.cases import Case
from perf_tests.tables.metrics.spec import STEP
from perf_tests.tables.platforms import PLATFORM_BY_ID

PACKAGES = ("torch", "triton", "torchao", "diffusers")
"""Those that decide how long a step takes."""


def write(case: Case, run: Run, path: Path) -> None:
    """Write the script of the case, which `run` has measured, to the file `path`.

    Raises UsageError where there can be none, and PerfError where the disk refuses.
    """
    if run.digest != case.digest:
        raise UsageError(
            f"{run.id}: the row has changed since it was measured (digest {run.digest[:12]}, now "
            f"{case.digest[:12]}): use the commit that measured it"
        )
    if why := obstacle(case):
        raise UsageError(f"{case.id}: no script of its own: {why}")
    platform = PLATFORM_BY_ID.get(run.platform)
    if platform is None:
        raise UsageError(f"{run.id}: there is no platform {run.platform} any more: use the commit of the run")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_atomically(path, script(case, platform.device, path.name, tuple(about(run))).encode())
    except OSError as error:
        raise PerfError(
            f"cannot write {path}: {error.strerror}; make room, or choose another file"
        ) from error


def about(run: Run) -> Iterator[str]:
    """What was measured, in sentences."""
    for process in run.processes[:1]:
        environment = process.environment
        stack = ", ".join(
            f"{name} {environment.packages[name]}" for name in PACKAGES if name in environment.packages
        )
        device = environment.gpu.name if environment.gpu else environment.cpu_model
        step = run.measured.get(STEP)
        took = "" if step is None else f"{step:.4g} ms per step "
        yield f"Measured: {took}on {device} with {stack}."
        if environment.variables:
            variables = ", ".join(f"{name}={value}" for name, value in environment.variables.items())
            yield f"There, what the environment says was {variables}. Set it alike: this script does not."
    for verdict in run.verdicts:
        if verdict.status is Status.REGRESSED:
            yield f"{verdict.metric} {verdict.status.value}: {verdict.reason}"
    if run.injected:
        yield f"That session injected {', '.join(run.injected)}, which this script does not."
