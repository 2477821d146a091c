"""Forks fake workers from one process that has already imported everything they need.

Starting an interpreter that imports the tables takes 150 ms of CPU time, a fork 7 ms. A forked worker is
still a real process: it leads its own session, its parent is the process that asked for it, and it can
crash, hang and be killed.
"""

from __future__ import annotations

import ctypes
import faulthandler
import gc
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from typing import Any, BinaryIO

from perf_tests.harness.processes import inherited, worker_process
from perf_tests.unit import fake_worker

START_PROCESS = worker_process.start_process
COMMAND = (sys.executable, "-m", fake_worker.__name__)

PR_SET_CHILD_SUBREAPER = 36  # linux/prctl.h
MESSAGE_BYTES = 1 << 17
LOOK_S = 0.001


class Forked:
    """A forked worker, with the part of `subprocess.Popen` that the harness uses."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.returncode: int | None = None

    def wait(self, timeout: float) -> int:
        """The exit code, or minus the signal; TimeoutExpired after `timeout` seconds."""
        deadline = time.monotonic() + timeout
        while self.returncode is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.returncode = os.waitstatus_to_exitcode(status)
            elif time.monotonic() > deadline:
                raise subprocess.TimeoutExpired(COMMAND, timeout)
            else:
                time.sleep(LOOK_S)
        return self.returncode


class ForkServer:
    """Starts the server on first use and asks it for workers."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._requests, self._served = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)

    def start_process(self, command: tuple[str, ...], **process: Any) -> Forked | subprocess.Popen[bytes]:
        """Replaces `worker_process.start_process`, which still starts every command but the fake worker's."""
        return self._fork(**process) if command == COMMAND else START_PROCESS(command, **process)

    def close(self) -> None:
        """End the server; workers that it has forked keep running."""
        self._requests.close()
        self._served.close()
        if self._process is not None:
            self._process.wait()

    def _fork(
        self, *, request_fd: int, reply_fd: int, output: BinaryIO, environment: dict[str, str]
    ) -> Forked:
        with self._lock:
            self._process = self._process or self._start()
            _adopt_orphans(True)
            try:
                order = json.dumps(environment).encode()
                socket.send_fds(self._requests, [order], [request_fd, reply_fd, output.fileno()])
                return Forked(int(self._requests.recv(MESSAGE_BYTES)))
            finally:
                _adopt_orphans(False)

    def _start(self) -> subprocess.Popen[bytes]:
        served = self._served.fileno()
        process = subprocess.Popen(
            [sys.executable, "-m", "perf_tests.unit.fork_server", str(served)],
            stdin=subprocess.DEVNULL,
            cwd=inherited.REPOSITORY,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
            pass_fds=(served,),
        )
        self._served.close()  # so that `recv` returns where it has crashed
        return process


def _adopt_orphans(adopt: bool) -> None:
    """Whether descendants whose parent exits become children of this process."""
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, int(adopt))


def main() -> None:
    """Fork one worker per order until the tests hang up."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is meant for the tests
    served = socket.socket(fileno=int(sys.argv[1]))
    fake_worker.warm_up()
    gc.collect()
    gc.freeze()  # else the first collection in a worker copies all the memory that it shares
    while True:
        order, fds, *_ = socket.recv_fds(served, MESSAGE_BYTES, 3)
        if not order:
            return
        between = os.fork()
        if not between:
            _fork_orphan()
            request_fd, reply_fd, output = fds
            _become_worker(json.loads(order), output)
            served.send(str(os.getpid()).encode())
            served.close()
            # An orderly exit would first copy most of the memory that it shares.
            os._exit(_exit_code(request_fd, reply_fd))
        os.waitpid(between, 0)
        for fd in fds:
            os.close(fd)


def _fork_orphan() -> None:
    """Continue in a child whose parent has exited: the process that asked for a worker adopts it."""
    parent = os.getpid()
    if os.fork():
        os._exit(0)
    while os.getppid() == parent:
        time.sleep(LOOK_S)


def _become_worker(environment: dict[str, str], output: int) -> None:
    os.setsid()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.dup2(output, sys.stdout.fileno())
    os.dup2(output, sys.stderr.fileno())
    os.close(output)
    os.environ.clear()
    os.environ.update(environment)
    faulthandler.enable()


def _exit_code(request_fd: int, reply_fd: int) -> int:
    """Run the fake worker; the code it exits with."""
    try:
        fake_worker.serve(request_fd, reply_fd)
    except SystemExit as end:
        return int(end.code or 0)
    return 0


if __name__ == "__main__":
    main()
