"""Has workers forked from a process that has already imported the stack (`perf_tests.worker.fork_server`)."""

from __future__ import annotations

import ctypes
import os
import socket
import subprocess
import threading
import time
from collections.abc import Mapping
from pathlib import Path

import msgspec

from perf_tests.harness.processes.inherited import REPOSITORY
from perf_tests.harness.processes.process_group import Leader, ProcessGroup
from perf_tests.protocol.messages import MAX_FORK_BYTES, Fork

FORKING = ("-m", "perf_tests.worker.fork_server")
PR_SET_CHILD_SUBREAPER = 36  # linux/prctl.h
LOOK_S = 0.001
KILL_S = 10.0
ADOPTING = threading.Lock()
"""Held while orphans become children of this process, which is a property of the whole process."""


class ForkServerError(Exception):
    """The server forks no worker: it has ended, or does not answer."""


class ForkedProcess:
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
                raise subprocess.TimeoutExpired(f"forked worker {self.pid}", timeout)
            else:
                time.sleep(LOOK_S)
        return self.returncode


class ForkServer:
    """A process that is started for the first worker, forks all of them, and waits in between.

    It must be used by a thread that outlives its workers, like `Worker.spawn`.
    """

    def __init__(self, command: tuple[str, ...], environment: Mapping[str, str], log: Path) -> None:
        """`command` is the interpreter and what follows it. The server imports under the variables of
        `environment`; its workers have their own."""
        self._command = command
        self._environment = dict(environment)
        self._log = log
        self._orders: socket.socket | None = None
        self._group: ProcessGroup | None = None

    def fork(
        self, order: Fork, *, request_fd: int, reply_fd: int, output: int, timeout_s: float
    ) -> ForkedProcess:
        """A worker with these ends of its pipes, whose stdout and stderr are `output`.

        Raises ForkServerError where the server has ended or does not answer within `timeout_s` seconds, and
        OSError where it cannot be started; the server is over then, as it is after Ctrl-C.
        """
        try:
            with ADOPTING:
                orders = self._orders or self._start()
                _adopt_orphans(True)
                try:
                    orders.settimeout(timeout_s)
                    message = msgspec.json.encode(msgspec.structs.replace(order, parent=os.getpid()))
                    socket.send_fds(orders, [message], [request_fd, reply_fd, output])
                    return _child(orders.recv(MAX_FORK_BYTES))
                finally:
                    _adopt_orphans(False)
        except (TimeoutError, ConnectionError) as error:
            self.close()
            raise ForkServerError(f"no worker was forked: {error}") from error
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """End the server, from any thread; workers that it has forked keep running. Idempotent."""
        if self._group is not None:
            self._group.kill(KILL_S)
        if self._orders is not None:
            self._orders.close()

    def _start(self) -> socket.socket:
        orders, served = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with served:
            self._orders = orders
            process = start_listening(self._command, served, self._environment, self._log)
        self._group = ProcessGroup(process)
        return orders


def start_listening(
    command: tuple[str, ...],
    served: socket.socket,
    environment: Mapping[str, str],
    log: Path,
    *,
    once: bool = False,
) -> Leader:
    """Start `command`, which imports the stack and takes its orders from `served`; it prints into `log`.

    Ctrl-C, which is meant for this process, does not reach it: it leads a group, and with `once`, like any
    worker, a session. Raises OSError where it cannot be started.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as output:
        return subprocess.Popen(
            [*command, "--socket-fd", str(served.fileno()), *(["--once"] if once else [])],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=REPOSITORY,
            env=dict(environment),
            pass_fds=(served.fileno(),),
            start_new_session=once,
            process_group=None if once else 0,
        )


def _child(answer: bytes) -> ForkedProcess:
    """The worker that the server has answered with. Raises ForkServerError where there is none."""
    if not answer:
        raise ForkServerError("no worker was forked: the server has ended")
    if not (pid := int(answer)):
        raise ForkServerError("the worker that was forked became the child of another process, and has ended")
    return ForkedProcess(pid)


def _adopt_orphans(adopt: bool) -> None:
    """Whether descendants whose parent exits become children of this process."""
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, int(adopt))
