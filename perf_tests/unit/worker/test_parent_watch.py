"""A worker ends soon after its parent's pipe closes, even if it is busy, and not before."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from perf_tests.unit.conftest import ROOT

BUSY = """
import sys
from perf_tests.worker import parent_watch
parent_watch.GRACE_S = 0.2
parent_watch.hold(int(sys.argv[1]))
print("holding", flush=True)
while True:
    pass
"""
ENDS_BY_ITSELF = """
import os, sys
from perf_tests.worker import parent_watch
parent_watch.GRACE_S = 60.0
parent_watch.hold(int(sys.argv[1]))
print("holding", flush=True)
os.read(int(sys.argv[1]), 1)
"""


@dataclass(frozen=True)
class Watched:
    """A process that watches its parent, and the parent's end of its pipe."""

    process: subprocess.Popen[str]
    parent_fd: int


@pytest.fixture
def watched(request: pytest.FixtureRequest) -> Iterator[Watched]:
    """Runs the script of the test's parameter, which holds the pipe by now."""
    request_fd, parent_fd = os.pipe()
    command = [sys.executable, "-c", request.param, str(request_fd)]
    with subprocess.Popen(
        command, pass_fds=(request_fd,), start_new_session=True, stdout=subprocess.PIPE, text=True, cwd=ROOT
    ) as process:
        os.close(request_fd)
        assert process.stdout is not None
        assert process.stdout.readline() == "holding\n"
        try:
            yield Watched(process=process, parent_fd=parent_fd)
        finally:
            process.kill()


@pytest.mark.parametrize("watched", [BUSY], indirect=True, ids=["busy"])
def test_a_busy_worker_is_killed_once_the_pipe_closes(watched: Watched) -> None:
    time.sleep(0.3)
    assert watched.process.poll() is None
    os.close(watched.parent_fd)
    assert watched.process.wait(timeout=10) == -signal.SIGKILL


@pytest.mark.parametrize("watched", [ENDS_BY_ITSELF], indirect=True, ids=["ends-by-itself"])
def test_a_worker_that_ends_by_itself_within_the_grace_time_is_not_killed(watched: Watched) -> None:
    os.close(watched.parent_fd)
    assert watched.process.wait(timeout=10) == 0
