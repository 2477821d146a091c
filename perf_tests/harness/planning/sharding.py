"""Which cases share a worker, in which order builds run, and which of them a shard or a card takes."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from perf_tests.harness.lanes.job_queue import Job
from perf_tests.protocol.errors import UsageError
from perf_tests.tables.cases import Case
from perf_tests.tables.platforms import Platform

SHARD = re.compile(r"([1-9][0-9]*)/([1-9][0-9]*)")

Selected = tuple[Case, Platform]


# Which cases share a worker


@dataclass(frozen=True, kw_only=True, slots=True)
class BuildGroup:
    """The cases of one build on one platform that a worker holds one after another (`Case.worker_key`)."""

    platform: Platform
    cases: tuple[Case, ...]
    """In `Case.worker_order`."""
    implicit: frozenset[str]
    """Ids of the cases that nobody selected, but with which others are compared."""

    @property
    def selected(self) -> tuple[Case, ...]:
        """The cases that were asked for; empty where the build only serves as a reference."""
        return tuple(case for case in self.cases if case.id not in self.implicit)


def build_groups(selected: Sequence[Selected], verified_only: Collection[str] = ()) -> tuple[BuildGroup, ...]:
    """The selected cases and their bf16 references, by build, in the order of running.

    Builds come in the order in which `selected` first names them, the build of a reference before all builds
    that are compared with it. `verified_only` holds ids of cases that are only verified, not compared with
    anything.
    """
    asked = {(case.id, platform.id) for case, platform in selected}
    members: dict[tuple[str, ...], dict[str, Selected]] = {}
    for case, platform in selected:
        # The reference's build follows from the case's build: no later case can move it behind this one.
        for each in (case,) if case.id in verified_only else (case.reference, case):
            members.setdefault((platform.id, *each.worker_key), {})[each.id] = (each, platform)
    return tuple(_group(tuple(each.values()), asked) for each in members.values())


def _group(members: Sequence[Selected], asked: set[tuple[str, str]]) -> BuildGroup:
    platform = members[0][1]
    return BuildGroup(
        platform=platform,
        cases=tuple(sorted((case for case, _ in members), key=lambda case: case.worker_order)),
        implicit=frozenset(case.id for case, _ in members if (case.id, platform.id) not in asked),
    )


# Which of them a shard takes


@dataclass(frozen=True, kw_only=True, slots=True)
class Shard:
    """One of `count` sessions that share the work."""

    index: int
    """From 1."""
    count: int


@dataclass(frozen=True, kw_only=True, slots=True)
class ShardItem:
    """Cases that stay in one shard together, and what they cost."""

    cases: tuple[str, ...]
    seconds: float | None
    """None where it is unknown: the item then counts as much as the most expensive one."""


def parse_shard(text: str) -> Shard:
    """The shard that `i/n` names, 1 <= i <= n. Raises UsageError for any other text."""
    matched = SHARD.fullmatch(text)
    if matched is not None:
        shard = Shard(index=int(matched[1]), count=int(matched[2]))
        if shard.index <= shard.count:
            return shard
    raise UsageError(f"--perf-shard {text!r}: write i/n with i from 1 to n, as in '1/2' and '2/2'")


def shard(items: Sequence[ShardItem], wanted: Shard) -> frozenset[str]:
    """Ids of the cases of the `wanted` shard: the most expensive items are dealt out first, each to the shard
    with the least work so far.

    Longest processing time first (Graham, "Bounds on Multiprocessing Timing Anomalies", 1969): no two shards
    differ by more than the most expensive item, and the longest takes at most 4/3 of the shortest possible.
    The order of `items` does not matter; every shard must see the same items with the same seconds.
    """
    spent_s = [0.0] * wanted.count
    chosen: set[str] = set()
    for seconds, cases in sorted(_weighed(items), key=lambda each: (-each[0], each[1])):
        least = spent_s.index(min(spent_s))
        spent_s[least] += seconds
        if least == wanted.index - 1:
            chosen.update(cases)
    return frozenset(chosen)


def _weighed(items: Sequence[ShardItem]) -> list[tuple[float, tuple[str, ...]]]:
    """The seconds and the cases of each item; one of unknown length counts as much as the longest."""
    most_s = max((item.seconds for item in items if item.seconds is not None), default=1.0)
    return [(most_s if item.seconds is None else item.seconds, item.cases) for item in items]


# What the cards of one session take


def jobs(
    items: Sequence[ShardItem],
    cases: Mapping[str, Case],
    homes: Mapping[str, str],
    places: Mapping[str, int] | None = None,
) -> tuple[Job, ...]:
    """What several cards share out among each other: each item, or its parts where its cases have different
    `homes` (case id -> UUID of the card that must measure it).

    `places` is case id -> where it stands in the order of measuring; None where the longest goes first.
    """
    return tuple(
        replace(job, urgency=min(places.get(case_id, 0) for case_id in job.cases)) if places else job
        for seconds, ids in _weighed(items)
        for job in _jobs(seconds, ids, cases, homes)
    )


def _jobs(
    seconds: float, ids: Sequence[str], cases: Mapping[str, Case], homes: Mapping[str, str]
) -> Iterator[Job]:
    by_home: dict[str | None, list[str]] = {}
    for case_id in ids:
        by_home.setdefault(homes.get(case_id), []).append(case_id)
    for home, together in by_home.items():
        yield Job(
            cases=tuple(together),
            family=" ".join(cases[together[0]].reference.worker_key),
            home=home,
            seconds=seconds * len(together) / len(ids),
        )
