"""A worker that imports the stack ahead of its time (`perf_tests.worker.fork_server --once`)."""

from __future__ import annotations

import signal
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

import msgspec

from perf_tests.harness.processes import fork_server
from perf_tests.harness.processes.fork_server import ForkServerError
from perf_tests.harness.processes.process_group import Leader, ProcessGroup
from perf_tests.protocol.messages import MAX_FORK_BYTES, Fork

KILL_S = 10.0


class Spare:
    """A process that imports, holds no card, and waits until it is told which worker it is.

    It must be started by a thread that outlives it, like any worker.
    """

    def __init__(
        self, command: tuple[str, ...], environment: Mapping[str, str], log: Path, first: Fork
    ) -> None:
        """Start `command`, the interpreter and what follows it, under the variables of `environment`. It
        imports what the order `first` names and what every worker needs. Raises OSError where it cannot be
        started."""
        self._orders, served = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with served:
            self._process = fork_server.start_listening(command, served, environment, log, once=True)
        self._group = ProcessGroup(self._process)
        with suppress(OSError):  # it has ended: `take` tells
            self._orders.send(msgspec.json.encode(first))

    def take(self, order: Fork, *, request_fd: int, reply_fd: int, output: int, timeout_s: float) -> Leader:
        """Its process, which is the worker with these ends of its pipes from now on.

        Raises ForkServerError, with the process killed, where it has ended or does not answer within
        `timeout_s` seconds.
        """
        try:
            with self._orders:
                self._orders.settimeout(timeout_s)
                socket.send_fds(self._orders, [msgspec.json.encode(order)], [request_fd, reply_fd, output])
                if self._orders.recv(MAX_FORK_BYTES) != str(self._process.pid).encode():
                    raise ForkServerError("the spare worker has ended")
        except ConnectionError as error:
            self.close()
            raise ForkServerError("the spare worker has ended") from error
        except OSError as error:
            self.close()
            raise ForkServerError(f"the spare worker did not answer: {error}") from error
        except BaseException:
            self.close()
            raise
        return self._process

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Stopped, whatever it is doing."""
        self._group.send(signal.SIGSTOP)
        try:
            yield
        finally:
            self._group.send(signal.SIGCONT)

    def close(self) -> None:
        """Kill it, from any thread. Idempotent."""
        self._group.kill(KILL_S)
        self._orders.close()
