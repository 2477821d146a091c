"""What the tests of rebaselining share: processes on an H100, sessions of them, proposals to accept one."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from perf_tests.harness.rebaseline import candidates
from perf_tests.harness.rebaseline.candidates import RunFile
from perf_tests.harness.rebaseline.pooling import pool
from perf_tests.harness.rebaseline.proposal import Proposal, Terms, propose, write
from perf_tests.harness.runs.record import Process, RunRecord
from perf_tests.tables.platforms import H100
from perf_tests.unit.builders import (
    FLUX_FP8,
    GPU,
    make_build,
    make_environment,
    make_process,
    make_record,
    make_reference,
    make_run,
    make_sample,
    make_telemetry,
)

UNSTEADY = candidates.CASES["flux1-dev-b1-int8dq-sparse24-regional"].case
"""A case whose step times scatter more than its platform does."""


def proposed(root: Path, *records: RunRecord, patterns: tuple[str, ...] = ("*",), **terms: Any) -> Proposal:
    """The proposal to accept `records`, each of its own run, into the baselines under `root`."""
    runs = tuple(
        RunFile(path=Path(f"run-{number}"), record=record, sha256=f"{number:064x}")
        for number, record in enumerate(records, start=1)
    )
    return propose(pool(runs), root=root, patterns=patterns, terms=Terms(**{"reason": "because", **terms}))


def accept(root: Path, *records: RunRecord, **terms: Any) -> Proposal:
    """Propose `records` and write what was proposed."""
    proposal = proposed(root, *records, **terms)
    write(proposal)
    return proposal


def with_bytes(value: float) -> Process:
    """A process whose weights take `value` bytes."""
    return make_process(build=make_build({"weight_bytes": value}))


def on_h100(*steps_ms: float, **telemetry: Any) -> Process:
    """A process on the default GPU, with a generation for each step time, again and again until there are
    five or more."""
    samples = tuple(
        make_sample({"denoise_step_ms": [each]}, telemetry=make_telemetry(**telemetry))
        for each in steps_ms * math.ceil(5 / len(steps_ms))
    )
    return make_process(samples=samples, environment=make_environment(gpu=GPU))


def timed(*steps_ms: float) -> RunRecord:
    """A session of FLUX.1-dev on an H100, with a process for each step time."""
    processes = tuple(on_h100(step_ms, step_ms, step_ms) for step_ms in steps_ms)
    reference = make_reference(FLUX_FP8, H100, processes=(on_h100(100.0),))
    return make_record(make_run(FLUX_FP8, H100, processes=processes), references=(reference,))


def unsteady(*steps_ms: tuple[float, ...]) -> RunRecord:
    """A session of the unsteady case, with a process for each tuple of step times."""
    run = make_run(UNSTEADY, H100, processes=tuple(on_h100(*each) for each in steps_ms))
    reference = make_reference(UNSTEADY, H100, processes=(on_h100(130.0, 130.0, 130.0),))
    return make_record(run, references=(reference,))
