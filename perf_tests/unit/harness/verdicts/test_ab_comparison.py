from __future__ import annotations

import math
import random
import re
from typing import Any

import msgspec
import pytest

from perf_tests.harness.records.attributions import Attribution, Blame
from perf_tests.harness.report import ab_comparison as report
from perf_tests.harness.runs.record import Comparison, Pair, Process, Side, Status
from perf_tests.harness.stats.pairs import decide, pair_test
from perf_tests.harness.verdicts.ab_clauses import applied, said
from perf_tests.harness.verdicts.ab_comparison import (
    Question,
    differences,
    is_asked,
    judge_comparison,
    known_peak_mib,
    level,
    stable_versions,
    time_of,
    times_of,
)
from perf_tests.protocol.messages import FailureKind
from perf_tests.tables.metrics import host_bound
from perf_tests.tables.metrics.rows import UNITS
from perf_tests.tables.metrics.spec import Metric
from perf_tests.tables.platforms import CPU, H100, Noise
from perf_tests.unit.builders import (
    FLUX_FP8,
    MINI_INT8WO,
    make_build,
    make_failure,
    make_process,
    make_run,
    make_telemetry,
    make_verdict,
    metric_named,
)
from perf_tests.unit.conftest import CASES
from perf_tests.unit.harness.verdicts.pairs import CANDIDATE, QUIET, SCATTERED, STABLE, compared, process

BUSY = metric_named("step_busy_ms")
SLIM = CASES["flux1-dev-slim-b1-fp8dqrow-regional"]
"""A row whose steps wait for the host."""
STEP, DECODE, SPEEDUP = (metric_named(name) for name in ("denoise_step_ms", "decode_ms", "speedup_vs_bf16"))
TEST = pair_test(Noise(sd_pct=0.36, dof=24), level=0.005, max_pairs=10)
"""At the noise of the platform."""
UNSURE = (1.017, 1.003, 1.017, 1.003, 1.003, 1.001, 1.017, 1.003, 1.001, 1.0)
"""Beyond the limit of the last look, no further apart than the platform allows for, and perhaps chance."""


def question(**tests: Any) -> Question:
    return Question(case=MINI_INT8WO, tests=tests or {"denoise_step_ms": TEST}, least_pairs=5)


def judged(*ratios: float, **changes: Any) -> Comparison:
    found = judge_comparison(question(), compared(*ratios, **changes))
    assert found is not None
    return found


def slower(pct: float) -> tuple[float, ...]:
    return tuple(ratio * (1 + pct / 100) for ratio in QUIET)


# The rule


def test_one_stack_twice_passes_with_five_pairs() -> None:
    decision = decide(TEST, QUIET)
    assert decision.status is Status.PASS
    assert decision.change_pct == pytest.approx(0.0, abs=0.01)


def test_one_percent_on_one_side_is_seen_with_five_pairs() -> None:
    decision = decide(TEST, slower(1.0))
    assert decision.status is Status.REGRESSED
    assert decision.change_pct == pytest.approx(1.0, abs=0.01)
    low, high = decision.interval_pct
    assert 0.4 < low < 0.6 < 1.4 < high < 1.6


def test_faster_candidate_is_an_improvement_that_needs_no_explanation() -> None:
    assert decide(TEST, slower(-20.0)).status is Status.IMPROVED


def test_between_the_bounds_more_pairs_are_wanted_up_to_the_last() -> None:
    undecided = tuple(1.006 for _ in range(10))
    assert [decide(TEST, undecided[:count]).status for count in (5, 7)] == [None, None]
    assert decide(TEST, undecided).status is Status.REGRESSED


@pytest.mark.parametrize(
    "ratios",
    [(0.95, 1.08, 1.0, 0.93, 1.05), (1.0, 1.0, 1.001, 0.999, 1.258), (1.2, 1.4)],
    ids=["either way", "one pair alone", "too few to tell"],
)
def test_pairs_that_lie_too_far_apart_say_nothing(ratios: tuple[float, ...]) -> None:
    assert decide(TEST, ratios).status is Status.INCONCLUSIVE


def test_pairs_that_scatter_are_red_where_their_own_scatter_leaves_no_doubt() -> None:
    decision = decide(TEST, SCATTERED)
    assert decision.status is Status.REGRESSED
    assert (decision.change_pct, *decision.interval_pct, decision.limit_pct) == pytest.approx(
        (19.70, 13.96, 25.73, 9.08), abs=0.01
    )
    assert decide(TEST, [1 / ratio for ratio in SCATTERED]).status is Status.IMPROVED


def test_pairs_are_red_only_where_their_own_scatter_allows_it() -> None:
    ratios = (1.000, 1.004, 1.012, 1.015, 1.019)
    assert decide(TEST, ratios).status is None
    assert decide(TEST, (*ratios, 1.010, 1.010)).status is Status.REGRESSED
    assert not decide(TEST, UNSURE).noise.is_scattered
    assert decide(TEST, UNSURE).status is Status.INCONCLUSIVE


def test_an_improvement_that_may_be_chance_is_no_slowdown_either() -> None:
    decision = decide(TEST, tuple(1 / ratio for ratio in UNSURE))
    assert (decision.status, decision.noise.is_scattered) == (Status.PASS, False)
    assert decision.change_pct == pytest.approx(-0.64, abs=0.01)


@pytest.mark.parametrize(
    ("sd_pct", "most_red_pct"), [(0.51, 0.3), (1.0, 3.5), (1.5, 5.5), (3.0, 5.0), (30.0, 1.2)]
)
def test_equal_stacks_are_hardly_red_on_a_machine_that_is_noisier_than_known(
    sd_pct: float, most_red_pct: float
) -> None:
    chance = random.Random(f"pairs of {sd_pct}")
    red = 0
    for _ in range(2000):
        ratios = [math.exp(chance.gauss(0, sd_pct / 100)) for _ in range(10)]
        looks = (decide(TEST, ratios[:count]).status for count in range(5, 11))
        red += next(filter(None, looks)) in (Status.REGRESSED, Status.IMPROVED)
    assert red / 20 <= most_red_pct


@pytest.mark.parametrize("ratios", [QUIET, slower(1.0), slower(-3.0)])
def test_order_of_pairs_does_not_matter(ratios: tuple[float, ...]) -> None:
    assert decide(TEST, ratios[::-1]).status is decide(TEST, ratios).status


def test_larger_slowdown_of_all_pairs_stays_red() -> None:
    statuses = [decide(TEST, slower(pct)).status for pct in (1.0, 2.0, 5.0, 50.0)]
    assert statuses == [Status.REGRESSED] * 4


@pytest.mark.parametrize(("times", "each"), [(1, 0.005), (10, 0.005), (20, 0.0025), (60, 0.05 / 60)])
def test_level_bounds_the_family(times: int, each: float) -> None:
    assert level(times) == pytest.approx(each)


def test_a_verdict_on_pairs_that_scatter_says_so() -> None:
    comparison = judged(*SCATTERED)
    assert comparison.status is Status.REGRESSED
    assert comparison.reason.startswith(
        "denoise_step_ms: slower than torch 2.12.0 on this device, now: +19.70 %, 95 % interval +13.96 to "
        "+25.73 %, beyond the limit 9.08 %; the pairs scatter 7.8 times more than the platform's noise "
        "allows for, and are held to their own scatter"
    )


def test_pairs_that_do_not_scatter_too_much_are_not_said_to() -> None:
    assert judged(*UNSURE).reason == (
        "denoise_step_ms: +0.65 %, 95 % interval +0.31 to +0.98 % against torch 2.12.0 is beyond the limit "
        "0.56 %, but may be chance by how far the pairs lie apart: compare again (10 pairs, resident)"
    )


# What is compared


def test_noisy_times_are_compared_and_a_ratio_by_its_time() -> None:
    assert [time_of(metric) for metric in (STEP, DECODE, SPEEDUP, BUSY)] == [STEP, DECODE, STEP, BUSY]
    others = ("latency_s", "peak_device_mib", "peak_allocated_mib", "compile_cold_s", "graph_breaks")
    assert [time_of(metric_named(name)) for name in others] == [None] * 5


def test_platform_without_noisy_metrics_compares_nothing() -> None:
    assert times_of(FLUX_FP8, H100) == (STEP, DECODE)
    assert times_of(SLIM, H100) == (DECODE, BUSY)
    assert times_of(MINI_INT8WO, CPU) == ()


@pytest.mark.parametrize(
    ("metric", "status", "asked"),
    [
        ("denoise_step_ms", Status.REGRESSED, True),
        ("denoise_step_ms", Status.NO_BASELINE, True),
        ("denoise_step_ms", Status.PASS, False),
        ("denoise_step_ms", Status.INVALID, False),
        ("speedup_vs_bf16", Status.REGRESSED, True),
        ("speedup_vs_bf16", Status.NO_BASELINE, False),
        ("peak_allocated_mib", Status.REGRESSED, False),
        ("graph_breaks", Status.NO_BASELINE, False),
    ],
)
def test_regressed_times_and_those_without_a_baseline_are_asked_about(
    metric: str, status: Status, asked: bool
) -> None:
    assert is_asked(make_verdict(metric, status), metric_named(metric)) is asked


def test_known_peak_is_the_largest_of_the_run_and_its_baseline() -> None:
    build = make_build({"peak_device_mib": 30000.0, "peak_reserved_mib": 29000.0})
    run = make_run(processes=(make_process(build=build),))
    assert known_peak_mib(run, {}) == 30000.0
    assert known_peak_mib(run, {"peak_reserved_mib": (31000.0, 30500.0)}) == 31000.0
    nothing = msgspec.structs.replace(build, values={})
    assert known_peak_mib(make_run(processes=(make_process(build=nothing),)), {}) is None


def test_what_differs_between_the_stacks_is_named() -> None:
    newer = msgspec.structs.replace(CANDIDATE, python="3.12.1", settings={"cudnn": "9.2"})
    assert differences(STABLE, STABLE) == ()
    assert differences(STABLE, newer) == (
        "cudnn absent -> 9.2",
        "matmul_precision highest -> absent",
        "python 3.11.9 -> 3.12.1",
        "torch 2.12.0 (aaaaaaaaaa) -> 2.13.0 (bbbbbbbbbb)",
    )
    assert stable_versions(compared()) == "torch 2.12.0"
    assert stable_versions(compared(candidate=STABLE)) == "the same versions"
    assert stable_versions(compared(stable=None)) == "the stack of /stable/bin/python"


# A comparison


def test_before_the_fifth_pair_nothing_is_decided() -> None:
    assert judge_comparison(question(), compared(*slower(50.0)[:4])) is None


def test_verdict_is_on_the_statistics_of_the_pairs() -> None:
    comparison = judged(*slower(1.0))
    (verdict,) = comparison.verdicts
    assert (comparison.status, verdict.status) == (Status.REGRESSED, Status.REGRESSED)
    assert (verdict.metric, verdict.baseline) == ("denoise_step_ms", 100.0)
    assert verdict.measured == pytest.approx(100.899)
    assert verdict.limit == pytest.approx(100.8, abs=0.05)
    assert verdict.reason.startswith(
        "slower than torch 2.12.0 on this device, now: +1.00 %, 95 % interval +0."
    )
    assert verdict.reason.endswith("(5 pairs, resident)")


def test_all_times_are_decided_together() -> None:
    both = question(denoise_step_ms=TEST, decode_ms=TEST)
    assert judge_comparison(both, compared(*(1.006,) * 5)) is None
    found = judge_comparison(both, compared(*slower(1.0)))
    assert found is not None
    assert {each.metric: each.status for each in found.verdicts} == {
        "denoise_step_ms": Status.REGRESSED,
        "decode_ms": Status.PASS,
    }
    assert found.reason.startswith("denoise_step_ms: slower than torch 2.12.0")


def test_identical_stacks_are_quiet() -> None:
    comparison = judged(*QUIET, candidate=STABLE)
    assert (comparison.status, comparison.reason) == (Status.PASS, "")
    assert "as fast as the same versions" in comparison.verdicts[0].reason


@pytest.mark.parametrize(
    ("kind", "status"),
    [(FailureKind.CRASH, Status.CRASH), (FailureKind.UNSUPPORTED, Status.INCONCLUSIVE)],
)
def test_side_that_fails_is_named_and_never_green(kind: FailureKind, status: Status) -> None:
    failure = make_failure(kind=kind, message="no config of that name")
    comparison = judged(failure=failure, failed_side=Side.STABLE)
    assert comparison.status is status
    assert "the stable stack (/stable/bin/python) failed: " in comparison.reason
    assert comparison.reason.endswith("no config of that name")
    verdict = applied(make_verdict("denoise_step_ms", Status.NO_BASELINE), STEP, comparison)
    assert verdict.status is Status.INCONCLUSIVE
    assert not verdict.status.is_green


def test_side_that_is_not_what_was_asked_for_ends_it() -> None:
    bare = make_build(quantization=None)
    pair = Pair(stable=process(100.0, build=bare), candidate=process(100.0))
    comparison = judged(pairs=(pair,))
    assert (comparison.status, comparison.failed_side) == (Status.UNPROVEN, Side.STABLE)
    assert "what was built is not what was asked for" in comparison.reason


def test_throttled_side_ends_it_invalid() -> None:
    hot = make_telemetry(throttle_reasons=("HwThermalSlowdown",))
    pair = Pair(stable=process(100.0), candidate=process(150.0, telemetry=hot))
    comparison = judged(pairs=(pair,))
    assert comparison.status is Status.INVALID
    assert comparison.reason.startswith(
        "of the candidate's processes, the GPU was throttled during process 1"
    )
    missing = make_verdict("denoise_step_ms", Status.NO_BASELINE)
    assert applied(missing, STEP, comparison).status is Status.INVALID


# What it says about a verdict


@pytest.mark.parametrize(
    ("ratios", "clause"),
    [
        pytest.param(
            slower(3.1), "confirmed: also 3.1 % slower than torch 2.12.0 on this card, now", id="yes"
        ),
        pytest.param(
            QUIET,
            "not confirmed: the stable stack (torch 2.12.0) is as slow on this card today",
            id="no",
        ),
        pytest.param(
            (0.95, 1.08, 1.0, 0.93, 1.05),
            "neither confirmed nor refuted: the pairs scatter",
            id="cannot tell",
        ),
    ],
)
@pytest.mark.parametrize("metric", [STEP, SPEEDUP], ids=lambda each: each.name)
def test_regression_stays_red_and_says_whether_it_is_confirmed(
    metric: Any, ratios: tuple[float, ...], clause: str
) -> None:
    before = make_verdict(metric.name, Status.REGRESSED, change_pct=4.0)
    after = applied(before, metric, judged(*ratios))
    assert (after.status, after.change_pct) == (Status.REGRESSED, 4.0)
    assert after.reason.startswith(f"because of {metric.name}; {clause}")


def test_without_confirmation_it_was_not_the_code() -> None:
    after = applied(make_verdict(STEP.name, Status.REGRESSED), STEP, judged(*QUIET))
    assert after.reason.endswith("the card or the baseline moved, not the code")


@pytest.mark.parametrize(
    ("ratios", "status"),
    [(QUIET, Status.PASS), (slower(1.0), Status.REGRESSED), (slower(-5.0), Status.IMPROVED)],
)
def test_without_a_baseline_the_comparison_is_the_verdict(ratios: tuple[float, ...], status: Status) -> None:
    verdict = applied(make_verdict(STEP.name, Status.NO_BASELINE), STEP, judged(*ratios))
    assert (verdict.status, verdict.baseline) == (status, 100.0)
    assert verdict.ci_pct is not None
    assert verdict.reason.startswith("because of denoise_step_ms; ")


@pytest.mark.parametrize("status", [Status.PASS, Status.NO_BASELINE, Status.REGRESSED])
def test_memory_is_never_judged_by_a_comparison(status: Status) -> None:
    verdict = make_verdict("peak_reserved_mib", status)
    assert applied(verdict, metric_named("peak_reserved_mib"), judged(*QUIET)) is verdict


# The report


def test_failure_text_says_whether_and_against_what() -> None:
    comparison = judged(*slower(3.1))
    verdict = applied(make_verdict(STEP.name, Status.REGRESSED), STEP, comparison)
    lines = report.explanation(verdict, STEP, comparison)
    assert lines[0].startswith(
        "  against    confirmed: also 3.1 % slower than torch 2.12.0 on this card, now"
    )
    assert "  stacks     stable -> candidate: torch 2.12.0 (aaaaaaaaaa) -> 2.13.0 (bbbbbbbbbb)" in lines
    assert lines[-1].startswith("  schedule   resident: 2 x 400 MiB + 2048 MiB fit in 92 % of 81510 MiB")
    assert all(len(line) <= 160 for line in lines)


def test_verdict_that_was_not_asked_about_is_not_explained() -> None:
    comparison = judged(*QUIET)
    verdict = make_verdict("peak_reserved_mib", Status.REGRESSED)
    assert said(verdict, metric_named("peak_reserved_mib"), comparison) is None
    assert report.explanation(verdict, metric_named("peak_reserved_mib"), comparison) == []


def test_table_has_a_line_per_time_and_names_what_differs() -> None:
    dead = judged(failure=make_failure(), failed_side=Side.STABLE)
    lines = report.table([judged(*slower(1.0)), dead], UNITS)
    assert re.fullmatch(
        rf"{MINI_INT8WO.id} +denoise_step_ms +100.0 ms +100.9 ms +\+1.00 % +"
        r"\+0.\d\d to \+1.\d\d % +5 +resident +REGRESSED",
        lines[2],
    )
    assert "ERROR(oom): the stable stack (/stable/bin/python) failed" in lines[3]
    assert lines[4] == ("if the two stacks are equal, each time is red with a probability of at most 0.5 %")
    assert lines[-1].startswith("/stable/bin/python: stable -> candidate: torch 2.12.0 (aaaaaaaaaa) -> ")
    assert report.table([], UNITS) == []


def test_equal_stacks_are_called_so() -> None:
    assert report.differing(compared(candidate=STABLE)) == (
        "the two stacks are the same in everything on record"
    )
    assert report.differing(compared(stable=None)) == "nothing is known about the stable stack"


# Where steps wait for the host


def of_slow_host(*ratios: float, pressure_pct: float) -> Comparison:
    """Pairs whose steps lie far apart by the wall clock; `ratios` are those of what the device is busy."""
    telemetry = make_telemetry(cpu_pressure_pct=pressure_pct)
    walls_ms = (11.0, 23.0, 12.0, 17.0, 11.5)

    def one(wall_ms: float, busy_ms: float) -> Process:
        return process(wall_ms, telemetry=telemetry, build=make_build({"step_busy_ms": busy_ms}))

    return compared(
        pairs=tuple(
            Pair(stable=one(wall_ms, 6.0), candidate=one(other_ms, 6.0 * ratio))
            for wall_ms, other_ms, ratio in zip(walls_ms, walls_ms[::-1], ratios, strict=True)
        )
    )


@pytest.fixture
def mini_is_host_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    wall = host_bound.HOST_BOUND[0].wall
    row = host_bound.HostBound(cases=MINI_INT8WO.id, wall=wall)
    monkeypatch.setattr(host_bound, "HOST_BOUND", (row,))


@pytest.mark.usefixtures("mini_is_host_bound")
@pytest.mark.parametrize("pressure_pct", [0.0, 60.0], ids=["quiet", "busy"])
@pytest.mark.parametrize(("ratios", "status"), [(QUIET, Status.PASS), (slower(2.0), Status.REGRESSED)])
def test_hosts_agree_on_the_time_of_the_device(
    ratios: tuple[float, ...], status: Status, pressure_pct: float
) -> None:
    asked = question(decode_ms=TEST, step_busy_ms=TEST)
    found = judge_comparison(asked, of_slow_host(*ratios, pressure_pct=pressure_pct))
    assert found is not None
    assert {each.metric: each.status for each in found.verdicts} == {
        "decode_ms": Status.PASS,
        "step_busy_ms": status,
    }


def test_a_busy_host_spoils_the_comparison_of_any_other_row() -> None:
    found = judge_comparison(question(step_busy_ms=TEST), of_slow_host(*QUIET, pressure_pct=60.0))
    assert found is not None
    assert (found.status, "the host was busy" in found.reason) == (Status.INVALID, True)


def attributed(metric: str, blame: Blame) -> Attribution:
    return Attribution(
        case=MINI_INT8WO.id,
        metric=metric,
        scheme="int8wo",
        compile="eager",
        platform="h100",
        blame=blame,
        sentence="it was",
        members=(MINI_INT8WO.id,),
    )


@pytest.mark.parametrize(
    ("metric", "comparison", "found", "answered"),
    [
        pytest.param(STEP, None, (), False, id="nobody-asked"),
        pytest.param(STEP, judged(*slower(2.0)), (), True, id="confirmed"),
        pytest.param(STEP, judged(*QUIET), (), False, id="not-confirmed"),
        pytest.param(DECODE, judged(*slower(2.0)), (), False, id="another-time"),
        pytest.param(STEP, None, (attributed("denoise_step_ms", Blame.TORCH),), True, id="torch"),
        pytest.param(SPEEDUP, None, (attributed("denoise_step_ms", Blame.TORCH),), True, id="its-ratio"),
        pytest.param(DECODE, None, (attributed("denoise_step_ms", Blame.TORCH),), False, id="not-of-it"),
        pytest.param(STEP, None, (attributed("denoise_step_ms", Blame.UNKNOWN),), False, id="unknown"),
        pytest.param(
            STEP, None, (attributed("denoise_step_ms", Blame.NOT_REPRODUCED),), False, id="the-card"
        ),
    ],
)
def test_other_stacks_answer_where_they_name_the_code(
    metric: Metric, comparison: Comparison | None, found: tuple[Attribution, ...], answered: bool
) -> None:
    assert report.is_answered(MINI_INT8WO.id, metric, comparison, found) is answered
