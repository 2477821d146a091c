"""Of which red cases something is recorded: one of those that are alike, and the others say which."""

from __future__ import annotations

import dataclasses

from perf_tests.harness.attribution.clusters import Suspect
from perf_tests.harness.profiles.wanted import GENERATES_NOTHING, TRAINS, wanted
from perf_tests.harness.runs.record import Status
from perf_tests.tables.cases import Case
from perf_tests.tables.platforms import CPU, H100, Platform
from perf_tests.unit.builders import make_run, make_verdict, metric_named
from perf_tests.unit.conftest import CASES, TRAINED

STEP = metric_named("denoise_step_ms")
PEAK = metric_named("peak_allocated_mib")
FP8DQROW, FP8DQROW_OF_SCHNELL, INT8DQ, FP8WO, BF16 = (
    CASES[name]
    for name in (
        "flux1-dev-b1-fp8dqrow-regional",
        "flux1-schnell-b1-fp8dqrow-regional",
        "flux1-schnell-b1-int8dq-regional-tuned",
        "flux1-schnell-b1-fp8wo-regional",
        "flux1-schnell-b1-bf16-regional",
    )
)


def slower(case: Case, change_pct: float = 5.0, status: Status = Status.REGRESSED) -> Suspect:
    """A red time, whose pairs say the same or not."""
    ci_pct = (change_pct - 1.0, change_pct + 1.0)
    compared = make_verdict(STEP.name, status, change_pct=change_pct, ci_pct=ci_pct)
    red = make_verdict(STEP.name, Status.REGRESSED, change_pct=change_pct)
    return Suspect(run=make_run(case, H100, verdicts=(red,)), case=case, metric=STEP, compared=compared)


def larger(case: Case, platform: Platform = H100) -> Suspect:
    """A red peak."""
    red = make_verdict(PEAK.name, Status.REGRESSED, change_pct=4.0)
    return Suspect(run=make_run(case, platform, verdicts=(red,)), case=case, metric=PEAK)


def test_of_cases_that_are_alike_the_most_certain_is_profiled() -> None:
    first, other = wanted([slower(FP8DQROW_OF_SCHNELL, 3.0), slower(FP8DQROW, 9.0)])
    assert (first.suspect.case, first.profile) == (FP8DQROW_OF_SCHNELL, False)
    assert first.no_profile == f"{FP8DQROW.id} was recorded, which is red alike"
    assert (other.suspect.case, other.profile, other.no_profile) == (FP8DQROW, True, "")


def test_a_time_that_pairs_have_not_confirmed_is_left_out() -> None:
    assert wanted([slower(FP8DQROW, 0.1, Status.PASS)]) == ()
    unasked = dataclasses.replace(slower(FP8DQROW), compared=None)
    assert wanted([unasked]) == ()


def test_three_cases_are_the_most() -> None:
    found = wanted([slower(INT8DQ, 9.0), slower(FP8WO, 8.0), slower(BF16, 7.0), slower(FP8DQROW, 6.0)])
    assert {each.suspect.case.id for each in found if each.profile} == {INT8DQ.id, FP8WO.id, BF16.id}
    (left_out,) = [each for each in found if not each.profile]
    assert left_out.no_profile == "3 others were recorded, which is the most"


def test_a_red_peak_and_a_red_time_of_one_case_are_one_recording() -> None:
    (found,) = wanted([larger(FP8DQROW), slower(FP8DQROW)])
    assert (found.profile, found.snapshot) == (True, True)
    assert found.suspect.metric is STEP


def test_a_red_peak_of_a_cpu_has_no_snapshot() -> None:
    assert wanted([larger(FP8DQROW)])[0].snapshot
    assert wanted([larger(FP8DQROW, CPU)]) == ()


def test_what_trains_is_not_profiled() -> None:
    (found,) = wanted([slower(CASES[TRAINED])])
    assert (found.profile, found.no_profile) == (False, TRAINS)


def test_what_is_only_quantized_and_moved_is_neither_profiled_nor_seen_allocating() -> None:
    (found,) = wanted([larger(CASES["llama-7b-b1-int8wo-eager"])])
    assert (found.snapshot, found.no_snapshot) == (False, GENERATES_NOTHING)
