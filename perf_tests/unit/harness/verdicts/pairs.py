"""Comparisons of two stacks, by the ratio of each pair."""

from __future__ import annotations

from typing import Any

import msgspec

from perf_tests.harness.runs.record import Comparison, Pair, Process, Schedule, Status
from perf_tests.unit.builders import GPU, MINI_INT8WO, make_build, make_environment, make_process, make_sample

QUIET = (1.002, 0.997, 1.004, 0.999, 0.998)
"""Ratios of five pairs of one stack, as far apart as two processes are."""
SCATTERED = (1.26655, 1.16725, 1.14859, 1.22561, 1.18096)
"""As seen on an H200, where inductor fused nothing: steps of 112 to 134 ms instead of 98."""
STABLE = make_environment(gpu=GPU, packages={"torch": "2.12.0 (aaaaaaaaaa)", "torchao": "0.18.0"})
CANDIDATE = make_environment(gpu=GPU, packages={"torch": "2.13.0 (bbbbbbbbbb)", "torchao": "0.18.0"})


def process(step_ms: float, **changes: Any) -> Process:
    telemetry = changes.pop("telemetry", None)
    sample = make_sample({"denoise_step_ms": (step_ms,) * 3, "decode_ms": (10.0,)}, telemetry=telemetry)
    return make_process(samples=(sample, sample), twin_samples=(), build=changes.pop("build", make_build()))


def compared(*ratios: float, **changes: Any) -> Comparison:
    """int8wo on two stacks, a pair for each ratio of the steps, 100 ms on the stable one."""
    default = Comparison(
        id=MINI_INT8WO.id,
        digest=MINI_INT8WO.digest,
        platform="h100",
        pipeline="flux-mini",
        against="/stable/bin/python",
        schedule=Schedule.RESIDENT,
        schedule_reason="2 x 400 MiB + 2048 MiB fit in 92 % of 81510 MiB",
        status=Status.INCONCLUSIVE,
        stable=STABLE,
        candidate=CANDIDATE,
        pairs=tuple(Pair(stable=process(100.0), candidate=process(100.0 * ratio)) for ratio in ratios),
    )
    return msgspec.structs.replace(default, **changes)
