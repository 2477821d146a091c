"""What a session was to measure and judge, as its record keeps it, so that shards can be joined."""

from __future__ import annotations

from perf_tests.protocol.base import Struct

BUILD = "build"
"""What is owed on a case beside verdicts on metrics: whether it was built."""


class PlannedCase(Struct, array_like=True):
    """A selected case."""

    id: str
    digest: str
    owed: tuple[str, ...] | None
    """What this session owes on it: names of metrics, and `BUILD`; None for a case of another shard."""


class Part(Struct):
    """One of the runs that a merged record was made from."""

    shard: tuple[int, int]
    """Its number, from 1, and how many there are."""
    created_at: str
    """ISO 8601, UTC."""
    command: str
    sha256: str
    """Of the file that held its record."""


class Plan(Struct):
    """The selection of a session, those cases included that other shards of it take."""

    cases: tuple[PlannedCase, ...]
    noisy_metrics: int
    """Of the whole selection; the error level of each of them follows from how many there are."""
    commit: str | None
    """Of the checkout of this suite, with a digest of what was changed there; of each that has measured, in
    turn, where one resumed what another began. None outside of a checkout."""
    shard: tuple[int, int] | None = None
    """Its number, from 1, and how many there are; None for the whole selection."""
    parts: tuple[Part, ...] = ()
    """Of a merged record; empty for a session."""
