"""The parent's ends of the two pipes to a worker: lines out and in, each with a deadline."""

from __future__ import annotations

import os
import select
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress

POLL_S = 0.2
"""How often to ask about a silent peer: one that died may have left its pipe to a child."""
CHUNK_BYTES = 1 << 16
MAX_LINE_BYTES = 64 << 20
"""The longest line that is read. The largest answer there is, with the errors of a thousand layers, takes a
quarter of a megabyte."""


class OversizedLineError(Exception):
    """A line that does not end within `MAX_LINE_BYTES`."""


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
        self._lines: deque[bytes] = deque()
        """Complete, and not received yet."""
        self._unfinished: list[bytes] = []
        """The pieces of the line after them; joined once, because a growing buffer is copied each time."""
        self._unfinished_bytes = 0
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

        Raises TimeoutError at the deadline, even if the peer never stops writing, OversizedLineError for a
        line that does not end, and EOFError where the peer is over or has closed its end.
        """
        while not self._lines:
            self._wait(self._reply_fd, select.POLLIN, deadline)
            chunk = os.read(self._reply_fd, CHUNK_BYTES)
            if not chunk:
                raise EOFError
            self._take(chunk)
        return self._lines.popleft()

    @property
    def has_unread(self) -> bool:
        """Whether the peer has written anything that was not received."""
        if self._lines or self._unfinished_bytes:
            return True
        poller = select.poll()
        poller.register(self._reply_fd, select.POLLIN)
        return any(event & select.POLLIN for _, event in poller.poll(0))

    def close(self) -> None:
        """Hang up. Idempotent."""
        if self.is_open:
            self.is_open = False
            os.close(self._request_fd)
            os.close(self._reply_fd)

    def _take(self, chunk: bytes) -> None:
        *ends, rest = chunk.split(b"\n")
        for end in ends:
            self._lines.append(b"".join((*self._unfinished, end)))
            self._unfinished, self._unfinished_bytes = [], 0
        self._unfinished.append(rest)
        self._unfinished_bytes += len(rest)
        if self._unfinished_bytes > MAX_LINE_BYTES:
            raise OversizedLineError

    def _wait(self, fd: int, event: int, deadline: float) -> None:
        """Until `fd` is ready; TimeoutError at the deadline, EOFError where the peer is over and silent."""
        poller = select.poll()
        poller.register(fd, event)
        while True:
            # Asked before the poll: what the peer wrote before it died is still read.
            is_over = self._is_over()
            remaining_s = deadline - time.monotonic()
            # Before the poll as well: a peer that never stops writing is always ready.
            if remaining_s <= 0:
                raise TimeoutError
            if poller.poll(0 if is_over else min(remaining_s, POLL_S) * 1000):
                return
            if is_over:
                raise EOFError
