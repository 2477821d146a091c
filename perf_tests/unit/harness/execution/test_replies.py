"""processes/replies.py: workers that answer something else than they were asked."""

from __future__ import annotations

from pathlib import Path

import pytest

from perf_tests.harness.processes.replies import objection
from perf_tests.harness.runs.record import Run, Status
from perf_tests.harness.verdicts.verification import verify
from perf_tests.protocol.messages import Generate, Generated, Inspect, Inspected, Load, Loaded
from perf_tests.protocol.reports import Arrays, MemoryWindow
from perf_tests.tables.platforms import Device
from perf_tests.unit.builders import make_sample
from perf_tests.unit.conftest import Misbehave
from perf_tests.unit.harness.execution.campaigns import BF16, CASES, INT8WO, Conduct, living_workers

NOT_ASKED = "the answer to generate is not what was asked for: "
WINDOW = MemoryWindow(allocated_mib=None, reserved_mib=None, device_mib=None, rss_mib=1.0)


@pytest.mark.parametrize(
    ("switch", "reason"),
    [
        pytest.param("next-pair", "its prompt and seed number is 1, asked for was 0", id="pair"),
        pytest.param("one-step", "its number of steady steps is 1, asked for was 3", id="steps"),
        pytest.param(
            "captures-elsewhere",
            f"its output is {INT8WO}.0.0.elsewhere.npy, asked for was {INT8WO}.0.0.npy",
            id="file",
        ),
    ],
)
def test_an_answer_to_something_else_is_a_crash_of_its_case_only(
    conduct: Conduct, misbehave: Misbehave, switch: str, reason: str
) -> None:
    misbehave(f"{switch}@{INT8WO}")
    campaign = conduct(INT8WO, BF16)
    run = campaign.run(INT8WO)
    assert (run.status, run.reason) == (Status.CRASH, f"{NOT_ASKED}{reason}")
    assert campaign.run(BF16).failure is None
    assert living_workers() == []


@pytest.mark.parametrize(
    ("switch", "says"),
    [
        pytest.param(
            "claims-terabytes",
            "claims an array of shape (1000000, 1000000, 3), 12,000,000,000,000 bytes, and has 0",
            id="size",
        ),
        pytest.param("one-hash:00", "its generation reported 00: what it reports tells nothing", id="hash"),
    ],
)
def test_an_output_that_is_not_what_its_worker_says_is_an_error_of_its_case(
    conduct: Conduct, misbehave: Misbehave, tmp_path: Path, switch: str, says: str
) -> None:
    misbehave(f"{switch}@{INT8WO}")

    def prepare(run: Run, reference: Run | None) -> Run:
        return verify(CASES[run.id], run, reference, tmp_path)

    run = conduct(INT8WO, prepare=prepare).run(INT8WO)
    assert run.status is Status.NUMERICS
    assert says in run.reason
    assert (tmp_path / run.processes[0].captures[0].array).exists()


@pytest.mark.parametrize(
    ("arrays", "says"),
    [
        (None, "its answers is none, asked for was case.timed.npz"),
        (Arrays(file="/etc/passwd", sha256=""), "its answers is passwd, asked for was case.timed.npz"),
        (Arrays(file="/run/case.timed.npz", sha256=""), None),
    ],
)
def test_answers_are_in_the_file_that_was_asked_for(arrays: Arrays | None, says: str | None) -> None:
    reply = Inspected(values={}, memory=WINDOW, arrays=arrays)
    assert objection(Inspect(trace="/run/case"), reply, CASES[BF16]) == says


def test_a_negative_time_is_not_believed() -> None:
    reply = Generated(sample=make_sample({"latency_s": [-1.0], "denoise_step_ms": [1.0] * 3}))
    assert objection(Generate(), reply, CASES[BF16]) == "latency_s is -1, and nothing measured is negative"


def test_other_answers_have_nothing_to_contradict() -> None:
    reply = Loaded(seconds=1.0, memory=WINDOW, weights={})
    assert objection(Load(case=CASES[BF16], device=Device.CPU), reply, CASES[BF16]) is None
