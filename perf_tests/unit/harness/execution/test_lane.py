"""What a lane does beside measuring: cases are compared while the next worker builds, and never in a timed
window."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import msgspec
import pytest

from perf_tests.harness.execution.campaign import Several
from perf_tests.harness.execution.lane import Lane
from perf_tests.harness.execution.launcher import AbortedError, Launcher, Stack
from perf_tests.harness.lanes.cards import LaneCard
from perf_tests.harness.lanes.job_queue import Job
from perf_tests.harness.processes.worker_process import Worker
from perf_tests.harness.runs.record import Progress, Run, RunRecord
from perf_tests.harness.runs.record_file import read_record
from perf_tests.protocol.errors import PerfError
from perf_tests.protocol.messages import Generate, Load
from perf_tests.unit.harness.execution.campaigns import GPU, Conduct

pytestmark = pytest.mark.usefixtures("fake_workers_server")

GENEROUS_S = 30.0
BF16, INT8WO, FP8WO = (
    "flux1-dev-b1-bf16-eager",
    "flux1-dev-b1-int8wo-eager",
    "flux1-dev-b1-fp8wo-eager",
)
PACKAGED_AND_TWIN = ("fp8dqrow-aoti", "fp8dqrow-regional")
CARD = LaneCard(unit="GPU-00000000-fake", cores=frozenset(os.sched_getaffinity(0)))


def of_one_card(*case_ids: str) -> Several:
    """Jobs of one case each, of one family, for a single card with a lane of its own."""
    jobs = [
        Job(cases=(case_id,), family="flux1-dev", seconds=float(len(case_ids) - place))
        for place, case_id in enumerate(case_ids)
    ]
    return Several(cards=[CARD], jobs=jobs)


class Asked:
    """Which requests of which case were asked so far, and what is to wait for them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.seen: list[tuple[str, str]] = []
        self._loaded = ""
        self._changed = threading.Condition()
        ask = Worker.ask

        def noted(worker: Worker, request: Any, *others: Any) -> Any:
            with self._changed:
                if isinstance(request, Load):
                    self._loaded = request.case.id
                is_timed = isinstance(request, Generate) and not request.warmup
                self.seen.append((self._loaded, "timed" if is_timed else type(request).__name__))
                self._changed.notify_all()
            return ask(worker, request, *others)

        monkeypatch.setattr(Worker, "ask", noted)

    def wait_for(self, case_id: str, request: str, within_s: float = GENEROUS_S) -> bool:
        """Whether that was asked before patience ended."""
        with self._changed:
            return self._changed.wait_for(lambda: (case_id, request) in self.seen, within_s)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Asked:
    return Asked(monkeypatch)


def test_a_case_is_compared_while_the_next_worker_builds_and_not_while_it_is_timed(
    conduct: Conduct, asked: Asked
) -> None:
    compared = []

    def prepare(run: Run, reference: Run | None, /) -> Run:
        if run.id == INT8WO:
            assert asked.wait_for(FP8WO, Generate.__name__)
            assert not asked.wait_for(FP8WO, "timed", within_s=0.2)  # it has been warmed up, in a millisecond
        compared.append((run.id, reference and reference.progress))
        return run

    cases = (BF16, INT8WO, FP8WO)
    campaign = conduct(*cases, platform=GPU, several=of_one_card(*cases), prepare=prepare)
    assert [campaign.run(case_id).progress for case_id in cases] == [Progress.MEASURED] * 3
    # In the order in which they were measured, and each with a reference that was compared before.
    assert compared == [(BF16, None), (INT8WO, Progress.MEASURED), (FP8WO, Progress.MEASURED)]


def test_the_worker_of_what_is_compared_with_a_reference_does_not_wait_for_that_one(
    conduct: Conduct, asked: Asked
) -> None:
    def prepare(run: Run, reference: Run | None, /) -> Run:
        if run.id == BF16:
            assert asked.wait_for(INT8WO, Load.__name__)
            return msgspec.structs.replace(run, measured={"psnr_db": 40.0})
        assert reference is not None
        return msgspec.structs.replace(run, measured=reference.measured)

    cases = (BF16, INT8WO)
    campaign = conduct(*cases, platform=GPU, several=of_one_card(*cases), prepare=prepare)
    assert campaign.run(INT8WO).measured == {"psnr_db": 40.0}


def test_a_reference_that_nobody_selected_is_compared_beside_its_case_too(
    conduct: Conduct, asked: Asked
) -> None:
    def prepare(run: Run, _reference: Run | None, /) -> Run:
        if run.id == BF16:
            assert asked.wait_for(INT8WO, Load.__name__)
        return run

    campaign = conduct(INT8WO, platform=GPU, several=of_one_card(INT8WO), prepare=prepare)
    assert campaign.run(INT8WO).failure is None
    assert [run.id for run in campaign.record.references] == [BF16]
    assert [case_id for case_id, request in asked.seen if request == Load.__name__] == [BF16, INT8WO]


def test_the_steps_of_a_twin_are_timed_while_nothing_is_compared_or_imported(
    conduct: Conduct, asked: Asked, monkeypatch: pytest.MonkeyPatch
) -> None:
    bf16, packaged, twin = (f"flux1-dev-slim-b1-{each}" for each in ("bf16-regional", *PACKAGED_AND_TWIN))
    seen = []

    @contextmanager
    def noted(_launcher: Launcher) -> Iterator[None]:
        seen.append(len(asked.seen))
        yield
        seen.append(len(asked.seen))

    monkeypatch.setattr(Launcher, "quiet", noted)

    def prepare(run: Run, _reference: Run | None, /) -> Run:
        if run.id == bf16:
            assert asked.wait_for(twin, Generate.__name__)
            assert not asked.wait_for(twin, "timed", within_s=0.2)
        return run

    cases = (bf16, packaged)
    campaign = conduct(*cases, platform=GPU, several=of_one_card(*cases), prepare=prepare)
    assert campaign.run(packaged).failure is None
    quiet = [asked.seen[begin:end] for begin, end in zip(seen[::2], seen[1::2], strict=True)]
    assert [each for each in quiet if each[0][0] == twin] == [[(twin, "timed")] * 3]
    assert asked.seen.count((twin, "timed")) == 3


def test_with_one_device_a_case_is_compared_before_the_next_is_begun(conduct: Conduct, asked: Asked) -> None:
    seen = []

    def prepare(run: Run, _reference: Run | None, /) -> Run:
        seen.append((run.id, asked.seen[-1]))
        return run

    campaign = conduct(BF16, INT8WO, platform=GPU, prepare=prepare)
    for case_id in (BF16, INT8WO):
        campaign.run(case_id)
    assert seen == [(BF16, (BF16, "Inspect")), (INT8WO, (INT8WO, "Inspect"))]


def test_a_comparison_that_breaks_ends_the_session_and_loses_nothing_that_is_measured(
    conduct: Conduct, asked: Asked, tmp_path: Any
) -> None:
    def prepare(run: Run, _reference: Run | None, /) -> Run:
        if run.id == INT8WO:
            assert asked.wait_for(FP8WO, Load.__name__)
            raise PerfError("the disk is full")
        return run

    cases = (BF16, INT8WO, FP8WO)
    campaign = conduct(*cases, platform=GPU, several=of_one_card(*cases), prepare=prepare)
    with pytest.raises(PerfError, match="the disk is full"):
        campaign.run(FP8WO)
    campaign.close()
    assert progress(read_record(tmp_path))[:2] == [
        (BF16, Progress.MEASURED, 1),
        (INT8WO, Progress.INTERRUPTED, 1),
    ]


def test_ctrl_c_keeps_a_case_that_is_being_compared(conduct: Conduct, asked: Asked, tmp_path: Any) -> None:
    stopped = threading.Event()

    def prepare(run: Run, _reference: Run | None, /) -> Run:
        if run.id == INT8WO:
            assert stopped.wait(GENEROUS_S)
        return run

    cases = (BF16, INT8WO, FP8WO)
    campaign = conduct(*cases, platform=GPU, several=of_one_card(*cases), prepare=prepare)
    assert campaign.run(BF16).failure is None
    assert asked.wait_for(FP8WO, Load.__name__)
    stopped.set()
    campaign.abort()
    campaign.close()
    assert progress(read_record(tmp_path))[:2] == [
        (BF16, Progress.MEASURED, 1),
        (INT8WO, Progress.MEASURED, 1),
    ]


def test_a_question_to_a_lane_waits_for_its_comparisons(conduct: Conduct, asked: Asked) -> None:
    """It may be to time another stack on the card."""
    order = []

    def prepare(run: Run, _reference: Run | None, /) -> Run:
        assert run.id != INT8WO or asked.wait_for(INT8WO, "Inspect")
        order.append(run.id)
        return run

    cases = (BF16, INT8WO)
    campaign = conduct(*cases, platform=GPU, several=of_one_card(*cases), prepare=prepare)
    assert campaign.run(BF16).failure is None
    campaign.on_device(CARD.unit, lambda _lane: order.append("asked"))
    assert order in ([BF16, INT8WO, "asked"], [BF16, "asked"])


def progress(record: RunRecord) -> list[tuple[str, Progress, int]]:
    """Of each case: how far it has come, and how many processes it has."""
    return [(run.id, run.progress, len(run.processes)) for run in record.cases]


def test_ctrl_c_while_a_launcher_of_another_stack_is_made_ends_that_one_too(
    conduct: Conduct, monkeypatch: pytest.MonkeyPatch
) -> None:
    campaign = conduct(BF16, platform=GPU, several=of_one_card(BF16))
    campaign.run(BF16)

    def question(lane: Lane) -> None:
        monkeypatch.setattr(Launcher, "drop_spare", lambda _: lane.abort())  # as Ctrl-C does meanwhile
        lane.launcher(Stack(python=sys.executable))

    with pytest.raises(AbortedError):
        campaign.on_device(CARD.unit, question)
