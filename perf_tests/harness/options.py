"""The command line, read once."""

from __future__ import annotations

import fnmatch
import re
from dataclasses import dataclass
from pathlib import Path

from perf_tests.harness.errors import UsageError
from perf_tests.harness.protocol import Fault, Injection
from perf_tests.harness.sharding import Shard
from perf_tests.tables.cases import Weights

PERCENT = re.compile(r"\+?(\d+(?:\.\d+)?)%")
COUNT = re.compile(r"([1-9]\d*)")
DURATION = re.compile(r"(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s?)?")
AMOUNTS = {
    Fault.LATENCY: (PERCENT, "latency:+3%"),
    Fault.MEMORY: (PERCENT, "memory:+2%"),
    Fault.DROP_QUANTIZATION: (COUNT, "drop-quantization:1"),
}
"""Faults that take an amount: its form, and an example."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Drill:
    """One `--perf-inject`: what is broken, in which cases."""

    injection: Injection
    glob: str
    spec: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """All `--perf-*` options."""

    case_globs: tuple[str, ...]
    out: Path
    baselines: Path
    processes: int
    max_processes: int
    weights: Weights
    require_gpu: bool
    drills: tuple[Drill, ...]
    python: str
    worker_module: str
    plan: bool = False
    budget_s: float | None = None
    """None: all the time there is."""
    shard: Shard | None = None
    resume: bool = False
    compile_cache: Path | None = None
    """Folder of compile-cache files; None: every session compiles anew."""

    def selects(self, case_id: str) -> bool:
        """Whether `--perf-case` lets the case through."""
        return not self.case_globs or any(fnmatch.fnmatchcase(case_id, glob) for glob in self.case_globs)

    def injections(self, case_id: str) -> tuple[Injection, ...]:
        """What is to be broken in the case."""
        return tuple(d.injection for d in self.drills if fnmatch.fnmatchcase(case_id, d.glob))


def parse_duration(text: str) -> float:
    """Seconds of `9m`, `90s`, `1h30m` or `540`. Raises UsageError for anything else, and for nothing."""
    matched = DURATION.fullmatch(text.strip())
    hours, minutes, seconds = (int(part or 0) for part in (matched.groups() if matched else ("", "", "")))
    total_s = float(hours * 3600 + minutes * 60 + seconds)
    if total_s <= 0:
        raise UsageError(f"--perf-budget {text!r}: write a time as in '9m', '90s' or '1h30m'")
    return total_s


def parse_drill(spec: str) -> Drill:
    """`FAULT[:AMOUNT][@GLOB]`. Raises UsageError for an unknown fault or an amount of another form."""
    what, _, glob = spec.partition("@")
    name, _, amount = what.partition(":")
    try:
        fault = Fault(name)
    except ValueError:
        known = ", ".join(Fault)
        raise UsageError(f"--perf-inject {spec!r}: no fault {name!r}; there are {known}") from None
    return Drill(
        injection=Injection(fault=fault, amount=_amount(fault, amount, spec)), glob=glob or "*", spec=spec
    )


def _amount(fault: Fault, text: str, spec: str) -> float | None:
    if fault not in AMOUNTS:
        if text:
            raise UsageError(f"--perf-inject {spec!r}: {fault} takes no amount")
        return None
    pattern, example = AMOUNTS[fault]
    matched = pattern.fullmatch(text)
    if matched is None:
        raise UsageError(f"--perf-inject {spec!r}: write an amount as in {example!r}")
    return float(matched.group(1))
