"""A run for the charts of benchmark-action/github-action-benchmark: a list of named values; pure.

The action takes one direction a file (`customSmallerIsBetter` or `customBiggerIsBetter`), and compares with
the one run before: it draws, and this suite judges. What must stay the same has no direction: it is left out.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from perf_tests.harness.processes.plain_text import harmless
from perf_tests.harness.publishing.measurements import Measurement
from perf_tests.protocol.base import Struct
from perf_tests.protocol.errors import UsageError
from perf_tests.tables.metrics.spec import Better

NO_UNIT = "1"
"""Of ratios and counts: the action insists on one."""


class GithubBenchmark(Struct, omit_defaults=True):
    """One bar of a chart, `BenchmarkResult` there."""

    name: str
    unit: str
    value: float
    range: str = ""
    """Half of what the processes span; empty for a single one."""
    extra: str = ""
    """What is shown beside the value."""


def entries(found: Iterable[Measurement], better: Better) -> tuple[GithubBenchmark, ...]:
    """An entry for each of the measurements `found` that improves in the direction `better`.

    Raises UsageError where there is none.
    """
    made = tuple(_entry(each) for each in found if each.metric.better is better)
    if not made:
        raise UsageError(f"the run holds no metric of which {better.value} is better: nothing can be emitted")
    return made


def dumps(made: Iterable[GithubBenchmark]) -> str:
    """The list as JSON."""
    return msgspec.json.format(msgspec.json.encode(tuple(made)), indent=1).decode() + "\n"


def _entry(each: Measurement) -> GithubBenchmark:
    half = (max(each.values) - min(each.values)) / 2
    packages = each.run.processes[0].environment.packages
    versions = (f"{name} {packages[name]}" for name in ("torch", "torchao") if name in packages)
    count = len(each.run.processes)
    facts = (
        each.verdict.status.value,
        "1 process" if count == 1 else f"{count} processes",
        *versions,
        f"digest {each.run.digest[:12]}",
    )
    return GithubBenchmark(
        name=harmless(f"{each.run.id} {each.metric.name} ({each.run.platform})"),
        unit=each.metric.units or NO_UNIT,
        value=each.median,
        range=f"\N{PLUS-MINUS SIGN} {half:.4g}" if len(each.values) > 1 else "",
        extra=harmless("\n".join(facts)),
    )
