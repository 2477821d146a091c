"""What really runs in one denoise step: the Python code of the repeated blocks, and the kernels of attention.

It is looked at from outside, in a generation of its own: no module changes, and nothing compiles again.
"""

from __future__ import annotations

import contextlib
import inspect
import sys
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from types import CodeType, FrameType
from typing import Any

from torch.profiler import ProfilerActivity, profile

from perf_tests.protocol.reports import StepReport
from perf_tests.tables.cases import Case
from perf_tests.worker.measure import early_stop
from perf_tests.worker.measure.generate import call_arguments

ATTENTION = "aten::_scaled_dot_product_"
"""How the names of the operators begin that carry out `scaled_dot_product_attention`, each in its way."""
UNFUSED = "attention_math"
"""How the name ends of the one that computes and stores all products of queries and keys."""


def observe(pipeline: Any, case: Case) -> StepReport:
    """What runs in the first step of the workload, called exactly as when it is timed.

    `pipeline` has been warmed up for `case`. Operators that cannot be recorded are a warning in the worker's
    log, and an `attention` of None.
    """
    codes = _forward_codes(pipeline, case)
    ran: Counter[str] = Counter(dict.fromkeys(codes.values(), 0))
    recording = AttentionRecording()
    with contextlib.ExitStack() as watching:

        def begin() -> None:
            recording.start()
            watching.enter_context(_calls_counted(ran, codes))

        watching.enter_context(early_stop.after_steps(pipeline, 1, at_timesteps=begin))
        pipeline(**call_arguments(case.build.pipeline, case.workload))
    return StepReport(blocks=dict(ran), attention=recording.stop())


def unfused_attention_calls(report: StepReport, calls: int) -> dict[str, float]:
    """Metric name -> how many of `calls` no fused kernel carried out; empty where they were not recorded."""
    if report.attention is None:
        return {}
    fused = sum(count for name, count in report.attention.items() if not name.endswith(UNFUSED))
    return {"unfused_attention_calls": float(calls - fused)}


def _forward_codes(pipeline: Any, case: Case) -> dict[CodeType, str]:
    """Code of `forward` -> class of block, for all blocks that the pipeline's row names."""
    classes = {
        type(block) for name in case.build.pipeline.blocks for block in getattr(pipeline.transformer, name)
    }
    return {inspect.unwrap(each.forward).__code__: each.__name__ for each in classes}


@contextmanager
def _calls_counted(counts: Counter[str], codes: dict[CodeType, str]) -> Iterator[None]:
    """Count how often Python runs each of `codes`.

    In the place of what it has compiled, dynamo runs code of its own: only what it has not is counted.
    """

    def count(frame: FrameType, event: str, _argument: Any) -> None:
        if event == "call" and frame.f_code in codes:
            counts[codes[frame.f_code]] += 1

    before = sys.getprofile()
    sys.setprofile(count)
    try:
        yield
    finally:
        sys.setprofile(before)


class AttentionRecording:
    """Records which operators carry out attention, with torch's profiler."""

    def __init__(self) -> None:
        self._profile = profile(activities=[ProfilerActivity.CPU])
        self._recording = False

    def start(self) -> None:
        """Begin to record; a warning where the profiler refuses."""
        try:
            self._profile.start()
        except RuntimeError as error:
            warnings.warn(f"operators were not recorded: {error}", RuntimeWarning, stacklevel=2)
        else:
            self._recording = True

    def stop(self) -> dict[str, int] | None:
        """Name -> calls since `start`; None where nothing was recorded."""
        if not self._recording:
            return None
        self._profile.stop()
        operators = (each for each in self._profile.key_averages() if each.key.startswith(ATTENTION))
        return {each.key.removeprefix("aten::"): each.count for each in operators}
