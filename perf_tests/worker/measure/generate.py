"""One generation, with the time of each of its stages.

Stages are cut where the pipeline calls its scheduler, which no compile mode reaches into:

    call -- encode --> set_timesteps returns -- first step --> 1st step returns
         -- steady steps --> last step returns -- decode --> result, synchronised
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import gc
import hashlib
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, NoReturn

import torch
from torch.utils.flop_counter import FlopCounterMode

from perf_tests.protocol.errors import WorkerError
from perf_tests.protocol.messages import Failure, FailureKind, Phase
from perf_tests.tables.cases import Case
from perf_tests.tables.metrics.spec import CONSTANT_STD
from perf_tests.tables.pipelines.spec import PipelineSpec, Workload
from perf_tests.worker.measure import early_stop
from perf_tests.worker.measure.clock import Clock, Mark

# Priming needs a second step: some graphs are compiled for the strides that only a later step sees.
PRIMING_STEPS = 2


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Generation:
    """What one generation took and gave."""

    values: dict[str, tuple[float, ...]]
    """Metric name -> measured values."""
    output: torch.Tensor
    """Images (batch, 3, height, width) or videos (batch, frames, 3, height, width), in [0, 1]."""


class Stages:
    """The marks of one generation, taken by a pipeline's scheduler."""

    def __init__(self, clock: Clock, before_mark: Callable[[str], None]) -> None:
        self.clock = clock
        self._before_mark = before_mark
        self._marks: list[Mark] = []
        self._timesteps_set = 0

    @contextmanager
    def attached(self, pipeline: Any) -> Iterator[None]:
        """Let `pipeline`'s scheduler take the marks; afterwards it is as it was."""
        scheduler = pipeline.scheduler
        before = scheduler.set_timesteps, scheduler.step
        scheduler.set_timesteps = self._marked(scheduler.set_timesteps, self._on_timesteps)
        scheduler.step = self._marked(scheduler.step, self._on_step)
        try:
            yield
        finally:
            scheduler.set_timesteps, scheduler.step = before

    def _marked(self, function: Callable[..., Any], then: Callable[[], None]) -> Callable[..., Any]:
        # `wraps`, because pipelines look at the signatures of their scheduler's methods.
        @functools.wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            result = function(*args, **kwargs)
            then()
            return result

        return call

    def _on_timesteps(self) -> None:
        self._timesteps_set += 1
        self.mark("encode_ms")

    def _on_step(self) -> None:
        self.mark("denoise_step_ms" if len(self._marks) > 2 else "first_step_ms")

    def begin(self) -> None:
        """The call begins."""
        self._marks = []
        self._timesteps_set = 0
        self._marks.append(self.clock.mark())

    def mark(self, stage: str) -> None:
        """`stage` ends here."""
        self._before_mark(stage)
        self._marks.append(self.clock.mark())

    def values(self, steps: int) -> dict[str, tuple[float, ...]]:
        """Milliseconds per stage; WorkerError(unproven) where the scheduler ran otherwise than asked."""
        ran = len(self._marks) - 3
        if self._timesteps_set != 1 or ran != steps:
            unproven(f"asked for {steps} steps, the scheduler ran {ran} in {self._timesteps_set} schedules")
        spans = [a.until_ms(b) for a, b in zip(self._marks, self._marks[1:], strict=False)]
        return {
            "encode_ms": (spans[0],),
            "first_step_ms": (spans[1],),
            "denoise_step_ms": tuple(spans[2:-1]),
            "decode_ms": (spans[-1],),
            "device_latency_s": (self._marks[0].until_ms(self._marks[-1]) / 1e3,),
        }


def unproven(message: str) -> NoReturn:
    """Something else was generated than was asked for."""
    raise WorkerError(Failure(kind=FailureKind.UNPROVEN, phase=Phase.GENERATE, message=message))


def generate_once(pipeline: Any, case: Case, stages: Stages) -> Generation:
    """Generate `case.workload` once, from the seed it names, in the steps that are measured, and time it.

    The values are those of this generation, also where it is shorter than the workload.
    `latency_s` is the host clock from the call to the synchronised result, `device_latency_s` the same by
    the stages' clock. Raises WorkerError(numerics) for NaN or a constant image, WorkerError(unproven) for
    output of another shape or another number of steps than asked.
    """
    arguments = call_arguments(case.build.pipeline, case.workload)
    with stages.attached(pipeline), _quiet(stages.clock):
        started_s = time.perf_counter()
        stages.begin()
        output = getattr(pipeline(**arguments), case.build.pipeline.output)
        stages.mark("decode_ms")
        stages.clock.synchronize()
        latency_s = time.perf_counter() - started_s
    values = {"latency_s": (latency_s,), **stages.values(case.workload.generated_steps)}
    _check(output, case.workload)
    return Generation(values=values, output=output)


def prime(pipeline: Any, case: Case) -> None:
    """Generate with two steps, untimed: compiles what is compiled lazily."""
    workload = dataclasses.replace(case.workload, steps=PRIMING_STEPS, measured_steps=None)
    pipeline(**call_arguments(case.build.pipeline, workload))


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class StepWork:
    """The work of a denoise step, counted once a build."""

    tflop: float
    """For one image or video: 2 for each multiply-add of GEMMs, convolutions and attention."""
    workload: Workload
    """What it was counted for."""

    def values(self, workload: Workload) -> dict[str, float]:
        """Metric name -> value for `workload`; empty where it has another size than what was counted."""
        if _of_one(workload) != self.workload:
            return {}
        return {"step_tflop": self.tflop * workload.batch_size}


def count_step(pipeline: Any, case: Case) -> StepWork:
    """Count what an eager, unquantized `pipeline` does between two calls of its scheduler, for one image.

    A step grows with the batch alone, and one image fits where the batch does once it is quantized. What
    `torch.utils.flop_counter` does not know counts nothing, so that the count is never too high.
    """
    workload = _of_one(case.workload)
    counter = FlopCounterMode(display=False, custom_mapping=UNCOUNTED)
    with contextlib.ExitStack() as counting:
        begin = partial(counting.enter_context, counter)
        counting.enter_context(early_stop.after_steps(pipeline, 1, at_timesteps=begin))
        pipeline(**call_arguments(case.build.pipeline, workload))
    return StepWork(tflop=counter.get_total_flops() / 1e12, workload=workload)


def _attention_flops(query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
    """Of shapes (batch, heads, tokens, size of a head): query times key, and that times value."""
    batch, heads, queries, size = query
    return int(2 * batch * heads * queries * key[2] * (size + value[3]))


# What flop_counter has of every other device. Without it, the attention of a CPU would be no work.
UNCOUNTED = {torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention_flops}


def _of_one(workload: Workload) -> Workload:
    return dataclasses.replace(workload, batch_size=1, steps=1, measured_steps=None)


def settle() -> None:
    """Collect garbage once, and never look again at what survived: the objects of the stack are here to stay.

    A full collection takes longer than a miniature's generation, and leaves the processor's caches cold.
    """
    gc.collect()
    gc.freeze()


def call_arguments(spec: PipelineSpec, workload: Workload) -> dict[str, Any]:
    """Keyword arguments of the pipeline call; the noise comes from the CPU, so it is the same on any GPU."""
    frames = {} if workload.num_frames is None else {"num_frames": workload.num_frames}
    return {
        "prompt": workload.prompt,
        "height": workload.height,
        "width": workload.width,
        "num_inference_steps": workload.generated_steps,
        "generator": torch.Generator("cpu").manual_seed(workload.seed),
        "output_type": "pt",
        spec.batch_argument: workload.batch_size,
        **frames,
        **workload.arguments,
    }


@contextmanager
def _quiet(clock: Clock) -> Iterator[None]:
    """No garbage collection, and no work of before, inside the window."""
    gc.collect()
    gc.disable()
    clock.synchronize()
    try:
        yield
    finally:
        gc.enable()


def _check(output: torch.Tensor, workload: Workload) -> None:
    frames = () if workload.num_frames is None else (workload.num_frames,)
    asked = (workload.batch_size, *frames, 3, workload.height, workload.width)
    if tuple(output.shape) != asked:
        unproven(f"asked for output of shape {asked}, got {tuple(output.shape)}")
    if not bool(torch.isfinite(output).all()):
        _numerics("the output holds NaN or infinity")
    if float(output.float().std()) < CONSTANT_STD:
        _numerics("the output is a single colour")


def _numerics(message: str) -> NoReturn:
    raise WorkerError(Failure(kind=FailureKind.NUMERICS, phase=Phase.GENERATE, message=message))


def output_sha256(output: torch.Tensor) -> str:
    """sha256 of the output's bytes in its own dtype."""
    data = output.detach().contiguous().cpu().flatten().view(torch.uint8)
    return hashlib.sha256(data.numpy().data).hexdigest()
