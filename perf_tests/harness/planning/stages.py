"""How long each stage of a generation takes, as recorded and as scaled to another case; pure."""

from __future__ import annotations

import statistics
from dataclasses import dataclass

from perf_tests.harness.baselines.entry import Entry
from perf_tests.harness.planning.relatives import KnownCosts, RecordedCase
from perf_tests.tables.cases import Case
from perf_tests.tables.metrics.spec import ANSWER, STAGES, STEP, TRAIN_STEP


@dataclass(frozen=True, kw_only=True, slots=True)
class StageTimes:
    """Median milliseconds of the stages of a generation."""

    encode_ms: float
    first_step_ms: float
    step_ms: float
    decode_ms: float

    def latency_s(self, steps: int) -> float:
        """Seconds of a generation with that many steps."""
        return (self.encode_ms + self.first_step_ms + (steps - 1) * self.step_ms + self.decode_ms) / 1e3

    def scaled(self, *, encode: float, step: float, decode: float) -> StageTimes:
        """The same stages, each as many times as long."""
        return StageTimes(
            encode_ms=self.encode_ms * encode,
            first_step_ms=self.first_step_ms * step,
            step_ms=self.step_ms * step,
            decode_ms=self.decode_ms * decode,
        )


def stages_of(entry: Entry) -> StageTimes | None:
    """The stage times of a baseline entry; None where it lacks one of them.

    Training and a single answer have nothing but steps.
    """
    if alone := entry.metrics.get(TRAIN_STEP, entry.metrics.get(ANSWER)):
        step_ms = statistics.median(alone)
        return StageTimes(encode_ms=0.0, first_step_ms=step_ms, step_ms=step_ms, decode_ms=0.0)
    ms = {name: statistics.median(entry.metrics[name]) for name in STAGES if name in entry.metrics}
    if not {"encode_ms", "first_step_ms", "decode_ms"} <= ms.keys():
        return None
    return StageTimes(
        encode_ms=ms["encode_ms"],
        first_step_ms=ms["first_step_ms"],
        # A generation of one step has no later one.
        step_ms=ms.get(STEP, ms["first_step_ms"]),
        decode_ms=ms["decode_ms"],
    )


def scaled_to(stages: StageTimes, case: Case, source: RecordedCase, known: KnownCosts) -> StageTimes:
    """The stages of `case`, scaled from `stages`, which are those of `source`.

    A step scales with the published seconds per step where both cases have them, otherwise with the pixels;
    decoding scales with the pixels; encoding does not scale, since the prompt is the same. Where `case` is
    the fp32 twin that was measured along with the source, all of them scale with the measured ratio.
    """
    of_twin = source.entry.metrics.get("time_ratio_vs_fp32")
    if of_twin is not None and case == source.case.fp32_twin:
        slower = 1 / statistics.median(of_twin)
        return stages.scaled(encode=slower, step=slower, decode=slower)
    sizes = case.workload.pixels / source.case.workload.pixels
    published = known.published_ratio(case, source.case)
    return stages.scaled(encode=1.0, step=sizes if published is None else published, decode=sizes)
