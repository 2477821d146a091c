"""The books of a session: what was planned against what was said. Nothing planned may end in silence."""

from __future__ import annotations

from dataclasses import dataclass, field

BUILD = "build"
"""What `test_build` answers for, beside the metrics of the other tests."""


@dataclass(slots=True)
class Ledger:
    """Pairs (case id, metric)."""

    planned: set[tuple[str, str]] = field(default_factory=set)
    said: set[tuple[str, str]] = field(default_factory=set)
    declared: set[str] = field(default_factory=set)
    """Cases with a status of their own (an error, unsupported): it stands for all of their metrics
    without a verdict."""

    def plan(self, case_id: str, metrics: tuple[str, ...]) -> None:
        """A selected test owes a verdict on each of `metrics`."""
        self.planned.update((case_id, metric) for metric in metrics)

    def owed(self, case_id: str) -> set[str]:
        """All that a selected test owes of the case, said or not."""
        return {metric for planned, metric in self.planned if planned == case_id}

    def say(self, case_id: str, metrics: tuple[str, ...]) -> None:
        """A test asserted a verdict on each of `metrics`."""
        self.said.update((case_id, metric) for metric in metrics)

    def declare(self, case_id: str) -> None:
        """The case has a status that explains missing verdicts."""
        self.declared.add(case_id)

    def missing(self) -> tuple[str, ...]:
        """`case: metric` for each planned pair with neither verdict nor declared status."""
        return tuple(
            f"{case_id}: {metric}"
            for case_id, metric in sorted(self.planned - self.said)
            if case_id not in self.declared
        )
