"""The command line, read once."""

from __future__ import annotations

import argparse
import fnmatch
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from perf_tests.harness.planning import sharding
from perf_tests.harness.planning.sharding import Shard
from perf_tests.protocol.errors import UsageError
from perf_tests.protocol.messages import Fault, Injection
from perf_tests.tables.cases import Weights

if TYPE_CHECKING:
    import pytest

REPOSITORY = Path(__file__).parents[3]
PERCENT = re.compile(r"\+?(\d+(?:\.\d+)?)%")
COUNT = re.compile(r"([1-9]\d*)")
DURATION = re.compile(r"(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s?)?")
AMOUNTS = {
    Fault.LATENCY: (PERCENT, "latency:+3%"),
    Fault.MEMORY: (PERCENT, "memory:+2%"),
    Fault.DROP_QUANTIZATION: (COUNT, "drop-quantization:1"),
    Fault.SCALE: (PERCENT, "scale:+1%"),
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
    autoquant_plans: Path | None = None
    """Folder of the plans of searches; None: one in the run's, so that every session searches anew."""
    against: str | None = None
    """Interpreter of the stable stack; None: nothing is compared but with baselines."""

    def selects(self, case_id: str) -> bool:
        """Whether `--perf-case` lets the case through."""
        return not self.case_globs or any(fnmatch.fnmatchcase(case_id, glob) for glob in self.case_globs)

    def injections(self, case_id: str) -> tuple[Injection, ...]:
        """What is to be broken in the case."""
        return tuple(d.injection for d in self.drills if fnmatch.fnmatchcase(case_id, d.glob))


def declare(group: pytest.OptionGroup) -> None:
    """Add the public options to pytest's command line."""
    group.addoption(
        "--perf-case", action="append", default=[], metavar="GLOB", help="whole case ids; may repeat"
    )
    group.addoption(
        "--perf-out",
        default=".perf/latest",
        metavar="DIR",
        help="run.json and reports (default: %(default)s)",
    )
    group.addoption(
        "--perf-baselines",
        default=str(REPOSITORY / "baselines"),
        metavar="DIR",
        help="accepted numbers (default: baselines/)",
    )
    group.addoption(
        "--perf-processes", type=int, default=1, metavar="N", help="fresh processes per case (default: 1)"
    )
    group.addoption("--perf-max-processes", type=int, default=5, metavar="N", help="and at most (default: 5)")
    group.addoption("--perf-weights", choices=[*Weights], default=Weights.SYNTHETIC.value)
    group.addoption(
        "--perf-require-gpu", action="store_true", help="a missing GPU is an error, not a skip (CI)"
    )
    group.addoption(
        "--perf-inject",
        action="append",
        default=[],
        metavar="SPEC[@GLOB]",
        help="fire drill on the selected cases: latency:+3%% | memory:+2%% | drop-quantization:N | "
        "scale:+1%% | hang | oom | nan | crash; may repeat",
    )
    group.addoption(
        "--perf-plan", action="store_true", help="print the expected seconds per case; with --collect-only"
    )
    group.addoption(
        "--perf-budget", metavar="TIME", help="begin no case once the time, as 9m, is spent: NOT_RUN"
    )
    group.addoption(
        "--perf-shard", metavar="I/N", help="the I-th of N parts, balanced by the expected seconds"
    )
    group.addoption(
        "--perf-resume", action="store_true", help="keep what the run directory already holds, run the rest"
    )
    group.addoption(
        "--perf-compile-cache",
        metavar="DIR",
        help="load compile caches from the files in DIR, save those that are missing",
    )
    group.addoption(
        "--perf-autoquant-plans",
        metavar="DIR",
        help="follow the plans of autoquant in DIR, search for those that are missing and save them "
        "(default: plans/ of the run directory: one search for all processes of a run)",
    )
    group.addoption(
        "--perf-python",
        default=sys.executable,
        metavar="PYTHON",
        help="interpreter with the stack under test (default: this one)",
    )
    group.addoption(
        "--perf-against",
        metavar="PYTHON",
        help="interpreter with a stable stack (A), beside which the one under test (B) is measured in turns "
        "on the same GPU: five fresh pairs of workers a case, at most ten. Only for noisy times that are "
        "REGRESSED, which stay red and are confirmed or not, or have no baseline, where A/B is the verdict",
    )
    group.addoption(
        "--perf-worker-module",
        default="perf_tests.worker",
        help=argparse.SUPPRESS,  # for the suite's own tests: another module that speaks the protocol
    )


def read(option: argparse.Namespace) -> Options:
    """What was given. Raises UsageError for what cannot be followed."""
    if option.perf_processes < 1:
        raise UsageError(f"--perf-processes {option.perf_processes}: at least one process measures a case")
    return Options(
        case_globs=tuple(option.perf_case),
        out=Path(option.perf_out),
        baselines=Path(option.perf_baselines),
        processes=option.perf_processes,
        max_processes=option.perf_max_processes,
        weights=Weights(option.perf_weights),
        require_gpu=option.perf_require_gpu,
        drills=tuple(parse_drill(spec) for spec in option.perf_inject),
        python=option.perf_python,
        worker_module=option.perf_worker_module,
        plan=option.perf_plan,
        budget_s=None if option.perf_budget is None else parse_duration(option.perf_budget),
        shard=None if option.perf_shard is None else sharding.parse_shard(option.perf_shard),
        resume=option.perf_resume,
        compile_cache=None if option.perf_compile_cache is None else Path(option.perf_compile_cache),
        autoquant_plans=None if option.perf_autoquant_plans is None else Path(option.perf_autoquant_plans),
        against=option.perf_against,
    )


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
