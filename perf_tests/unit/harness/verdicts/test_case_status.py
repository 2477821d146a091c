from __future__ import annotations

import msgspec
import pytest

from perf_tests.harness.runs.record import (
    STATUS_OF_FAILURE,
    Status,
)
from perf_tests.harness.verdicts.case_status import SEVERITY, leading, overall
from perf_tests.protocol.messages import FailureKind
from perf_tests.unit.builders import (
    make_failure,
    make_run,
    make_verdict,
)


def test_severity_orders_every_status() -> None:
    assert sorted(SEVERITY) == sorted(Status)


def test_status_that_is_not_green_is_worse_than_every_green_one() -> None:
    greens = [status.is_green for status in SEVERITY]
    assert greens == sorted(greens)


@pytest.mark.parametrize("kind", [*FailureKind])
def test_failure_overrides_every_verdict(kind: FailureKind) -> None:
    run = make_run(
        failure=make_failure(kind=kind, message="it broke"),
        verdicts=(make_verdict("ssim", Status.REGRESSED),),
    )
    assert overall(run) == (STATUS_OF_FAILURE[kind], "it broke")


@pytest.mark.parametrize("status", [Status.UNPROVEN, Status.UNSUPPORTED, Status.NOT_RUN, Status.INVALID])
def test_declared_status_is_not_improved_by_verdicts(status: Status) -> None:
    run = make_run(status=status, reason="because", verdicts=(make_verdict("ssim", Status.PASS),))
    assert overall(run) == (status, "because")


def test_invalid_run_does_not_hide_what_regressed_all_the_same() -> None:
    run = make_run(status=Status.INVALID, verdicts=(make_verdict("weight_bytes", Status.REGRESSED),))
    assert overall(run) == (Status.REGRESSED, "weight_bytes: because of weight_bytes")


def test_worst_verdict_decides_and_is_named() -> None:
    run = make_run(
        verdicts=(
            make_verdict("ssim", Status.PASS),
            make_verdict("graph_breaks", Status.REGRESSED),
            make_verdict("psnr_db", Status.NO_BASELINE),
        )
    )
    assert overall(run) == (Status.REGRESSED, "graph_breaks: because of graph_breaks")


def test_case_whose_verdicts_all_pass_passes_without_a_reason() -> None:
    assert overall(make_run(verdicts=(make_verdict("ssim", Status.PASS),))) == (Status.PASS, "")


def test_run_that_was_not_judged_is_inconclusive() -> None:
    run = msgspec.structs.replace(make_run(), status=Status.PASS)
    assert overall(run) == (Status.INCONCLUSIVE, "measured, not judged")


def test_of_one_status_what_names_a_cause_leads() -> None:
    names = ("ssim", "denoise_step_ms", "step_sqnr_db", "layer_gain", "modules_off_plan", "distinct_outputs")
    verdicts = [make_verdict(name, Status.REGRESSED) for name in names]
    passed = make_verdict("weight_bytes", Status.PASS)

    assert [each.metric for each in leading([passed, *verdicts])] == [
        "distinct_outputs",
        "modules_off_plan",
        "layer_gain",
        "step_sqnr_db",
        "ssim",
        "denoise_step_ms",
        "weight_bytes",
    ]
    assert overall(make_run(verdicts=tuple(verdicts)))[1].startswith("distinct_outputs: ")
