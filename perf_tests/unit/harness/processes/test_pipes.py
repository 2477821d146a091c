"""processes/pipes.py: a conversation with the other ends of two pipes, which each test holds itself."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator

import pytest

from perf_tests.harness.processes import pipes
from perf_tests.harness.processes.pipes import OversizedLineError, Pipes

GENEROUS_S = 30.0  # never waited for


class Peer:
    """The worker's ends, and the parent's `pipes` to talk to it."""

    def __init__(self) -> None:
        self.request_fd, parent_writes = os.pipe()
        parent_reads, self.reply_fd = os.pipe()
        self.is_over = False
        self.pipes = Pipes(request_fd=parent_writes, reply_fd=parent_reads, is_over=lambda: self.is_over)

    def close(self) -> None:
        self.pipes.close()
        for fd in (self.request_fd, self.reply_fd):
            os.close(fd)


@pytest.fixture
def peer() -> Iterator[Peer]:
    made = Peer()
    yield made
    made.close()


def _in(seconds: float) -> float:
    return time.monotonic() + seconds


def test_a_message_arrives_at_the_other_end(peer: Peer) -> None:
    peer.pipes.send(b"one\n", _in(GENEROUS_S))
    assert os.read(peer.request_fd, 100) == b"one\n"


def test_lines_that_arrive_together_are_received_one_by_one(peer: Peer) -> None:
    os.write(peer.reply_fd, b"one\ntwo\n")
    assert peer.pipes.receive(_in(GENEROUS_S)) == b"one"
    assert peer.pipes.receive(_in(GENEROUS_S)) == b"two"


def test_a_line_of_many_pieces_is_received_whole(peer: Peer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipes, "CHUNK_BYTES", 3)
    os.write(peer.reply_fd, b"one and two\n\nthree\n")
    assert [peer.pipes.receive(_in(GENEROUS_S)) for _ in range(3)] == [b"one and two", b"", b"three"]


class Flood:
    """A peer that never stops writing, and a clock on which each look takes a second."""

    def __init__(self, peer: Peer, monkeypatch: pytest.MonkeyPatch, chunk: bytes) -> None:
        self.chunks = 0
        self.now_s = 0.0
        self._chunk = chunk
        os.write(peer.reply_fd, b"x")  # so that there is always something to read
        monkeypatch.setattr(os, "read", self._read)
        monkeypatch.setattr(time, "monotonic", self._monotonic)

    def _read(self, _descriptor: int, _size: int) -> bytes:
        self.chunks += 1
        return self._chunk

    def _monotonic(self) -> float:
        self.now_s += 1.0
        return self.now_s


def test_a_peer_that_never_stops_writing_costs_the_deadline(
    peer: Peer, monkeypatch: pytest.MonkeyPatch
) -> None:
    flood = Flood(peer, monkeypatch, b"x" * 100)
    with pytest.raises(TimeoutError):
        peer.pipes.receive(10.0)
    assert flood.chunks == 9


def test_a_line_that_does_not_end_is_given_up(peer: Peer, monkeypatch: pytest.MonkeyPatch) -> None:
    flood = Flood(peer, monkeypatch, b"x" * (16 << 20))
    with pytest.raises(OversizedLineError):
        peer.pipes.receive(10_000.0)
    assert flood.chunks == 5  # 64 MiB are read, and no more


def test_what_was_written_and_not_received_is_known(peer: Peer) -> None:
    assert not peer.pipes.has_unread
    os.write(peer.reply_fd, b"one\ntwo\n")
    assert peer.pipes.has_unread
    peer.pipes.receive(_in(GENEROUS_S))
    assert peer.pipes.has_unread
    peer.pipes.receive(_in(GENEROUS_S))
    assert not peer.pipes.has_unread


def test_half_a_line_is_not_received(peer: Peer) -> None:
    os.write(peer.reply_fd, b"on")
    with pytest.raises(TimeoutError):
        peer.pipes.receive(_in(0.05))
    os.write(peer.reply_fd, b"e\n")
    assert peer.pipes.receive(_in(GENEROUS_S)) == b"one"


def test_a_peer_that_does_not_read_costs_the_deadline(peer: Peer) -> None:
    with pytest.raises(TimeoutError):
        peer.pipes.send(b"x" * (1 << 20), _in(0.05))


def test_a_peer_that_is_over_and_silent_ends_the_wait_before_the_deadline(
    peer: Peer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipes, "POLL_S", 0.01)
    peer.is_over = True
    with pytest.raises(EOFError):
        peer.pipes.receive(_in(GENEROUS_S))


def test_last_words_of_a_peer_that_is_over_are_received(peer: Peer) -> None:
    os.write(peer.reply_fd, b"goodbye\n")
    peer.is_over = True
    assert peer.pipes.receive(_in(GENEROUS_S)) == b"goodbye"


def test_an_end_that_the_peer_closed_is_the_end(peer: Peer) -> None:
    os.dup2(peer.request_fd, peer.reply_fd)
    with pytest.raises(EOFError):
        peer.pipes.receive(_in(GENEROUS_S))


def test_pipes_are_closed_once(peer: Peer) -> None:
    assert peer.pipes.is_open
    peer.pipes.close()
    peer.pipes.close()
    assert not peer.pipes.is_open
