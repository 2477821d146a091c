"""processes/worker_process.py: real processes that run the fake worker, or a script that misbehaves."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
import pytest

from perf_tests.harness.processes import pipes, worker_process
from perf_tests.harness.processes.inherited import REPOSITORY
from perf_tests.harness.processes.worker_process import LOG_BYTES, Worker, log_tail
from perf_tests.harness.runs.record import Status, status_of
from perf_tests.protocol.base import Struct
from perf_tests.protocol.errors import PerfError, WorkerError
from perf_tests.protocol.messages import (
    PHASE_OF_REQUEST,
    Compile,
    Compiled,
    Failure,
    FailureKind,
    Fault,
    Generate,
    Generated,
    Injection,
    Inspect,
    Inspected,
    Load,
    Loaded,
    Phase,
    Quantize,
    Quantized,
    Request,
    SwitchWorkload,
    WorkloadSwitched,
)
from perf_tests.tables.cases import Weights
from perf_tests.tables.matrix import CPU_ROWS
from perf_tests.tables.platforms import Device
from perf_tests.unit.conftest import QuietHost
from perf_tests.unit.fake_worker.environment import ready
from perf_tests.unit.fake_worker.switches import Switches
from perf_tests.unit.forked_workers import START_PROCESS
from perf_tests.unit.gone import is_gone, is_gone_within_5_s

FAKE = ("-m", "perf_tests.unit.fake_worker")
CASE = CPU_ROWS[1].case(Weights.SYNTHETIC)
LOAD = Load(case=CASE, device=Device.CPU)
GENEROUS_S = 30.0  # never waited for: a loaded machine starts interpreters slowly


@pytest.fixture
def not_forked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Starts workers the way production does: an interpreter for each. The tests that do not ask for it are
    about what a worker does once it runs, in a session of its own either way."""
    monkeypatch.setattr(worker_process, "start_process", START_PROCESS)


def start(
    tmp_path: Path,
    fake: str = "",
    *,
    python: str = sys.executable,
    command: tuple[str, ...] = FAKE,
    timeout_s: float = GENEROUS_S,
) -> Worker:
    log = tmp_path / "worker.log"
    worker = Worker.spawn(python=python, command=command, variables={"PERF_FAKE": fake}, log=log)
    worker.greet(timeout_s)
    return worker


def failure_of_start(
    tmp_path: Path, fake: str = "", *, python: str = sys.executable, timeout_s: float = GENEROUS_S
) -> Failure:
    with pytest.raises(WorkerError) as caught:
        start(tmp_path, fake, python=python, timeout_s=timeout_s)
    return caught.value.failure


def failure_of_load(tmp_path: Path, fake: str, timeout_s: float = GENEROUS_S) -> Failure:
    with start(tmp_path, fake) as worker, pytest.raises(WorkerError) as caught:
        worker.ask(LOAD, Loaded, timeout_s)
    assert is_gone(worker.pid)
    return caught.value.failure


@pytest.mark.usefixtures("not_forked")
def test_a_worker_answers_what_it_is_asked(tmp_path: Path) -> None:
    with start(tmp_path) as worker:
        worker.ask(LOAD, Loaded, GENEROUS_S)
        quantized = worker.ask(Quantize(), Quantized, GENEROUS_S)
    assert quantized.quantization.groups[0].subclass == "Int8Tensor"


def test_a_worker_reports_its_environment_first(tmp_path: Path) -> None:
    with start(tmp_path) as worker:
        assert worker.environment.packages["torch"] == "2.13.0"


def test_seconds_spent_waiting_are_kept_by_phase(tmp_path: Path) -> None:
    with start(tmp_path) as worker:
        worker.ask(LOAD, Loaded, GENEROUS_S)
    assert list(worker.seconds) == [Phase.IMPORT, Phase.LOAD]
    assert worker.seconds[Phase.IMPORT] > 0.0


def test_an_answer_larger_than_the_pipe_arrives_whole(tmp_path: Path) -> None:
    with start(tmp_path, "huge-reply") as worker:
        assert len(worker.ask(LOAD, Loaded, GENEROUS_S).weights) == 5001


@pytest.mark.usefixtures("not_forked")
def test_a_worker_has_ended_when_close_returns(tmp_path: Path) -> None:
    worker = start(tmp_path)
    worker.close()
    worker.close()
    assert is_gone(worker.pid)


def test_a_worker_is_killed_when_its_block_is_left_by_an_exception(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), start(tmp_path) as worker:
        raise KeyboardInterrupt
    assert is_gone(worker.pid)


def test_the_thread_that_asks_is_told_when_another_aborts_the_worker(tmp_path: Path) -> None:
    with start(tmp_path, "hang:load") as worker, ThreadPoolExecutor(1) as pool:
        answer = pool.submit(worker.ask, LOAD, Loaded, GENEROUS_S)
        worker.abort()
        with pytest.raises(WorkerError, match="worker was killed by SIGKILL"):
            answer.result()
    assert is_gone(worker.pid)


def test_an_aborted_worker_that_nothing_can_end_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with start(tmp_path, "hang:load") as worker:
        with monkeypatch.context() as stuck:
            stuck.setattr(os, "killpg", lambda *_: None)
            stuck.setattr(worker_process, "CLOSE_S", 0.05)
            stuck.setattr(worker_process, "KILL_S", 0.05)
            worker.abort()
            with pytest.raises(WorkerError) as caught:
                worker.ask(LOAD, Loaded, GENEROUS_S)
        assert caught.value.failure.kind is FailureKind.CRASH  # and not a timeout
        assert not is_gone(worker.pid)
        worker.kill()
    assert is_gone(worker.pid)


def test_a_worker_that_ignores_the_closed_pipe_is_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker_process, "CLOSE_S", 0.05)
    worker = start(tmp_path, command=("-c", DEAF))
    worker.close()
    assert is_gone(worker.pid)


def test_a_failure_is_raised_as_the_worker_told_it(tmp_path: Path) -> None:
    injections = (Injection(fault=Fault.OOM),)
    with start(tmp_path) as worker:
        worker.ask(Load(case=CASE, device=Device.CPU, injections=injections), Loaded, GENEROUS_S)
        with pytest.raises(WorkerError, match="injected: out of memory") as caught:
            worker.ask(Generate(), Generated, GENEROUS_S)
    assert caught.value.failure == Failure(
        kind=FailureKind.OOM, phase=Phase.GENERATE, message="injected: out of memory"
    )


def test_a_silent_worker_is_killed_at_its_timeout(tmp_path: Path) -> None:
    failure = failure_of_load(tmp_path, "hang:load", timeout_s=0.2)
    assert failure.kind is FailureKind.TIMEOUT
    assert failure.message == (
        "no answer to load within 0.2 s, while tasks waited for a processor 0 % of the time"
    )
    assert failure.excuse == ""


REQUESTS: list[tuple[Request, type[Struct]]] = [
    (LOAD, Loaded),
    (Quantize(), Quantized),
    (Compile(), Compiled),
    (Generate(), Generated),
    (SwitchWorkload(case=CASE), WorkloadSwitched),
    (Inspect(), Inspected),
]


@pytest.mark.parametrize(("request_", "reply_type"), REQUESTS, ids=lambda each: getattr(each, "__name__", ""))
@pytest.mark.parametrize(
    ("pressure_pct", "load", "excused", "busy"),
    [
        pytest.param(93.0, 0.0, True, "tasks waited for a processor 93 % of the time", id="pressure"),
        pytest.param(49.0, 9.0, False, "tasks waited for a processor 49 % of the time", id="load-alone"),
        pytest.param(None, 5.5, True, "the load was 5.50 per processor", id="load"),
        pytest.param(None, 1.9, False, "the load was 1.90 per processor", id="little-load"),
    ],
)
def test_a_timeout_in_any_phase_quotes_the_host_and_is_excused_by_a_busy_one(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    request_: Request,
    reply_type: type[Struct],
    pressure_pct: float | None,
    load: float,
    excused: bool,
    busy: str,
) -> None:
    monkeypatch.setattr(QuietHost, "pressure_pct", lambda _: pressure_pct)
    monkeypatch.setattr(worker_process, "load_per_core", lambda: load)
    phase = PHASE_OF_REQUEST[type(request_)]
    with start(tmp_path, f"hang:{phase}") as worker:
        if request_ is not LOAD:
            worker.ask(LOAD, Loaded, GENEROUS_S)
        with pytest.raises(WorkerError) as caught:
            worker.ask(request_, reply_type, 0.02)
    failure = caught.value.failure
    assert failure.kind is FailureKind.TIMEOUT
    assert failure.message.startswith(f"no answer to {phase} within 0.02 s, while {busy}")
    assert (status_of(failure), bool(failure.excuse)) == (
        (Status.INVALID, True) if excused else (Status.TIMEOUT, False)
    )


def test_a_worker_cannot_excuse_its_own_failure(tmp_path: Path) -> None:
    failure = failure_of_load(tmp_path, "excuses-itself:load")
    assert (failure.message, failure.excuse) == ("it was the host", "")


def test_escape_sequences_in_what_a_worker_says_are_spelled_out(tmp_path: Path) -> None:
    failure = failure_of_load(tmp_path, "escapes:load")
    assert failure.message == r"\x1b]0;owned\x07\x1b[2Jall is well\u202e"
    assert failure.details == "\\x9b31mred\nnext line\tafter a tab"


def test_escape_sequences_in_a_log_are_spelled_out_and_only_its_end_is_read(tmp_path: Path) -> None:
    log = tmp_path / "worker.log"
    log.write_bytes(b"x" * (2 * LOG_BYTES) + b"\n\x1b[31mlast words\n")
    first, last = log_tail(log).splitlines()
    assert (len(first), last) == (LOG_BYTES - len("\n\x1b[31mlast words\n"), r"\x1b[31mlast words")


def test_an_answer_without_an_end_is_a_crash(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipes, "MAX_LINE_BYTES", 1 << 20)
    failure = failure_of_load(tmp_path, "flood:load")
    assert failure.kind is FailureKind.CRASH
    assert failure.message == "the worker wrote more than 64 MiB and no whole answer to load"


def test_a_worker_that_answers_before_it_is_asked_is_not_believed(tmp_path: Path) -> None:
    with start(tmp_path, "answers-twice:turn") as worker:
        worker.ask(LOAD, Loaded, GENEROUS_S)
        switch = SwitchWorkload(case=CASE)
        worker.ask(switch, WorkloadSwitched, GENEROUS_S)  # both lines arrive in one piece
        with pytest.raises(WorkerError, match="the worker spoke before it was asked to turn"):
            worker.ask(switch, WorkloadSwitched, GENEROUS_S)


def test_half_an_answer_does_not_count(tmp_path: Path) -> None:
    with start(tmp_path, command=("-c", HALF)) as worker, pytest.raises(WorkerError, match=r"within 0\.2 s"):
        worker.ask(LOAD, Loaded, 0.2)


def test_a_timeout_covers_a_worker_that_does_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "perf_tests.harness.processes.worker_process.msgspec.json.encode", lambda request: b"x" * (1 << 20)
    )
    with start(tmp_path, command=("-c", DEAF)) as worker, pytest.raises(WorkerError, match=r"within 0\.2 s"):
        worker.ask(LOAD, Loaded, 0.2)


@pytest.mark.usefixtures("not_forked")
def test_a_killed_worker_names_the_signal_the_phase_and_its_last_words(tmp_path: Path) -> None:
    failure = failure_of_load(tmp_path, "segfault:load")
    assert failure.kind is FailureKind.CRASH
    assert failure.message == "worker was killed by SIGSEGV while loading"
    assert "fake worker: about to end" in failure.details


def test_sigkill_reminds_of_the_out_of_memory_killer(tmp_path: Path) -> None:
    failure = failure_of_load(tmp_path, "killed:load")
    assert failure.message == (
        "worker was killed by SIGKILL (by the kernel's OOM killer, if memory ran out) while loading"
    )


def test_a_worker_that_exits_names_its_exit_code(tmp_path: Path) -> None:
    failure = failure_of_load(tmp_path, "exit:load")
    assert failure.message == "worker exited with code 3 while loading"


def test_a_worker_that_died_between_two_requests_is_a_crash(tmp_path: Path) -> None:
    with start(tmp_path) as worker:
        os.kill(worker.pid, signal.SIGTERM)
        assert is_gone_within_5_s(worker.pid)
        with pytest.raises(WorkerError, match="worker was killed by SIGTERM while loading"):
            worker.ask(LOAD, Loaded, GENEROUS_S)


def test_a_worker_that_closes_its_pipe_and_goes_on_is_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker_process, "CLOSE_S", 0.05)
    with start(tmp_path, command=("-c", MUTE)) as worker:
        with pytest.raises(WorkerError, match="worker closed its pipe but went on while loading"):
            worker.ask(LOAD, Loaded, GENEROUS_S)
        assert is_gone(worker.pid)


@pytest.mark.parametrize(
    ("fake", "message"),
    [
        pytest.param(
            "empty-reply:load",
            "expected the answer 'loaded' to load, the worker sent an empty line",
            id="empty",
        ),
        pytest.param(
            "garbage:load",
            "expected the answer 'loaded' to load, the worker sent 'Segmentation fault (core dumped)': "
            "JSON is malformed: invalid character (byte 0)",
            id="garbage",
        ),
    ],
)
def test_nonsense_is_a_crash_that_quotes_it(tmp_path: Path, fake: str, message: str) -> None:
    failure = failure_of_load(tmp_path, fake)
    assert (failure.kind, failure.message) == (FailureKind.CRASH, message)


def test_an_answer_to_another_request_is_a_crash_that_quotes_its_beginning(tmp_path: Path) -> None:
    failure = failure_of_load(tmp_path, "wrong-type:load")
    assert failure.kind is FailureKind.CRASH
    assert failure.message.startswith(
        "expected the answer 'loaded' to load, the worker sent 'ready': {\"type\":\"ready\","
    )
    assert len(failure.message) < 300


@pytest.mark.usefixtures("not_forked")
def test_an_interpreter_that_does_not_exist_is_named(tmp_path: Path) -> None:
    failure = failure_of_start(tmp_path, python="/nowhere/python")
    assert failure.kind is FailureKind.LOAD
    assert failure.message == (
        "worker interpreter /nowhere/python could not start: No such file or directory"
    )


@pytest.mark.usefixtures("not_forked")
def test_an_interpreter_without_torch_is_named_with_its_last_words(tmp_path: Path) -> None:
    failure = failure_of_start(tmp_path, "no-torch")
    assert failure.kind is FailureKind.LOAD
    assert failure.message == (
        f"worker interpreter {sys.executable} could not start: ModuleNotFoundError: No module named 'torch'"
    )
    assert "Traceback" in failure.details


@pytest.mark.usefixtures("not_forked")
def test_an_interpreter_that_ends_silently_is_named_with_its_exit_code(tmp_path: Path) -> None:
    failure = failure_of_start(tmp_path, "die-on-start")
    assert failure.message.endswith("could not start: it exited with code 3 and an empty log")


def test_an_import_that_hangs_costs_its_timeout(tmp_path: Path) -> None:
    failure = failure_of_start(tmp_path, "hang-on-start", timeout_s=0.2)
    assert failure.kind is FailureKind.TIMEOUT
    assert failure.message.startswith("no answer to import within 0.2 s, while tasks waited")


def test_a_worker_of_another_protocol_is_refused_with_both_versions(tmp_path: Path) -> None:
    failure = failure_of_start(tmp_path, "old-protocol")
    assert failure.kind is FailureKind.LOAD
    assert "worker speaks protocol 0, this suite speaks 1" in failure.message


@pytest.mark.usefixtures("not_forked")
def test_a_relative_interpreter_is_found_from_here_and_not_from_the_repository(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "python").write_text("#!/bin/sh\necho it ran\n")
    (tmp_path / "bin" / "python").chmod(0o755)
    monkeypatch.chdir(tmp_path)
    failure = failure_of_start(tmp_path, python="bin/python")
    assert failure.message == f"worker interpreter {tmp_path}/bin/python could not start: it ran"


def test_a_log_that_cannot_be_written_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "worker.log").mkdir()
    with pytest.raises(PerfError, match=r"cannot write the worker's log .*worker\.log: Is a directory"):
        start(tmp_path)


def test_children_of_a_dead_worker_are_killed_with_its_group(tmp_path: Path) -> None:
    with start(tmp_path, command=("-c", ABANDONS_A_CHILD)) as worker:
        child = int((tmp_path / "worker.log").read_text())
        # The child holds the pipe open: only the death of the worker itself can tell.
        with pytest.raises(WorkerError, match="worker exited with code 0 while loading"):
            worker.ask(LOAD, Loaded, GENEROUS_S)
    assert is_gone_within_5_s(child)


def test_a_hanging_worker_does_not_outlive_the_kill_of_its_parent(tmp_path: Path) -> None:
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, str(tmp_path / "worker.log")],
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        text=True,
    )
    with parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        parent.kill()
    assert is_gone_within_5_s(pid)


def test_a_busy_worker_ends_when_its_request_pipe_closes(tmp_path: Path) -> None:
    request_fd, parents_end = os.pipe()
    busy = [sys.executable, "-c", BUSY, str(request_fd)]
    process = subprocess.Popen(
        busy, cwd=REPOSITORY, pass_fds=(request_fd,), start_new_session=True, stdout=subprocess.PIPE
    )
    with process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"holding\n"
        os.close(request_fd)
        os.close(parents_end)
        assert process.wait(5.0) == -signal.SIGKILL


def test_a_busy_worker_ends_with_its_parent_even_if_another_process_holds_the_pipe(tmp_path: Path) -> None:
    request_fd, held_here = os.pipe()
    parent = subprocess.Popen(
        [sys.executable, "-c", STEPPARENT, BUSY, str(request_fd)],
        cwd=REPOSITORY,
        pass_fds=(request_fd,),
        stdout=subprocess.PIPE,
        text=True,
    )
    with parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        parent.kill()
    assert is_gone_within_5_s(pid)
    os.close(request_fd)
    os.close(held_here)


def test_a_failed_worker_is_not_asked_again(tmp_path: Path) -> None:
    with start(tmp_path, "exit:load") as worker:
        with pytest.raises(WorkerError):
            worker.ask(LOAD, Loaded, GENEROUS_S)
        with pytest.raises(AssertionError, match="not asked again"):
            worker.ask(Inspect(), Inspected, GENEROUS_S)


# Workers that the fake worker cannot imitate, as `python -c SCRIPT --request-fd N --reply-fd M`

READY = msgspec.json.encode(ready(Switches(""))) + b"\n"
GREET = f"""
import os, sys, time
request_fd, reply_fd = int(sys.argv[2]), int(sys.argv[4])
def greet():
    os.write(reply_fd, {READY!r})
"""
DEAF = GREET + "greet()\ntime.sleep(60)\n"
HALF = GREET + "greet()\nos.read(request_fd, 100)\nos.write(reply_fd, b'{\"type\": ')\ntime.sleep(60)\n"
MUTE = GREET + "greet()\nos.read(request_fd, 100)\nos.close(reply_fd)\ntime.sleep(60)\n"
ABANDONS_A_CHILD = GREET + (
    "child = os.fork()\nif not child:\n    time.sleep(60)\nprint(child)\ngreet()\nos.read(request_fd, 100)\n"
)
PARENT = f"""
import sys
from pathlib import Path
from perf_tests.harness.processes.worker_process import Worker
from perf_tests.protocol.messages import Load, Loaded
from perf_tests.tables.cases import Weights
from perf_tests.tables.matrix import CPU_ROWS
from perf_tests.tables.platforms import Device
worker = Worker.spawn(
    python=sys.executable, command={FAKE}, variables={{"PERF_FAKE": "hang:load"}}, log=Path(sys.argv[1])
)
worker.greet({GENEROUS_S})
print(worker.pid, flush=True)
worker.ask(Load(case=CPU_ROWS[1].case(Weights.SYNTHETIC), device=Device.CPU), Loaded, 60.0)
"""
STEPPARENT = """
import subprocess, sys
script, request_fd = sys.argv[1:]
process = subprocess.Popen(
    [sys.executable, "-c", script, request_fd],
    pass_fds=(int(request_fd),), start_new_session=True, stdout=subprocess.PIPE,
)
process.stdout.readline()
print(process.pid, flush=True)
process.wait()
"""
BUSY = """
import sys
from perf_tests.worker import parent_watch
parent_watch.hold(int(sys.argv[1]))
print("holding", flush=True)
while True:
    pass
"""
