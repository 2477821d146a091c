"""The time that the harness adds to a generation, measured in pairs with bare calls of the same pipeline.

    python tools/overhead.py [--case ID] [--pairs 12]

Prints the 95 % interval (Student's t) of the difference within pairs, in percent of the bare generation.
"""

from __future__ import annotations

import argparse
import difflib
import math
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

# The checkout's own package, even where it is not installed: `python tools/x.py` only looks in tools/.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from perf_tests.tables.cases import Weights
from perf_tests.tables.matrix import MATRIX

WARMUPS = 3

# Two-sided 95 % quantiles of Student's t by degrees of freedom.
STUDENT_95 = {4: 2.776, 5: 2.571, 7: 2.365, 9: 2.262, 11: 2.201, 15: 2.131, 19: 2.093, 23: 2.069, 29: 2.045}


def main() -> None:
    """Measure and print."""
    arguments = _arguments()
    print(f"{arguments.case}: {arguments.pairs} interleaved pairs, harness minus bare, in percent")
    differences_pct = []
    for difference_pct in _measure(arguments.case, arguments.pairs):
        differences_pct.append(difference_pct)
        print(f"{difference_pct:+.2f}", end=" ", flush=True)
    print()
    mean, low, high = interval(differences_pct)
    print(f"mean {mean:+.2f} %, median {statistics.median(differences_pct):+.2f} %, 95 % interval")
    print(f"[{low:+.2f}, {high:+.2f}] %")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--case", default="flux-mini-b1-bf16-eager", type=_case_id, metavar="ID")
    parser.add_argument("--pairs", type=int, default=12, choices=[n + 1 for n in STUDENT_95])
    return parser.parse_args()


def _case_id(text: str) -> str:
    cases = {case.id: case for case in (row.case(Weights.SYNTHETIC) for row in MATRIX)}
    if text not in cases:
        nearest = ", ".join(difflib.get_close_matches(text, cases, n=3)) or "none resembles it"
        raise argparse.ArgumentTypeError(f"{text!r} is none of the {len(cases)} cases; nearest: {nearest}")
    twin = cases[text].built_twin
    if cases[text].build.recipe.is_loaded and twin is not None:
        raise argparse.ArgumentTypeError(
            f"{text} loads a transformer that another process has saved: measure {twin.id}, which has the "
            "same tensors"
        )
    return text


def interval(values: list[float]) -> tuple[float, float, float]:
    """The mean of `values`, and the low and high ends of its 95 % interval."""
    mean = statistics.mean(values)
    half = STUDENT_95[len(values) - 1] * statistics.stdev(values) / math.sqrt(len(values))
    return mean, mean - half, mean + half


def _measure(case_id: str, pairs: int) -> Iterator[float]:
    harness_s, bare_s = _contestants(case_id)
    for _ in range(WARMUPS):
        harness_s()
        bare_s()
    for index in range(pairs):
        # In alternating order, so that a drift of the machine favours neither.
        first, second = (harness_s, bare_s) if index % 2 == 0 else (bare_s, harness_s)
        seconds = {first: first(), second: second()}
        yield (seconds[harness_s] / seconds[bare_s] - 1) * 100


def _contestants(case_id: str) -> tuple[Callable[[], float], Callable[[], float]]:
    # The stack is imported here, so that --help needs none.
    import torch

    from perf_tests.worker.measure.clock import CLOCKS
    from perf_tests.worker.measure.generate import Stages, call_arguments, generate_once, prime, settle
    from perf_tests.worker.model import build, compile, offload
    from perf_tests.worker.quantization import apply

    row = next(row for row in MATRIX if row.case(Weights.SYNTHETIC).id == case_id)
    case, device = row.case(Weights.SYNTHETIC), row.platforms[0].device
    pipeline = build.build(case.build, torch.device(device))
    apply.apply(pipeline, case.build, device=torch.device(device))
    offload.set_up(pipeline, case.build.recipe, torch.device(device))
    compile.apply(pipeline, case.build)
    prime(pipeline, case)
    settle()
    clock = CLOCKS[device]()
    stages = Stages(clock, before_mark=lambda stage: None)

    def harness_s() -> float:
        return generate_once(pipeline, case, stages).values["latency_s"][0]

    def bare_s() -> float:
        arguments = call_arguments(case.build.pipeline, case.workload)
        clock.synchronize()
        started_s = time.perf_counter()
        pipeline(**arguments)
        clock.synchronize()
        return time.perf_counter() - started_s

    return harness_s, bare_s


if __name__ == "__main__":
    main()
