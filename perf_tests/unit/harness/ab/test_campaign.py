"""Comparisons in the record of a session: when they end, what is kept of them, what is resumed."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from perf_tests.harness.ab.campaign import MAX_PAIRS, MIN_PAIRS, PairCampaign
from perf_tests.harness.ab.pairs import PairRunner, SideError
from perf_tests.harness.execution.campaign import Campaign
from perf_tests.harness.execution.launcher import Stack
from perf_tests.harness.execution.planned import Planned
from perf_tests.harness.execution.sampling import SamplingRules
from perf_tests.harness.runs.record import Comparison, Pair, Schedule, Side, Status
from perf_tests.harness.runs.record_file import read_record
from perf_tests.harness.runs.store import SessionStart
from perf_tests.protocol.messages import FailureKind, Fault, Injection
from perf_tests.tables.platforms import H100
from perf_tests.unit.builders import (
    GPU,
    make_environment,
    make_failure,
    make_process,
    make_record,
    make_run,
    make_verdict,
)
from perf_tests.unit.conftest import CASES, FP8DQROW
from perf_tests.unit.harness.execution.campaigns import fixed_processes

A, B = Side.STABLE, Side.CANDIDATE
SLOWER = Injection(fault=Fault.LATENCY, amount=1.0)
CASE = CASES[FP8DQROW]
AGAINST = "/stable/bin/python"
ENVIRONMENT = make_environment(gpu=GPU)
PAIR = Pair(stable=make_process(environment=ENVIRONMENT), candidate=make_process(environment=ENVIRONMENT))
ELSEWHERE, OLDER, OTHER_CUDNN, OTHER_VARIABLE, OTHER_DRIVER = (
    Pair(stable=make_process(environment=environment), candidate=make_process(environment=ENVIRONMENT))
    for environment in (
        make_environment(gpu=msgspec.structs.replace(GPU, uuid="GPU-of-another-night")),
        make_environment(gpu=GPU, packages={"torch": "2.12.0", "torchao": "0.18.0"}),
        msgspec.structs.replace(ENVIRONMENT, settings={**ENVIRONMENT.settings, "cudnn": "90100"}),
        msgspec.structs.replace(ENVIRONMENT, variables={"TORCHINDUCTOR_MAX_AUTOTUNE": "1"}),
        make_environment(gpu=msgspec.structs.replace(GPU, driver="580.1")),
    )
)
"""Pairs whose stable side is another one."""


class Scripted(PairRunner):
    """Returns or raises what it was given, pair after pair."""

    def __init__(self, *results: Pair | BaseException) -> None:
        super().__init__({}, Path())
        self._results = iter(results)
        self.schedules: list[Schedule] = []
        self.together: list[bool] = []

    def environment(self, side: Side) -> None:
        return None

    def measure(self, planned: Planned, index: int, schedule: Schedule, *, together: bool = False) -> Pair:
        self.schedules.append(schedule)
        self.together.append(together)
        result = next(self._results)
        if isinstance(result, BaseException):
            raise result
        return result


Open = Callable[..., Campaign]


@pytest.fixture
def open_campaign(tmp_path: Path) -> Iterator[Open]:
    """A campaign that has measured its only case, on a card of 79.6 GiB."""
    opened = []

    def start(*injections: Injection, comparisons: tuple[Comparison, ...] = ()) -> Campaign:
        measured = make_run(CASE, H100, processes=(make_process(environment=ENVIRONMENT),))
        measured = msgspec.structs.replace(measured, injected=tuple("latency:+1%" for _ in injections))
        campaign = Campaign(
            (Planned(CASE, H100, injections),),
            tmp_path,
            Stack(python=sys.executable),
            SamplingRules(decide=fixed_processes(1), max_processes=1),
            SessionStart(
                started_at="2026-01-02T03:04:05+00:00",
                command_line="pytest",
                resumed=make_record(measured, references=(), comparisons=comparisons),
            ),
        )
        opened.append(campaign)
        return campaign

    yield start
    for campaign in opened:
        campaign.close()


def never(case_id: str) -> None:
    return None


def enough(count: int) -> Callable[[Comparison], Comparison | None]:
    """A judge for whom `count` pairs are enough, or a failure."""

    def judge(comparison: Comparison) -> Comparison | None:
        if len(comparison.pairs) < count and comparison.failure is None:
            return None
        return msgspec.structs.replace(comparison, status=Status.PASS, reason="")

    return judge


def test_pairs_are_measured_until_the_judge_has_enough(open_campaign: Open, tmp_path: Path) -> None:
    campaign = open_campaign(SLOWER)
    pairs = PairCampaign(campaign)
    start = pairs.begin(FP8DQROW, AGAINST, 14000.0)
    runner = Scripted(*[PAIR] * MAX_PAIRS)
    comparison = pairs.compare(start, runner, enough(MIN_PAIRS), never)

    assert runner.schedules == [Schedule.RESIDENT] * 5
    assert runner.together == [True] * 5
    assert comparison is campaign.store.comparisons[FP8DQROW]
    (written,) = read_record(tmp_path).comparisons
    assert written == comparison
    assert (len(written.pairs), written.against, written.injected) == (5, AGAINST, ("latency:+1%",))
    assert (written.schedule, written.digest) == (Schedule.RESIDENT, CASE.digest)


def test_a_side_that_fails_ends_the_comparison(open_campaign: Open) -> None:
    campaign = open_campaign()
    died = SideError(A, make_failure(kind=FailureKind.CRASH, message="worker was killed by SIGSEGV"))
    pairs = PairCampaign(campaign)
    start = pairs.begin(FP8DQROW, AGAINST, None)
    comparison = pairs.compare(start, Scripted(PAIR, died), enough(5), never)

    assert (comparison.failed_side, len(comparison.pairs)) == (A, 1)
    assert comparison.failure is not None
    assert comparison.failure.kind is FailureKind.CRASH


def test_workers_that_do_not_fit_after_all_are_measured_by_process(open_campaign: Open) -> None:
    campaign = open_campaign()
    full = SideError(B, make_failure(message="out of memory at 79 GiB"))
    pairs = PairCampaign(campaign)
    start = pairs.begin(FP8DQROW, AGAINST, 14000.0)
    runner = Scripted(full, *[PAIR] * 5)
    comparison = pairs.compare(start, runner, enough(5), never)

    assert runner.schedules == [Schedule.RESIDENT, *[Schedule.BY_PROCESS] * 5]
    assert comparison.schedule is Schedule.BY_PROCESS
    assert comparison.schedule_reason == (
        "out of memory with both resident (candidate): out of memory at 79 GiB"
    )
    assert comparison.failure is None


def test_ctrl_c_keeps_the_pairs_that_were_measured(open_campaign: Open, tmp_path: Path) -> None:
    campaign = open_campaign()
    pairs = PairCampaign(campaign)
    start = pairs.begin(FP8DQROW, AGAINST, 14000.0)
    with pytest.raises(KeyboardInterrupt):
        pairs.compare(start, Scripted(PAIR, PAIR, KeyboardInterrupt()), enough(5), never)
    campaign.abort()
    campaign.close()

    (written,) = read_record(tmp_path).comparisons
    assert (len(written.pairs), written.status) == (2, Status.INCONCLUSIVE)
    assert written.reason == "after 2 pairs: interrupted"


def test_a_comparison_that_is_refused_says_why(open_campaign: Open) -> None:
    campaign = open_campaign()
    refusals = iter([None, "the budget of 60 s is spent"])
    pairs = PairCampaign(campaign)
    start = pairs.begin(FP8DQROW, AGAINST, None)
    comparison = pairs.compare(start, Scripted(PAIR), enough(5), lambda case_id: next(refusals))

    assert (comparison.status, len(comparison.pairs)) == (Status.INCONCLUSIVE, 1)
    assert comparison.reason == "after 1 pair: the budget of 60 s is spent"


def settled(start: Comparison) -> Comparison:
    passed = make_verdict("denoise_step_ms", Status.PASS)
    return msgspec.structs.replace(start, pairs=(PAIR,) * 5, status=Status.PASS, verdicts=(passed,))


@pytest.mark.parametrize(
    ("changes", "measured"),
    [
        pytest.param({}, 0, id="of the same"),
        pytest.param({"against": "/other/python"}, 5, id="with another stack"),
        pytest.param({"digest": "0" * 64}, 5, id="of another case"),
        pytest.param({"injected": ("latency:+3%",)}, 5, id="of a fire drill"),
        pytest.param({"verdicts": (), "pairs": (PAIR,) * 2}, 3, id="that was not finished"),
        pytest.param({"verdicts": (), "pairs": (PAIR,) * 5}, 5, id="whose pairs say nothing"),
        pytest.param({"verdicts": (), "pairs": (ELSEWHERE,) * 2}, 5, id="of another card"),
        pytest.param({"verdicts": (), "pairs": (OLDER,) * 2}, 5, id="of other packages"),
        pytest.param({"verdicts": (), "pairs": (OTHER_CUDNN,) * 2}, 5, id="of another cuDNN"),
        pytest.param({"verdicts": (), "pairs": (OTHER_VARIABLE,) * 2}, 5, id="of another variable"),
        pytest.param({"verdicts": (), "pairs": (OTHER_DRIVER,) * 2}, 5, id="of another driver"),
        pytest.param(
            {"verdicts": (), "pairs": (PAIR,) * 2, "schedule": Schedule.RESIDENT}, 5, id="of another schedule"
        ),
    ],
)
def test_a_comparison_is_resumed_with_the_pairs_that_are_still_pairs_of_it(
    open_campaign: Open, changes: dict[str, Any], measured: int
) -> None:
    campaign = open_campaign()
    before = settled(PairCampaign(campaign).begin(FP8DQROW, AGAINST, None))
    campaign = open_campaign(comparisons=(msgspec.structs.replace(before, **changes),))
    runner = Scripted(*[PAIR] * 5)
    pairs = PairCampaign(campaign)
    start = pairs.begin(FP8DQROW, AGAINST, None)
    found = pairs.compare(start, runner, enough(5), never)
    assert len(runner.schedules) == measured
    assert found.pairs == (PAIR,) * 5


def test_a_resumed_comparison_whose_workers_no_longer_fit_starts_again_by_process(
    open_campaign: Open,
) -> None:
    campaign = open_campaign()
    before = PairCampaign(campaign).begin(FP8DQROW, AGAINST, 14000.0)
    campaign = open_campaign(comparisons=(msgspec.structs.replace(before, pairs=(PAIR,) * 2),))
    full = SideError(B, make_failure(message="out of memory at 79 GiB"))
    runner = Scripted(full, *[PAIR] * 5)
    pairs = PairCampaign(campaign)
    found = pairs.compare(pairs.begin(FP8DQROW, AGAINST, 14000.0), runner, enough(5), never)
    assert runner.schedules == [Schedule.RESIDENT, *[Schedule.BY_PROCESS] * 5]
    assert found.pairs == (PAIR,) * 5


def test_pairs_of_one_session_are_kept_whatever_their_workers_report(open_campaign: Open) -> None:
    campaign = open_campaign()
    pairs = PairCampaign(campaign)
    runner = Scripted(PAIR, OTHER_VARIABLE, PAIR, OTHER_VARIABLE, PAIR)
    assert len(pairs.compare(pairs.begin(FP8DQROW, AGAINST, None), runner, enough(5), never).pairs) == 5


def test_pairs_that_were_measured_before_a_kill_are_judged_without_another(open_campaign: Open) -> None:
    def judge(comparison: Comparison) -> Comparison | None:
        return settled(comparison) if len(comparison.pairs) >= 5 else None

    campaign = open_campaign()
    before = settled(PairCampaign(campaign).begin(FP8DQROW, AGAINST, None))
    campaign = open_campaign(comparisons=(msgspec.structs.replace(before, verdicts=()),))
    pairs = PairCampaign(campaign)
    found = pairs.compare(pairs.begin(FP8DQROW, AGAINST, None), Scripted(), judge, never)
    assert found.status is Status.PASS
    assert campaign.store.comparisons[FP8DQROW] == found


def test_pairs_that_say_nothing_are_kept_where_there_is_no_time_for_others(open_campaign: Open) -> None:
    campaign = open_campaign()
    before = settled(PairCampaign(campaign).begin(FP8DQROW, AGAINST, None))
    campaign = open_campaign(comparisons=(msgspec.structs.replace(before, verdicts=()),))
    pairs = PairCampaign(campaign)
    start = pairs.begin(FP8DQROW, AGAINST, None)
    found = pairs.compare(start, Scripted(), enough(5), lambda case_id: "the budget of 60 s is spent")
    assert found.pairs == (PAIR,) * 5
    assert campaign.store.comparisons[FP8DQROW] == found


def test_a_record_without_comparisons_is_read(tmp_path: Path) -> None:
    old = msgspec.to_builtins(make_record(make_run()))
    del old["comparisons"]
    (tmp_path / "run.json").write_bytes(msgspec.json.encode(old))
    assert read_record(tmp_path).comparisons == ()
