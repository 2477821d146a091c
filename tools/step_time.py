"""Where the time of a case's denoise step goes on this GPU, beside the least that it could take.

    python tools/step_time.py CASE [--kernels N]

What it compiles stays in inductor's cache, in the folder that TORCHINDUCTOR_CACHE_DIR names.

Builds, quantizes and compiles the case as the suite does, times a few steps without the profiler, and records
one with it: the milliseconds of its kernels by what they do, the gaps between them, and what their sum is of
the timed step. Beside them what GEMMs and attention would take at the peak of the processor's data sheet.
"""

from __future__ import annotations

import argparse
import dataclasses
import difflib
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

# The checkout's own package, even where it is not installed: `python tools/x.py` only looks in tools/.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from perf_tests.protocol.errors import PerfError, UsageError
from perf_tests.tables.cases import Case, Weights
from perf_tests.tables.matrix import GPU_ROWS
from perf_tests.tables.metrics.spec import STEP
from perf_tests.tables.platforms import H100, Device
from perf_tests.tables.schemes.rows import BF16

if TYPE_CHECKING:
    from perf_tests.worker.inspection.step_time import StepTime

DONE, REFUSED = 0, 2
WARMUPS, STEPS = 2, 8
GEMM, ATTENTION = "GEMM", "attention"


def main(argv: Sequence[str] | None = None) -> int:
    """Exit code: 0 measured, 2 refused."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("case", metavar="CASE", help="id of a case of a GPU")
    parser.add_argument("--kernels", type=int, default=12, metavar="N", help="kernels to name (default: 12)")
    options = parser.parse_args(argv)
    try:
        case = _case(options.case)
        for line in _measured(case, options.kernels):
            print(line, flush=True)
    except PerfError as exc:
        print(f"step_time: {exc}", file=sys.stderr)
        return REFUSED
    return DONE


def _case(case_id: str) -> Case:
    """The case with a few steps to generate."""
    cases = {case.id: case for case in (row.case(Weights.SYNTHETIC) for row in GPU_ROWS)}
    if case_id not in cases:
        near = ", ".join(difflib.get_close_matches(case_id, cases, n=3)) or "none is near"
        raise UsageError(f"no case {case_id!r} among the {len(cases)} of GPUs; nearest: {near}")
    case = cases[case_id]
    if case.build.recipe.is_loaded and case.built_twin is not None:
        raise UsageError(
            f"{case_id} loads a transformer that another process has saved: measure {case.built_twin.id}, "
            "which has the same tensors"
        )
    steps = min(STEPS, case.workload.steps)
    return dataclasses.replace(case, workload=dataclasses.replace(case.workload, measured_steps=steps))


def _measured(case: Case, kernels: int) -> Iterator[str]:
    # The stack is imported here, so that --help needs none.
    import torch
    from torch.profiler import ProfilerActivity

    from perf_tests.worker.inspection.kernels import KinetoRecorder, record
    from perf_tests.worker.inspection.step_time import step_time
    from perf_tests.worker.measure.clock import CLOCKS
    from perf_tests.worker.measure.generate import Stages, count_step, generate_once, prime, settle
    from perf_tests.worker.model import build, compile, offload
    from perf_tests.worker.quantization import apply

    pipeline = build.build(case.build, torch.device(Device.CUDA))
    work = count_step(pipeline, case)
    apply.apply(pipeline, case.build, device=torch.device(Device.CUDA))
    offload.set_up(pipeline, case.build.recipe, torch.device(Device.CUDA))
    compile.apply(pipeline, case.build)
    started_s = time.perf_counter()
    prime(pipeline, case)
    settle()
    yield f"{case.id} on {torch.cuda.get_device_name()}: primed in {time.perf_counter() - started_s:.1f} s"
    clock = CLOCKS[Device.CUDA]()
    stages = Stages(clock, before_mark=lambda stage: None)
    timed = [generate_once(pipeline, case, stages).values[STEP] for _ in range(WARMUPS + 1)][-1]
    events = record(pipeline, case, clock, KinetoRecorder(ProfilerActivity.CUDA), (STEP,))[STEP]
    least_ms = floors_ms(case, work.tflop, work.attention_tflop)
    yield from table(step_time(events), statistics.median(timed), least_ms, kernels)


def floors_ms(case: Case, tflop: float, attention_tflop: float) -> dict[str, float]:
    """What kernels do -> the milliseconds that one step of `case` takes at the peak of the data sheet.

    `tflop` and its part `attention_tflop` are those of one image; all GEMMs are taken for quantized.
    """
    images, peaks = case.workload.batch_size, H100.peak_tflops
    gemm = peaks[case.build.recipe.scheme.gemm]
    return {
        GEMM: 1e3 * images * (tflop - attention_tflop) / gemm,
        ATTENTION: 1e3 * images * attention_tflop / peaks[BF16.gemm],
    }


def table(found: StepTime, wall_ms: float, least_ms: dict[str, float], kernels: int) -> Iterator[str]:
    """One line for each part, the sum beside the timed step, and the kernels that take longest."""
    yield f"{'part':25}{'ms':>9}{'% of step':>11}{'at peak':>9}"
    for name, ms in sorted((*found.parts_ms.items(), ("gaps", found.gaps_ms)), key=lambda part: -part[1]):
        least = f"{least_ms[name]:.1f}" if name in least_ms else "-"
        yield f"{name:25}{ms:9.2f}{100 * ms / wall_ms:11.1f}{least:>9}"
    off_pct = 100 * (found.total_ms / wall_ms - 1)
    yield f"{'sum':25}{found.total_ms:9.2f}; a step without the profiler {wall_ms:.2f} ms ({off_pct:+.1f} %)"
    for name, ms, launches in found.kernels[:kernels]:
        yield f"{ms:9.2f} ms {launches:5} x  {name[:100]}"


if __name__ == "__main__":
    sys.exit(main())
