"""The command that finds the change behind a cause, as far as a night knows it; pure."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping

from perf_tests.harness.records.attributions import Blame
from perf_tests.harness.telling.findings import BUILD, NightFindings, RedCause
from perf_tests.tables.metrics.rows import METRIC_BY_NAME

SEARCHED: Mapping[Blame, tuple[str, ...]] = {
    Blame.TORCH: ("torch",),
    Blame.TORCHAO: ("torchao",),
    Blame.EACH: ("torch", "torchao"),
    Blame.TOGETHER: ("torch", "torchao"),
}
"""The packages among whose versions the change is found, each with all others as they are tonight.

Not where either alone would do: the other one hides it.
"""
PROCESSES = 3
"""In which a time is measured for a search."""


def of_cause(cause: RedCause, findings: NightFindings) -> Iterator[str]:
    """Commands in one paragraph, if the package is known; in capitals what whoever searches fills in."""
    packages = SEARCHED.get(cause.blame, ()) if cause.blame else ()
    commands = [
        f"- `{shlex.join(('python', 'tools/bisect.py', *axis, *_measured(cause)))}`"
        for package in packages
        if cause.metric != BUILD and (axis := _axis(package, findings))
    ]
    if commands:
        series = f"python tools/history.py series {cause.members[0].case} {cause.metric} --history DIR"
        yield "\n".join(
            (f"Which change it is, where GOOD is what the last green night of `{series}` had:", "", *commands)
        )


def _axis(package: str, findings: NightFindings) -> tuple[str, ...]:
    """What is searched, and up to where; empty for a version that is unknown, or that no index can have."""
    if (commit := findings.commits.get(package)) and package == "torchao":
        return "commits", "CLONE", "--good", "GOOD", "--bad", commit, "--build", "BUILD"
    version = findings.packages.get(package, "")
    if not version[:1].isdigit():
        return ()
    public, _, tag = version.partition("+")
    kind = ("nights", package, "--history", "DIR") if ".dev" in public else ("releases", package)
    local = ("--local", tag) if tag else ()
    ends = ("--index", "PAGE", "--good", "GOOD", "--bad", public, *local)
    return *kind, *ends, "--pins", "FILE"


def _measured(cause: RedCause) -> tuple[str, ...]:
    processes = ("--processes", str(PROCESSES)) if METRIC_BY_NAME[cause.metric].is_noisy else ()
    return "--case", cause.members[0].case, "--metric", cause.metric, *processes
