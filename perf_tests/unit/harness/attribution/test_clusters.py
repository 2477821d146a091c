"""Which red cases are attributed together, and which of them are measured for all."""

from __future__ import annotations

import pytest

from perf_tests.harness.attribution.clusters import Cluster, clusters, suspects
from perf_tests.harness.runs.record import Comparison, Run, Schedule, Status
from perf_tests.protocol.messages import Failure, FailureKind, Phase
from perf_tests.tables.platforms import H100
from perf_tests.unit.builders import make_build, make_failure, make_process, make_run, make_verdict
from perf_tests.unit.conftest import CASES

STEP, DECODE, LATENCY = "denoise_step_ms", "decode_ms", "latency_s"
FP8 = ("flux1-dev-b1-fp8dqrow-regional", "flux1-dev-b4-fp8dqrow-regional")
INT8 = "flux1-dev-b1-int8wo-eager"
BF16 = ("flux1-dev-b1-bf16-eager", "flux1-dev-b1-bf16-regional")


def red(case_id: str, *metrics: str, seconds: float = 60.0) -> Run:
    process = make_process(build=make_build(seconds={"load": seconds}))
    verdicts = tuple(make_verdict(each, Status.REGRESSED, change_pct=2.0) for each in metrics)
    return make_run(CASES[case_id], H100, processes=(process,), verdicts=verdicts)


def compared(run: Run, change_pct: float, status: Status = Status.REGRESSED) -> Comparison:
    """Each red time of the run is that much slower than with the good stack, give or take 0.4 %."""
    interval = (change_pct - 0.4, change_pct + 0.4)
    return Comparison(
        id=run.id,
        digest=run.digest,
        platform=run.platform,
        pipeline=run.pipeline,
        against="/good/python",
        schedule=Schedule.RESIDENT,
        schedule_reason="",
        status=status,
        verdicts=tuple(
            make_verdict(each.metric, status, change_pct=change_pct, ci_pct=interval) for each in run.verdicts
        ),
    )


def found(*runs: Run, **changes: float) -> tuple[Cluster, ...]:
    """The clusters where each run is slower by 2 %, or by what `changes` says of its place."""
    comparisons = {run.id: compared(run, changes.get(f"run{number}", 2.0)) for number, run in enumerate(runs)}
    return clusters(suspects(runs, CASES, comparisons))


def measured(cluster: Cluster) -> str | None:
    return cluster.measured.run.id if cluster.measured else None


def test_cases_that_are_alike_are_measured_once_by_the_most_certain_one() -> None:
    (cluster,) = found(red(FP8[0], STEP), red(FP8[1], STEP), run0=1.5, run1=3.0)
    assert measured(cluster) == FP8[1]
    assert cluster.members == (FP8[1], FP8[0])


def test_scheme_compile_mode_and_metric_tell_clusters_apart() -> None:
    keys = {
        cluster.suspects[0].key
        for cluster in found(red(FP8[0], STEP, DECODE), red(BF16[0], STEP), red(BF16[1], STEP))
    }
    assert keys == {
        ("fp8dqrow", "regional", STEP),
        ("fp8dqrow", "regional", DECODE),
        ("bf16", "eager", STEP),
        ("bf16", "regional", STEP),
    }


def test_a_ratio_is_attributed_by_the_time_that_it_is_formed_from() -> None:
    run = red(FP8[0], STEP, "speedup_vs_bf16")
    (suspect,) = suspects((run,), CASES, {run.id: compared(run, 2.0)})
    assert suspect.metric.name == STEP


def test_a_case_that_is_measured_stands_for_all_of_its_clusters() -> None:
    both = red(FP8[0], STEP, DECODE)
    by_metric = {cluster.suspects[0].key[2]: cluster for cluster in found(both, red(FP8[1], STEP), run1=3.0)}
    assert measured(by_metric[STEP]) == FP8[1]
    assert measured(by_metric[DECODE]) == FP8[0]
    by_metric = {cluster.suspects[0].key[2]: cluster for cluster in found(both, red(FP8[1], STEP), run0=3.0)}
    assert {measured(each) for each in by_metric.values()} == {FP8[0]}


def test_three_cases_are_measured_at_most_and_the_dearest_last() -> None:
    dear, cheap = red(FP8[0], STEP, seconds=90.0), red(INT8, STEP, seconds=30.0)
    grouped = found(dear, cheap, red(BF16[0], STEP), red(BF16[1], STEP), run3=1.0)
    assert [measured(each) for each in grouped if each.measured] == [INT8, BF16[0], FP8[0]]
    assert [each.members for each in grouped if each.measured is None] == [(BF16[1],)]


def test_a_time_that_was_not_confirmed_is_not_measured() -> None:
    run = red(FP8[0], STEP)
    comparison = compared(run, 0.1, Status.PASS)
    (cluster,) = clusters(suspects((run,), CASES, {run.id: comparison}))
    assert (cluster.measured, cluster.suspects[0].is_confirmed) == (None, False)


def test_what_is_exact_comes_first_and_needs_no_comparison() -> None:
    time, exact = red(FP8[0], STEP), red(INT8, "weight_bytes")
    grouped = clusters(suspects((time, exact), CASES, {time.id: compared(time, 2.0)}))
    assert [each.suspects[0].metric.name for each in grouped] == ["weight_bytes", STEP]
    assert measured(grouped[0]) == INT8


def test_a_metric_that_needs_a_reference_is_not_attributed() -> None:
    assert suspects((red(FP8[0], "ssim"),), CASES, {}) == ()


@pytest.mark.parametrize(
    ("failure", "found"),
    [
        (make_failure(kind=FailureKind.LOAD), True),
        (make_failure(kind=FailureKind.UNPROVEN, phase=Phase.INSPECT), True),
        (make_failure(kind=FailureKind.CRASH, excuse="the host was busy"), False),
        (make_failure(kind=FailureKind.TIMEOUT), False),  # each stack would cost its whole timeout
        (make_failure(kind=FailureKind.UNSUPPORTED), False),
        (make_failure(kind=FailureKind.NUMERICS, phase=Phase.INSPECT), False),  # of pictures, compared later
    ],
)
def test_a_failure_is_attributed_where_one_process_shows_it(failure: Failure, found: bool) -> None:
    run = make_run(CASES[FP8[0]], H100, failure=failure, verdicts=red(FP8[0], STEP).verdicts)
    names = [each.metric.name for each in suspects((run,), CASES, {})]
    assert names == (["build"] if found else [])


def test_cases_that_fail_in_other_ways_are_other_clusters() -> None:
    runs = [
        make_run(CASES[each], H100, failure=make_failure(kind=kind), status=status, processes=())
        for each, kind, status in (
            (FP8[0], FailureKind.LOAD, Status.LOAD),
            (FP8[1], FailureKind.CRASH, Status.CRASH),
        )
    ]
    grouped = clusters(suspects(runs, CASES, {}))
    assert sorted(each.members for each in grouped) == [(FP8[0],), (FP8[1],)]


def test_certainty_is_the_change_in_its_own_errors() -> None:
    run = red(FP8[0], STEP)
    comparison = compared(run, 2.0)
    (suspect,) = suspects((run,), CASES, {run.id: comparison})
    assert suspect.score == pytest.approx(2.5)


def test_a_red_ratio_whose_pairs_said_nothing_counts_by_its_own_change() -> None:
    # Only the ratio gates on a CPU, so that no verdict is on the time that pairs would compare.
    (cluster,) = clusters(suspects((red(FP8[0], "speedup_vs_bf16"),), CASES, {}))
    assert cluster.suspects[0].metric.name == STEP
    assert cluster.suspects[0].score == 2.0
    assert measured(cluster) is None
