"""A night of every H100 row, made up and marked as such, with texts as hostile as a worker's may be."""

from __future__ import annotations

from functools import cache

import msgspec

from perf_tests.harness.runs.record import Process, Run, RunRecord, Status, Verdict
from perf_tests.protocol.messages import FailureKind, Phase
from perf_tests.tables.cases import Case, Weights
from perf_tests.tables.matrix import MATRIX
from perf_tests.tables.metrics.rows import METRICS
from perf_tests.tables.platforms import H100
from perf_tests.unit import builders
from perf_tests.unit.builders import GPU, make_build, make_environment, make_failure, make_record, make_sample

SYNTHETIC = "SYNTHETIC: made up for tests, nothing was measured"
HOSTILE = (
    "</pre></style></script><script>alert(1)</script><img src=x onerror=alert(1)> & \"'>"
    "<a href='javascript:alert(1)'> {{ 7 * 7 }} {% raw %} \x1b[31m \x00 \u202e \u2028 \ud800 ]]> <!-- "
    '" onmouseover=alert(1) https://example.invalid/a.js'
)
STATUSES = (Status.PASS,) * 5 + (Status.REGRESSED, Status.NO_BASELINE, Status.IMPROVED, Status.INCONCLUSIVE)
STEPS = tuple(100.0 + (number * 7 % 11) / 10 for number in range(27))


def h100_cases() -> tuple[Case, ...]:
    """Every row of the H100."""
    return tuple(
        row.case(Weights.SYNTHETIC) for row in MATRIX if H100 in row.platforms and not row.exhaustive
    )


def verdicts(status: Status) -> tuple[Verdict, ...]:
    """One on every metric: the first has `status`, the others pass."""
    return tuple(
        Verdict(
            metric=metric.name,
            status=status if number == 0 else Status.PASS,
            measured=103.0 + number,
            baseline=100.0 + number,
            change_pct=3.0,
            ci_pct=(1.5, 4.5),
            limit=101.0 + number,
            reason=f"{HOSTILE if number == 0 else 'within the limit'}",
        )
        for number, metric in enumerate(METRICS)
    )


@cache
def process() -> Process:
    """One with five generations of 27 steps."""
    sample = make_sample({"denoise_step_ms": STEPS})
    return builders.make_process(
        environment=make_environment(gpu=GPU),
        build=make_build(roofline_ms=61.0),
        samples=(sample,) * 5,
    )


def night(count: int | None = None) -> RunRecord:
    """The first `count` rows, or all: three processes each, every fifth failed with a hostile message."""
    return make_record(
        *(run(number, case) for number, case in enumerate(h100_cases()[:count])),
        references=(),
        command=f"pytest -m h100 # {SYNTHETIC}",
        created_at="2026-11-20T07:17:00+00:00",
        environment=make_environment(gpu=GPU),
        missing=(f"{HOSTILE}: weight_bytes",),
    )


def run(number: int, case: Case) -> Run:
    """The `number`-th of the night."""
    made = Run(
        id=case.id,
        digest="d" * 64,
        platform=H100.id,
        pipeline=case.build.pipeline.id,
        status=Status.PASS,
        processes=(process(),) * 3,
        measured={"denoise_step_ms": 103.0, "encode_ms": 50.0},
    )
    if number % 5 == 4:
        failure = make_failure(
            kind=FailureKind.CRASH, phase=Phase.GENERATE, message=f"{HOSTILE} {number}", details=HOSTILE
        )
        return msgspec.structs.replace(
            made, status=Status.CRASH, failure=failure, reason=HOSTILE, processes=()
        )
    status = STATUSES[number % len(STATUSES)]
    return msgspec.structs.replace(made, status=status, reason=HOSTILE, verdicts=verdicts(status))
