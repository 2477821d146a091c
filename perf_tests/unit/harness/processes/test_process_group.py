"""processes/process_group.py: real children of this process in groups of their own."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from perf_tests.harness.processes.process_group import ProcessGroup

GENEROUS_S = 30.0  # never waited for
SLEEPS = "sleep 60"


Start = Callable[[str], subprocess.Popen[bytes]]


@pytest.fixture
def start() -> Iterator[Start]:
    """Start a shell that leads a group and writes to a pipe."""
    with ExitStack() as stack:

        def start(script: str) -> subprocess.Popen[bytes]:
            leader = subprocess.Popen(["sh", "-c", script], stdout=subprocess.PIPE, start_new_session=True)
            stack.enter_context(leader)
            stack.callback(ProcessGroup(leader).kill, GENEROUS_S)
            return leader

        yield start


def test_a_running_leader_has_no_exit_status(start: Start) -> None:
    group = ProcessGroup(start(SLEEPS))
    assert group.exit_status() is None
    assert group.await_exit(0.02) is None
    assert not group.is_reaped


@pytest.mark.parametrize(
    ("script", "status"),
    [
        pytest.param("exit 3", 3, id="exited"),
        pytest.param("kill -TERM $$", -signal.SIGTERM, id="signalled"),
    ],
)
def test_an_ended_leader_has_an_exit_status_before_and_after_it_is_reaped(
    start: Start, script: str, status: int
) -> None:
    group = ProcessGroup(start(script))
    assert group.await_exit(GENEROUS_S) == status
    assert not group.is_reaped
    group.kill(GENEROUS_S)
    assert group.is_reaped
    assert group.exit_status() == status


def test_a_kill_reaches_the_children_of_a_leader_that_ended(start: Start) -> None:
    leader = start("sleep 60 & echo started")
    group = ProcessGroup(leader)
    assert group.await_exit(GENEROUS_S) == 0
    group.kill(GENEROUS_S)
    assert leader.stdout is not None
    assert leader.stdout.read() == b"started\n"  # the child would hold the pipe open


def test_a_kill_is_idempotent(start: Start) -> None:
    group = ProcessGroup(start(SLEEPS))
    group.kill(GENEROUS_S)
    group.kill(GENEROUS_S)
    assert group.exit_status() == -signal.SIGKILL


def test_a_kill_that_does_not_wait_leaves_the_leader_to_be_reaped(start: Start) -> None:
    group = ProcessGroup(start(SLEEPS))
    group.kill_without_waiting()
    assert group.await_exit(GENEROUS_S) == -signal.SIGKILL
    assert not group.is_reaped


def test_a_leader_that_nothing_can_end_is_not_waited_for(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    group = ProcessGroup(start(SLEEPS))
    with monkeypatch.context() as stuck:
        stuck.setattr(os, "killpg", lambda *_: None)
        group.kill(0.02)
    assert not group.is_reaped
    assert group.exit_status() is None


def test_a_signal_reaches_the_group_until_it_is_killed(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    """Afterwards the id may be that of another group."""
    group = ProcessGroup(start("trap 'exit 4' USR1; echo; while :; do sleep 0.01; done"))
    leader = group._leader
    assert isinstance(leader, subprocess.Popen)
    assert leader.stdout is not None
    leader.stdout.readline()  # it has set its trap
    group.send(signal.SIGUSR1)
    assert group.await_exit(GENEROUS_S) == 4
    group.kill(GENEROUS_S)
    sent: list[int] = []
    monkeypatch.setattr(os, "killpg", lambda pid, _number: sent.append(pid))
    group.send(signal.SIGUSR1)
    assert sent == []
