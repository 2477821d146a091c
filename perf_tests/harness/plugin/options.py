"""The options of the command line: declared in one table, read once into one value."""

from __future__ import annotations

import argparse
import fnmatch
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from perf_tests.harness.attribution import stacks as stacks_file
from perf_tests.harness.attribution.stacks import Stacks
from perf_tests.harness.execution.sampling import MAX_PROCESSES
from perf_tests.harness.planning import sharding
from perf_tests.harness.planning.sharding import Shard
from perf_tests.harness.records.attributions import Corner
from perf_tests.harness.retention.earlier_runs import KEPT
from perf_tests.harness.runs import injections
from perf_tests.protocol.errors import UsageError
from perf_tests.protocol.messages import Injection
from perf_tests.tables.cases import Weights

if TYPE_CHECKING:
    import pytest

REPOSITORY = Path(__file__).parents[3]
DURATION = re.compile(r"(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s?)?")


@dataclass(frozen=True, slots=True, kw_only=True)
class Drill:
    """One `--perf-inject`: the fault, and the cases it is injected into."""

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
    show_plan: bool = False
    records: bool = False
    """Whether rows are selected because they lack processes (`-m unsettled`)."""
    budget_s: float | None = None
    """None: unlimited."""
    shard: Shard | None = None
    resume: bool = False
    compile_cache: Path | None = None
    """Folder of compile-cache files; None: every session compiles afresh."""
    autoquant_plans: Path | None = None
    """Folder of autoquant plans; None: one in the run directory, so that every session searches afresh."""
    show_all: bool = False
    """Whether the report at the end says everything, not only what is red or moved."""
    gpus: str | None = None
    """The cards to measure on at the same time, as given; None: the first only."""
    against: str | None = None
    """Interpreter of the stable stack; None: runs are compared with baselines only."""
    stacks: Stacks | None = None
    """The four stacks that red metrics are attributed with; None: they are not attributed."""

    @property
    def measures_all_first(self) -> bool:
        """Whether every case is measured before the first is judged. One device that compares what is red
        with another stack spends its budget on cases first; several cards compare each case once it is
        measured.
        """
        return self.against is not None and self.gpus is None

    @property
    def worker_command(self) -> tuple[str, ...]:
        """How an interpreter is told to be a worker."""
        return ("-m", self.worker_module)

    def selects(self, case_id: str) -> bool:
        """Whether `--perf-case` selects the case; without the option, every case is selected."""
        return not self.case_globs or any(fnmatch.fnmatchcase(case_id, glob) for glob in self.case_globs)

    def injections(self, case_id: str) -> tuple[Injection, ...]:
        """The faults to inject into the case, in the order of the command line."""
        return tuple(d.injection for d in self.drills if fnmatch.fnmatchcase(case_id, d.glob))


OPTIONS: Mapping[str, Mapping[str, Any]] = {
    "--perf-case": {
        "action": "append",
        "default": [],
        "metavar": "GLOB",
        "help": "whole case ids; may be repeated",
    },
    "--perf-out": {
        "default": ".perf/latest",
        "metavar": "DIR",
        "help": f"run.json and reports (default: %(default)s); {KEPT} runs before it stay beside it",
    },
    "--perf-baselines": {
        "default": str(REPOSITORY / "baselines"),
        "metavar": "DIR",
        "help": "accepted numbers (default: baselines/)",
    },
    "--perf-processes": {
        "type": int,
        "default": 1,
        "metavar": "N",
        "help": "fresh processes per case (default: %(default)s)",
    },
    "--perf-max-processes": {
        "type": int,
        "default": MAX_PROCESSES,
        "metavar": "N",
        "help": "fresh processes per case at most, while a verdict is undecided (default: %(default)s)",
    },
    "--perf-weights": {
        "choices": [*Weights],
        "default": Weights.SYNTHETIC.value,
        "help": "where the weights come from (default: %(default)s)",
    },
    "--perf-require-gpu": {"action": "store_true", "help": "a missing GPU is an error, not a skip (CI)"},
    "--perf-inject": {
        "action": "append",
        "default": [],
        "metavar": "SPEC[@GLOB]",
        "help": "fire drill on the selected cases: latency:+3%% | memory:+2%% | drop-quantization:N | "
        "scale:+1%% | hang | oom | nan | crash; may be repeated",
    },
    "--perf-plan": {
        "action": "store_true",
        "help": "print the expected seconds per case; with --collect-only, measure nothing",
    },
    "--perf-budget": {
        "metavar": "TIME",
        "help": "start no case after TIME, such as 9m; the rest is NOT_RUN",
    },
    "--perf-shard": {
        "metavar": "I/N",
        "help": "the I-th of N parts, balanced by the expected seconds; tools/merge.py joins their runs",
    },
    "--perf-gpus": {
        "metavar": "all|N|UUIDS",
        "help": "measure on several cards of this host at a time: all that CUDA_VISIBLE_DEVICES shows, "
        "the first N, or these (default: on the first alone)",
    },
    "--perf-resume": {
        "action": "store_true",
        "help": "keep what the run directory already holds, and run the rest",
    },
    "--perf-compile-cache": {
        "metavar": "DIR",
        "help": "load compile caches from the files in DIR, and save those that are missing",
    },
    "--perf-autoquant-plans": {
        "metavar": "DIR",
        "help": "follow the plans of autoquant in DIR; search for those that are missing, and save them "
        "(default: plans/ of the run directory, so that all processes of a run share one search)",
    },
    "--perf-python": {
        "default": sys.executable,
        "metavar": "PYTHON",
        "help": "interpreter with the stack under test (default: this one)",
    },
    "--perf-against": {
        "metavar": "PYTHON",
        "help": "interpreter with a stable stack (A), measured interleaved with the stack under test (B) on "
        "the same GPU: five fresh pairs of workers per case, at most ten. Only for noisy times: one that is "
        "REGRESSED stays red, and A/B confirms it or not; for one without a baseline, A/B is the verdict",
    },
    "--perf-stacks": {
        "metavar": "FILE",
        "help": "the interpreters of four stacks as a JSON object: good, new_torch, new_torchao and new, or "
        '{"problem": "why"} for a mixed one that cannot be installed. new takes the place of --perf-python '
        "and good that of --perf-against; then it is found out which of the two packages made a confirmed "
        "regression",
    },
    "--perf-table": {
        "choices": ["red", "all"],
        "default": "red",
        "help": "at the end: what is red, by cause, what moved beyond its noise and a line for each other "
        "case, or every metric of every case (default: %(default)s)",
    },
    "--perf-worker-module": {
        # For the suite's own tests: another module that speaks the worker's side of the protocol.
        "default": "perf_tests.worker",
        "help": argparse.SUPPRESS,
    },
}
"""Name -> how pytest's `addoption` declares it."""


def declare(group: pytest.OptionGroup) -> None:
    """Add the options to pytest's command line."""
    for name, settings in OPTIONS.items():
        group.addoption(name, **settings)


def read(option: argparse.Namespace) -> Options:
    """The options as given. Raises UsageError for a value that cannot be followed."""
    for refuse in REFUSALS:
        refuse(option)
    stacks = None if option.perf_stacks is None else stacks_file.read_stacks(Path(option.perf_stacks))
    return Options(
        case_globs=tuple(option.perf_case),
        out=Path(option.perf_out),
        baselines=Path(option.perf_baselines),
        processes=option.perf_processes,
        max_processes=option.perf_max_processes,
        weights=Weights(option.perf_weights),
        require_gpu=option.perf_require_gpu,
        drills=tuple(parse_drill(spec) for spec in option.perf_inject),
        python=stacks.python(Corner.NEW) if stacks else option.perf_python,
        worker_module=option.perf_worker_module,
        show_plan=option.perf_plan,
        records="unsettled" in getattr(option, "markexpr", ""),
        budget_s=None if option.perf_budget is None else parse_duration(option.perf_budget),
        shard=None if option.perf_shard is None else sharding.parse_shard(option.perf_shard),
        gpus=option.perf_gpus,
        resume=option.perf_resume,
        compile_cache=None if option.perf_compile_cache is None else Path(option.perf_compile_cache),
        autoquant_plans=None if option.perf_autoquant_plans is None else Path(option.perf_autoquant_plans),
        against=stacks.python(Corner.GOOD) if stacks else option.perf_against,
        stacks=stacks,
        show_all=option.perf_table == "all",
    )


def of_record(out: Path, baselines: Path) -> Options:
    """The options with which the record in `out` is reported: nothing is measured.

    Raises UsageError where there is no folder `baselines`.
    """
    parser = argparse.ArgumentParser(add_help=False)
    for name, settings in OPTIONS.items():
        parser.add_argument(name, **settings)
    return read(parser.parse_args([f"--perf-out={out}", f"--perf-baselines={baselines}"]))


def _refuse_process_counts(option: argparse.Namespace) -> None:
    processes, most = option.perf_processes, option.perf_max_processes
    if processes < 1:
        raise UsageError(f"--perf-processes {processes}: at least one process measures a case")
    if most < 1:
        raise UsageError(f"--perf-max-processes {most}: at least one process measures a case")
    if processes > most:
        raise UsageError(
            f"--perf-processes {processes}: at most {most} processes measure a case; "
            f"raise --perf-max-processes, too, where more are meant"
        )


def _refuse_missing_baselines(option: argparse.Namespace) -> None:
    if not Path(option.perf_baselines).is_dir():
        raise UsageError(
            f"--perf-baselines {option.perf_baselines}: there is no such folder; make an empty one where "
            "there are no baselines yet"
        )


def _refuse_two_sources_of_stacks(option: argparse.Namespace) -> None:
    given = {
        "--perf-against": option.perf_against is not None,
        "--perf-python": option.perf_python != sys.executable,
    }
    for name, is_given in given.items():
        if is_given and option.perf_stacks is not None:
            raise UsageError(
                f"--perf-stacks {option.perf_stacks} names the interpreters of all stacks: leave out {name}"
            )


REFUSALS = (_refuse_process_counts, _refuse_missing_baselines, _refuse_two_sources_of_stacks)


def check_interpreter(arguments: Sequence[str]) -> None:
    """Raise UsageError for a Python that skips assertions, and for text that no record can hold."""
    if sys.flags.optimize:
        raise UsageError("python -O and PYTHONOPTIMIZE skip the assertions of this suite: run it without")
    for text in (*arguments, str(Path.cwd())):
        try:
            text.encode()
        except UnicodeEncodeError:
            raise UsageError(
                f"{text!r} is not UTF-8, which is what run.json is written in: use another name"
            ) from None


def parse_duration(text: str) -> float:
    """Seconds of `9m`, `90s`, `1h30m` or `540`. Raises UsageError for anything else, and for zero."""
    matched = DURATION.fullmatch(text.strip())
    hours, minutes, seconds = (int(part or 0) for part in (matched.groups() if matched else ("", "", "")))
    total_s = float(hours * 3600 + minutes * 60 + seconds)
    if total_s <= 0:
        raise UsageError(f"--perf-budget {text!r}: write a time such as '9m', '90s' or '1h30m'")
    return total_s


def parse_drill(spec: str) -> Drill:
    """Parse `FAULT[:AMOUNT][@GLOB]`.

    Raises UsageError for an unknown fault or a malformed amount.
    """
    fault, _, glob = spec.partition("@")
    try:
        injection = injections.parse(fault)
    except UsageError as error:
        raise UsageError(f"--perf-inject {spec!r}: {error}") from None
    return Drill(injection=injection, glob=glob or "*", spec=spec)
