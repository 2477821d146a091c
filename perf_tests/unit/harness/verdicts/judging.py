"""Runs of one metric, and the verdict on it, for the tests of rules and of the judge."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from perf_tests.harness.records.fidelity import Fidelity
from perf_tests.harness.runs.record import Run, Verdict
from perf_tests.harness.verdicts.judge import judge_metric
from perf_tests.tables.metrics.spec import Metric
from perf_tests.tables.platforms import H100, Platform
from perf_tests.unit.builders import (
    FLUX_FP8,
    H100_UUID,
    make_accepted,
    make_build,
    make_entry,
    make_process,
    make_reference,
    make_run,
    make_sample,
    make_significance,
    metric_named,
)


def run_of(metric: str, values: Sequence[float], platform: Platform = H100) -> Run:
    """A run of FLUX_FP8 with one process per value, reported wherever the metric is read from."""
    return make_run(
        FLUX_FP8,
        platform,
        processes=tuple(
            make_process(
                samples=(make_sample({metric: [value]}),),
                build=make_build({metric: value}),
                fidelity=Fidelity(psnr_db=value, ssim=value, identical=False),
            )
            for value in values
        ),
    )


def judged(
    metric: str | Metric,
    measured: Sequence[float],
    baseline: Sequence[float] | None,
    *,
    unit: str = H100_UUID,
    entry: dict[str, Any] | None = None,
    provenance: dict[str, Any] | None = None,
    **changes: Any,
) -> Verdict:
    """The verdict on processes of FLUX_FP8 on an H100, against the processes of a baseline, None for none.

    `unit` is what was measured on; `entry` and `provenance` change the baseline, `changes` the arguments of
    `judge_metric`. The noise is 0.36 % with 60 degrees of freedom, of 60 metrics, with up to 5 processes.
    """
    row = metric if isinstance(metric, Metric) else metric_named(metric)
    accepted = baseline and make_entry({row.name: baseline}, case=FLUX_FP8, **(entry or {}))
    arguments: dict[str, Any] = {
        "case": FLUX_FP8,
        "platform": H100,
        "run": run_of(row.name, measured),
        "reference": make_reference(FLUX_FP8, H100),
        "accepted": accepted and make_accepted(accepted, unit=H100_UUID, **(provenance or {})),
        "unit": unit,
        "significance": make_significance(),
    }
    return judge_metric(row, **{**arguments, **changes})
