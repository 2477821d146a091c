"""Pictures compared in several processes: the same answers, and what happens where a process ends."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from multiprocessing.context import SpawnProcess
from pathlib import Path

import pytest

from perf_tests.harness.fidelity.picture_pool import PicturePool, PoolEndedError
from perf_tests.protocol.errors import PerfError
from perf_tests.unit.gone import is_gone_within_5_s
from perf_tests.unit.harness.fidelity.pooled import die, pid_and, refuse

pytestmark = pytest.mark.usefixtures("light_main")

ROOT = Path(__file__).resolve().parents[4]
SESSION = """
from perf_tests.harness.fidelity.picture_pool import PicturePool
from perf_tests.unit.harness.fidelity.pooled import pid_and
if __name__ == "__main__":
    print(PicturePool(1).map(pid_and, [0])[0][0], flush=True)
    input()
"""
SIGNALLED = """
import os, signal, threading
from perf_tests.harness.fidelity.picture_pool import PicturePool
from perf_tests.unit.harness.fidelity.pooled import pid_and
def signal_group(number, answered):
    os.killpg(0, number)  # at once: answers of processes that run already take less than the time between two
    while not answered.wait(0.005):
        os.killpg(0, number)
if __name__ == "__main__":
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: None)
    pool = PicturePool(1)
    for number in (signal.SIGINT, signal.SIGTERM):  # the first of them also while the process starts
        answered = threading.Event()
        signalling = threading.Thread(target=signal_group, args=(number, answered))
        signalling.start()
        try:
            print([value for _, value in pool.map(pid_and, range(4))])
        finally:
            answered.set()
            signalling.join()
    pool.close()
"""


@pytest.fixture(scope="module")
def pool() -> Iterator[PicturePool]:
    """Two processes."""
    pool = PicturePool(2)
    yield pool
    pool.close()


def test_answers_come_in_order_from_other_processes(pool: PicturePool) -> None:
    answers = pool.map(pid_and, range(8))
    assert [value for _, value in answers] == [0, 1, 2, 3, 4, 5, 6, 7]
    assert os.getpid() not in {pid for pid, _ in answers}


def test_the_first_refusal_is_raised_here(pool: PicturePool) -> None:
    with pytest.raises(PerfError, match="no picture 3"):
        pool.map(refuse, [3, 4])


def test_a_process_that_is_killed_is_one_error_and_the_next_call_has_new_ones() -> None:
    pool = PicturePool(1)
    with pytest.raises(PoolEndedError, match="a process that compares pictures was ended"):
        pool.map(die, [0])
    assert [value for _, value in pool.map(pid_and, [5])] == [5]
    pool.close()


def test_the_processes_end_with_the_pool() -> None:
    pool = PicturePool(1)
    ((pid, _),) = pool.map(pid_and, [0])
    pool.close()
    pool.close()
    assert not Path(f"/proc/{pid}").exists()


def test_the_processes_end_with_a_session_that_is_killed(tmp_path: Path) -> None:
    script = tmp_path / "session.py"
    script.write_text(SESSION)
    session = subprocess.Popen(
        [sys.executable, script],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    with session:
        assert session.stdout is not None
        pid = int(session.stdout.readline())
        session.kill()
    assert is_gone_within_5_s(pid)


def test_signals_to_the_group_of_the_session_end_no_process(tmp_path: Path) -> None:
    """Ctrl-C, or a job that is cancelled: the session decides what ends, and when."""
    script = tmp_path / "session.py"
    script.write_text(SIGNALLED)
    done = subprocess.run(
        [sys.executable, script],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        start_new_session=True,
        check=False,
    )
    assert (done.stdout, done.returncode) == ("[0, 1, 2, 3]\n" * 2, 0), done.stderr


def test_ctrl_c_as_a_process_starts_leaves_none_that_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of two: the second is started, and not noted, as the signal strikes."""
    start, started = SpawnProcess.start, list[SpawnProcess]()

    def struck(process: SpawnProcess) -> None:
        start(process)
        started.append(process)
        if len(started) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(SpawnProcess, "start", struck)
    pool = PicturePool(2)
    with pytest.raises(KeyboardInterrupt):
        pool.map(pid_and, range(2))
    closing = threading.Thread(target=pool.close, daemon=True)
    closing.start()
    closing.join(30)
    started[1].kill()
    assert not closing.is_alive(), "it waits for ever"
