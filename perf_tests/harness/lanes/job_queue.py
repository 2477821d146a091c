"""Which card measures which build: the card of its baseline, else whichever is free next; the most urgent and
longest first."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace


@dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """Cases of one build that one card measures, one after another."""

    cases: tuple[str, ...]
    """Ids of selected cases."""
    family: str
    """What builds have in common that are compared with the same references."""
    home: str | None = None
    """UUID of the card that must measure them; None for any."""
    seconds: float = 0.0
    """What they are expected to take, with their references."""
    urgency: int = 0
    """Jobs with a lower one are taken first."""


class JobQueue:
    """The jobs that no card has taken yet. Safe to use from several threads.

    A card takes first what must be measured on it, then the rest of a family that it has begun, whose
    references it has measured; then the most urgent family that nobody has begun, of several the longest; and
    at last, since it costs the references anew, a build of another card's family, of the one that has most
    left.
    """

    def __init__(self, jobs: Iterable[Job], units: Sequence[str]) -> None:
        """`units` are the UUIDs of the cards; a job whose home is none of them goes to any."""
        self._lock = threading.Lock()
        self._units = set(units)
        self._begun: dict[str, set[str]] = {unit: set() for unit in units}
        self._wait(jobs)

    @property
    def is_empty(self) -> bool:
        """Whether no job waits for a card."""
        with self._lock:
            return not self._waiting

    def take(self, unit: str) -> Job | None:
        """The next job of the card; None where nothing is left for it."""
        with self._lock:
            job = self._choose(unit)
            if job is not None:
                self._took(job, unit)
            return job

    def claim(self, case_id: str, unit: str) -> Job | None:
        """The waiting job of a case that is needed now, as a reference; None where this card may not have
        it."""
        with self._lock:
            for job in self._waiting:
                if case_id in job.cases and job.home in (None, unit):
                    self._took(job, unit)
                    return job
            return None

    def put(self, job: Job) -> None:
        """Let other cards have what is left of a job that the card which took it does not finish."""
        with self._lock:
            self._wait([*self._waiting, job])

    def retire(self, unit: str) -> None:
        """Give the card no more jobs; those that only it was to measure go to others."""
        with self._lock:
            self._units.discard(unit)
            self._begun.pop(unit, None)
            self._wait(self._waiting)

    def _wait(self, jobs: Iterable[Job]) -> None:
        anywhere = (job if job.home in self._units else replace(job, home=None) for job in jobs)
        self._waiting = sorted(anywhere, key=lambda job: (job.urgency, -job.seconds, job.cases))

    def _choose(self, unit: str) -> Job | None:
        if unit not in self._units:
            return None
        own = [job for job in self._waiting if job.home == unit]
        free = [job for job in self._waiting if job.home is None]
        begun = self._begun[unit]
        elsewhere = set().union(*(names for other, names in self._begun.items() if other != unit)) - begun
        left_s: dict[str, float] = {}
        first: dict[str, int] = {}
        for job in free:
            left_s[job.family] = left_s.get(job.family, 0.0) + job.seconds
            first.setdefault(job.family, job.urgency)  # the jobs are in this order
        fresh = [family for family in left_s if family not in elsewhere | begun]
        next_family = min(fresh, key=lambda family: (first[family], -left_s[family]), default=None)
        candidates = (
            own,
            [job for job in free if job.family in begun],
            [job for job in free if job.family == next_family],
            sorted(free, key=lambda job: (job.urgency, -left_s[job.family])),
        )
        return next((jobs[0] for jobs in candidates if jobs), None)

    def _took(self, job: Job, unit: str) -> None:
        self._waiting.remove(job)
        self._begun[unit].add(job.family)
