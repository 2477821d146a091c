"""Which verdicts a session owes, and which it has given: nothing that was selected ends in silence."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(slots=True)
class Ledger:
    """Pairs (case id, metric): what is owed, and what has been settled."""

    owed: set[tuple[str, str]] = field(default_factory=set)
    settled: set[tuple[str, str]] = field(default_factory=set)
    excused: set[str] = field(default_factory=set)
    """Cases with a status of their own (an error, unsupported, not run), which stands for all of their
    metrics without a verdict."""
    elsewhere: set[tuple[str, str]] = field(default_factory=set)
    """What the other shards of the same selection owe: it counts in the error level, and nowhere else."""

    def owe(self, case_id: str, metrics: tuple[str, ...], *, elsewhere: bool = False) -> None:
        """A selected test owes a verdict on each of `metrics`; in another shard where that is `elsewhere`."""
        owed = self.elsewhere if elsewhere else self.owed
        owed.update((case_id, metric) for metric in metrics)

    def owed_on(self, case_id: str) -> set[str]:
        """The metrics of the case that selected tests owe a verdict on, settled or not."""
        return {metric for owing, metric in self.owed if owing == case_id}

    def open_on(self, case_id: str) -> set[str]:
        """The metrics of the case that selected tests still owe a verdict on."""
        return {metric for owing, metric in self.owed - self.settled if owing == case_id}

    def owed_by_case(self) -> dict[str, tuple[str, ...]]:
        """Case id -> the metrics that selected tests owe a verdict on, settled or not, sorted."""
        owed: dict[str, list[str]] = {}
        for case_id, metric in sorted(self.owed):
            owed.setdefault(case_id, []).append(metric)
        return {case_id: tuple(metrics) for case_id, metrics in owed.items()}

    def settle(self, case_id: str, metrics: tuple[str, ...]) -> None:
        """A test has asserted a verdict on each of `metrics`."""
        self.settled.update((case_id, metric) for metric in metrics)

    def excuse(self, case_id: str) -> None:
        """The case has a status that explains missing verdicts."""
        self.excused.add(case_id)

    def missing(self) -> tuple[str, ...]:
        """`case: metric` for each pair that is owed, neither settled nor excused; sorted."""
        return tuple(
            f"{case_id}: {metric}"
            for case_id, metric in sorted(self.owed - self.settled)
            if case_id not in self.excused
        )
