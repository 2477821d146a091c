"""The table of verdicts: runs in, lines out."""

from __future__ import annotations

import msgspec

from perf_tests.harness.baselines.entry import Entry
from perf_tests.harness.report.terminal import not_compared, provisional, table
from perf_tests.harness.runs.record import Run, Status, Verdict
from perf_tests.protocol.messages import Failure, FailureKind, Phase

UNITS = {"denoise_step_ms": "ms", "weight_bytes": "B"}
STEP = Verdict(
    metric="denoise_step_ms",
    status=Status.REGRESSED,
    measured=106.3,
    baseline=100.5,
    change_pct=5.77,
    ci_pct=None,
    limit=103.515,
    reason="beyond the limit",
)
WEIGHT = Verdict(
    metric="weight_bytes",
    status=Status.NO_BASELINE,
    measured=1234567.0,
    baseline=None,
    change_pct=None,
    ci_pct=None,
    limit=None,
    reason="no baseline",
)
JUDGED = Run(
    id="flux-a",
    digest="d",
    platform="cpu",
    pipeline="flux-mini",
    status=Status.REGRESSED,
    verdicts=(STEP, WEIGHT),
)
FAILED = Run(
    id="flux-b",
    digest="d",
    platform="cpu",
    pipeline="flux-mini",
    status=Status.TIMEOUT,
    failure=Failure(kind=FailureKind.TIMEOUT, phase=Phase.COMPILE, message="No answer\nin 9 s"),
)


def test_the_table_aligns_its_columns_and_names_a_case_once() -> None:
    assert table([JUDGED, FAILED], UNITS) == [
        "case    metric           baseline          now   change     limit  verdict",
        "flux-a  denoise_step_ms  100.5 ms     106.3 ms  +5.77 %  103.5 ms  REGRESSED",
        "        weight_bytes            -  1,234,567 B        -         -  NO_BASELINE",
        "flux-b  -                       -            -        -         -  ERROR(timeout): No answer in 9 s",
    ]


def test_metrics_that_were_not_compared_are_counted_and_listed() -> None:
    verdict = msgspec.structs.replace(
        STEP, metric="step_tflop", status=Status.NOT_COMPARED, reason="an unknown operator"
    )
    run = msgspec.structs.replace(JUDGED, verdicts=(WEIGHT, verdict))
    assert not_compared([run, JUDGED, run]) == [
        "NOT_COMPARED with the baselines: 2",
        "  flux-a: step_tflop: an unknown operator",
        "  flux-a: step_tflop: an unknown operator",
    ]
    assert not_compared([JUDGED, FAILED]) == []


def test_a_metric_that_no_test_judges_is_shown_after_the_verdicts() -> None:
    run = msgspec.structs.replace(JUDGED, measured={"denoise_step_ms": 106.3, "encode_ms": 55.0})
    assert table([run], {**UNITS, "encode_ms": "ms"})[-1].split() == [
        "encode_ms",
        "-",
        "55.00",
        "ms",
        "-",
        "-",
        "shown",
    ]


def test_a_case_that_is_unproven_shows_its_status_before_what_was_judged() -> None:
    run = msgspec.structs.replace(JUDGED, status=Status.UNPROVEN, reason="1 module is not quantized")

    lines = table([run], UNITS)

    assert lines[1].startswith("flux-a  -")
    assert lines[1].endswith("ERROR(unproven): 1 module is not quantized")
    assert len(lines) == 4


def test_a_case_that_did_not_run_says_why() -> None:
    run = msgspec.structs.replace(
        JUDGED, status=Status.NOT_RUN, reason="the budget of 9m is spent", verdicts=()
    )

    assert table([run], UNITS)[1].endswith("NOT_RUN(budget): the budget of 9m is spent")


def test_a_long_reason_is_whole() -> None:
    run = msgspec.structs.replace(JUDGED, status=Status.UNSUPPORTED, reason="x" * 500, verdicts=())

    assert table([run], UNITS)[1].endswith("UNSUPPORTED: " + "x" * 500)


def test_a_change_of_decibels_is_a_difference() -> None:
    answers = msgspec.structs.replace(
        STEP, metric="step_sqnr_db", measured=30.5, baseline=31.25, change_pct=None, limit=30.75
    )
    run = msgspec.structs.replace(JUDGED, verdicts=(answers,))

    row = table([run], {"step_sqnr_db": "dB"})[1]
    assert row.split(maxsplit=2)[2] == "31.25 dB  30.50 dB  -0.75 dB  30.75 dB  REGRESSED"


def test_the_table_is_empty_without_runs() -> None:
    assert table([], UNITS) == []


def test_cases_judged_by_fewer_than_three_processes_are_listed() -> None:
    entry = Entry(digest="d", provenance="p", processes=2, metrics={})
    settled = msgspec.structs.replace(entry, processes=3)
    runs = [
        JUDGED,
        msgspec.structs.replace(JUDGED, id="settled"),
        msgspec.structs.replace(JUDGED, id="new"),
        FAILED,
    ]

    assert provisional(runs, {"flux-a": entry, "settled": settled, "flux-b": entry}) == ["flux-a"]
