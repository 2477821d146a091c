"""Compares composed latencies with those of full generations: is the projection right?

    python tools/projection.py CASE... [--platform ID] [--measured-steps N] [--json FILE]

For each case, in a process of its own: build, quantize and compile; warm up and sample generations of a few
steps, as the suite does, and compose the latency of all steps; then generate with all steps. Generations of a
few seconds are repeated, because one host stall would exceed the limit.
"""

from __future__ import annotations

import argparse
import dataclasses
import difflib
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

# The checkout's own package, even where it is not installed: `python tools/x.py` only looks in tools/.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from perf_tests.harness.runs.projection import MAX_WARMUPS, composed, is_steady
from perf_tests.protocol.errors import PerfError, UsageError
from perf_tests.protocol.messages import Compile, Generate, Load, Quantize
from perf_tests.protocol.reports import Sample
from perf_tests.tables.cases import Case, Row, Weights
from perf_tests.tables.matrix import MATRIX
from perf_tests.tables.metrics.spec import STEP
from perf_tests.tables.pipelines.spec import Workload
from perf_tests.tables.platforms import PLATFORM_BY_ID, Device

WITHIN, BEYOND, REFUSED = 0, 1, 2

LIMIT_PCT = 2.0
"""How far a composed latency may be from a measured one."""
MEASURED_STEPS = 6
"""Default for cases whose row measures all steps."""
SAMPLES = 3
FULL_SAMPLES = 3
FULL_S = 30.0
"""Full generations are repeated, up to `FULL_SAMPLES`, while together they have taken less than this."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """The composed latency of one case, and that of full generations."""

    case: str
    steps: int
    measured_steps: int
    warmups: int
    composed_s: float
    """Median over the samples."""
    full_s: float
    """Median over the full generations."""
    composed_step_ms: float
    """Median over the steps of all samples."""
    full_step_ms: float
    spent_s: float
    """Seconds for everything but the imports."""
    samples: list[dict[str, list[float]]]
    """The values of the short generations."""
    fulls: list[dict[str, list[float]]]
    """The values of the full generations."""

    @property
    def ratio(self) -> float:
        """Composed over full."""
        return self.composed_s / self.full_s

    @property
    def is_within(self) -> bool:
        """Whether the composed latency can stand in for the full one."""
        return abs(self.ratio - 1) * 100 <= LIMIT_PCT


def main(argv: Sequence[str] | None = None) -> int:
    """Exit code: 0 all within the limit, 1 any beyond it or not measured, 2 refused."""
    options = _parser().parse_args(argv)
    try:
        planned = [_planned(case_id, options) for case_id in options.cases]
        alone = len(planned) == 1
        results = [_measured(options.cases[0], *planned[0])] if alone else _each_in_a_process(options)
    except PerfError as exc:
        print(f"projection: {exc}", file=sys.stderr)
        return REFUSED
    if options.json:
        options.json.write_text(json.dumps([dataclasses.asdict(each) for each in results], indent=1) + "\n")
    print("\n".join(table(results)))
    missing = set(options.cases) - {each.case for each in results}
    for case_id in sorted(missing):
        print(f"projection: {case_id} was not measured, see above", file=sys.stderr)
    return BEYOND if missing or not all(each.is_within for each in results) else WITHIN


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("cases", nargs="+", metavar="CASE", help="id of a case of the matrix")
    parser.add_argument("--platform", metavar="ID", help="default: the first of the case's row")
    parser.add_argument(
        "--measured-steps",
        type=int,
        metavar="N",
        help=f"default: as in the case's row, or {MEASURED_STEPS} where it measures all steps",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write results and raw values to FILE")
    return parser


def _planned(case_id: str, options: argparse.Namespace) -> tuple[Case, Device]:
    """The case with its workload shortened, and the device that it runs on."""
    by_id = {row.case(Weights.SYNTHETIC).id: row for row in MATRIX}
    if case_id not in by_id:
        near = ", ".join(difflib.get_close_matches(case_id, by_id, n=3)) or "none is near"
        raise UsageError(f"no case {case_id!r} among the {len(by_id)} of the matrix; nearest: {near}")
    row = by_id[case_id]
    case = row.case(Weights.SYNTHETIC)
    short = dataclasses.replace(case, workload=shortened(case.workload, options.measured_steps))
    return short, _device(row, options.platform)


def _device(row: Row, platform_id: str | None) -> Device:
    if platform_id is None:
        return row.platforms[0].device
    if platform_id not in PLATFORM_BY_ID:
        raise UsageError(f"no platform {platform_id!r}; there are: {', '.join(PLATFORM_BY_ID)}")
    return PLATFORM_BY_ID[platform_id].device


def shortened(workload: Workload, steps: int | None) -> Workload:
    """`workload` with `steps`, its own measured steps, or `MEASURED_STEPS` to measure; at most all of them.

    Raises UsageError where that leaves no steady step.
    """
    measured = min(steps or workload.measured_steps or MEASURED_STEPS, workload.steps)
    if measured < 2:
        raise UsageError(
            f"measuring {measured} of {workload.steps} steps leaves no steady one, which is the second "
            "at the earliest: ask for 2 or more, of a case that has as many"
        )
    return dataclasses.replace(workload, measured_steps=measured)


def _each_in_a_process(options: argparse.Namespace) -> list[Result]:
    """Measure one process after another: only an ended process is sure to give all its memory back."""
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder) / f"{number}.json" for number in range(len(options.cases))]
        for case_id, file in zip(options.cases, files, strict=True):
            command = [sys.executable, __file__, case_id, "--json", str(file)]
            if options.platform:
                command += ["--platform", options.platform]
            if options.measured_steps:
                command += ["--measured-steps", str(options.measured_steps)]
            subprocess.run(command, check=False)  # what it did not write will be missing from the table
        texts = [file.read_text() for file in files if file.exists()]
    return [Result(**each) for text in texts for each in json.loads(text)]


def _measured(case_id: str, case: Case, device: Device) -> Result:
    # The stack is imported here, so that --help needs none.
    from perf_tests.worker.session import WorkerSession

    workload = case.workload
    started_s = time.perf_counter()
    session = WorkerSession(None)
    session.load(Load(case=case, device=device))
    session.quantize(Quantize())
    compiled = session.compile(Compile())
    _say(case, f"compiled and primed in {compiled.seconds:.1f} s")
    warmups: list[Sample] = []
    while len(warmups) < MAX_WARMUPS and not is_steady(warmups):
        warmups.append(session.generate(Generate(warmup=True)).sample)
    samples = [session.generate(Generate()).sample for _ in range(SAMPLES)]
    _say(case, f"{len(warmups)} warm-ups and {SAMPLES} samples of {workload.generated_steps} steps")
    fulls = _whole(session, dataclasses.replace(workload, measured_steps=None))
    whole = [composed(sample, workload).values for sample in samples]
    return Result(
        case=case_id,  # the id that was asked for; `case` may have another number of steps
        steps=workload.steps,
        measured_steps=workload.generated_steps,
        warmups=len(warmups),
        composed_s=statistics.median(values["latency_s"][0] for values in whole),
        full_s=statistics.median(values["latency_s"][0] for values in fulls),
        composed_step_ms=statistics.median(step for values in whole for step in values[STEP]),
        full_step_ms=statistics.median(step for values in fulls for step in values[STEP]),
        spent_s=time.perf_counter() - started_s,
        samples=[_plain(sample.values) for sample in samples],
        fulls=[_plain(values) for values in fulls],
    )


def _whole(session: Any, workload: Workload) -> list[dict[str, tuple[float, ...]]]:
    found: list[dict[str, tuple[float, ...]]] = []
    while len(found) < FULL_SAMPLES and sum(values["latency_s"][0] for values in found) < FULL_S:
        found.append(session.generate_other(workload).values)
    return found


def _say(case: Case, text: str) -> None:
    print(f"{case.id}: {text}", flush=True)


def _plain(values: dict[str, tuple[float, ...]]) -> dict[str, Any]:
    return {name: list(each) for name, each in values.items()}


def table(results: Iterable[Result]) -> list[str]:
    """A heading, then one line per result; lines beyond the limit say so."""
    head = ("case", "steps", "warm-ups", "step ms", "full's", "composed s", "full s", "ratio", "spent s", "")
    rows = [
        (
            each.case,
            f"{each.measured_steps}/{each.steps}",
            str(each.warmups),
            f"{each.composed_step_ms:.4g}",
            f"{each.full_step_ms:.4g}",
            f"{each.composed_s:.4g}",
            f"{each.full_s:.4g}",
            f"{each.ratio:.4f}",
            f"{each.spent_s:.0f}",
            "" if each.is_within else f"more than {LIMIT_PCT:g} % off",
        )
        for each in results
    ]
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in (head, *rows)
    ]


if __name__ == "__main__":
    sys.exit(main())
