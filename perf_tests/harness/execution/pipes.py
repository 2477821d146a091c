"""The parent's ends of the two pipes to a worker: lines out and in, each with a deadline."""

from __future__ import annotations

import os
import select
import time
from collections.abc import Callable
from contextlib import suppress

POLL_S = 0.2
"""How often to ask about a silent peer: one that died may have left its pipe to a child."""
CHUNK_BYTES = 1 << 16


class Pipes:
    """One conversation: what is written to `request_fd` is answered, line by line, on `reply_fd`.

    Deadlines are times of `time.monotonic`.
    """

    def __init__(self, *, request_fd: int, reply_fd: int, is_over: Callable[[], bool]) -> None:
        """Takes over both descriptors. `is_over` says whether the peer died or has been given up."""
        os.set_blocking(request_fd, False)
        self._request_fd = request_fd
        self._reply_fd = reply_fd
        self._is_over = is_over
        self._received = bytearray()
        self.is_open = True

    def send(self, message: bytes, deadline: float) -> None:
        """Write all of `message`.

        Raises TimeoutError at the deadline, EOFError where the peer is over, and BrokenPipeError where it has
        closed its end.
        """
        while message:
            self._wait(self._request_fd, select.POLLOUT, deadline)
            with suppress(BlockingIOError):
                message = message[os.write(self._request_fd, message) :]

    def receive(self, deadline: float) -> bytes:
        """The next line, without its end.

        Raises TimeoutError at the deadline, and EOFError where the peer is over or has closed its end.
        """
        while b"\n" not in self._received:
            self._wait(self._reply_fd, select.POLLIN, deadline)
            chunk = os.read(self._reply_fd, CHUNK_BYTES)
            if not chunk:
                raise EOFError
            self._received += chunk
        line, _, rest = self._received.partition(b"\n")
        self._received = rest
        return bytes(line)

    def close(self) -> None:
        """Hang up. Idempotent."""
        if self.is_open:
            self.is_open = False
            os.close(self._request_fd)
            os.close(self._reply_fd)

    def _wait(self, fd: int, event: int, deadline: float) -> None:
        """Until `fd` is ready; TimeoutError at the deadline, EOFError where the peer is over and silent."""
        poller = select.poll()
        poller.register(fd, event)
        while True:
            # Asked before the poll: what the peer wrote before it died is still read.
            is_over = self._is_over()
            remaining_s = deadline - time.monotonic()
            if poller.poll(0 if is_over else max(0.0, min(remaining_s, POLL_S)) * 1000):
                return
            if is_over:
                raise EOFError
            if remaining_s <= 0:
                raise TimeoutError
