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
import itertools
import math
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode, flop_registry

from perf_tests.protocol.errors import WorkerError
from perf_tests.protocol.messages import Failure, FailureKind, Phase
from perf_tests.tables.cases import Case
from perf_tests.tables.metrics.spec import CONSTANT_STD, IDENTICAL_DB, STEP
from perf_tests.tables.pipelines.spec import PipelineSpec, Workload
from perf_tests.worker.measure import calls, early_stop
from perf_tests.worker.measure.attention import AttentionCalls
from perf_tests.worker.measure.clock import Clock, Mark

# A second step, because some graphs are compiled for strides that the first step does not see.
PRIMING_STEPS = 2


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Generation:
    """The measurements and the output of one generation."""

    values: dict[str, tuple[float, ...]]
    """Metric name -> measured values."""
    output: torch.Tensor
    """Images (batch, 3, height, width) or videos (batch, frames, 3, height, width), in [0, 1]."""


class Stages:
    """Takes the marks of one generation at the calls of its pipeline's scheduler."""

    def __init__(self, clock: Clock, before_mark: Callable[[str], None]) -> None:
        self.clock = clock
        self._before_mark = before_mark
        self._marks: list[Mark] = []
        self._timesteps_set = 0

    @contextmanager
    def attached(self, pipeline: Any) -> Iterator[None]:
        """Take marks at the calls of the scheduler of `pipeline`, which is restored afterwards."""
        scheduler = pipeline.scheduler
        before = scheduler.set_timesteps, scheduler.step
        scheduler.set_timesteps = self._marked(scheduler.set_timesteps, self._on_timesteps)
        scheduler.step = self._marked(scheduler.step, self._on_step)
        try:
            yield
        finally:
            scheduler.set_timesteps, scheduler.step = before

    def _marked(self, function: Callable[..., Any], then: Callable[[], None]) -> Callable[..., Any]:
        # `wraps`, because pipelines inspect the signatures of their scheduler's methods.
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
        self.mark(STEP if len(self._marks) > 2 else "first_step_ms")

    def begin(self) -> None:
        """Mark the start of the pipeline's call."""
        self._marks = []
        self._timesteps_set = 0
        self._marks.append(self.clock.mark())

    def mark(self, stage: str) -> None:
        """Mark the end of `stage`."""
        self._before_mark(stage)
        self._marks.append(self.clock.mark())

    def values(self, steps: int) -> dict[str, tuple[float, ...]]:
        """Metric name -> values of each stage.

        Raises WorkerError(unproven) where the scheduler did not run one schedule of `steps` steps.
        """
        ran = len(self._marks) - 3
        if self._timesteps_set != 1 or ran != steps:
            unproven(f"asked for {steps} steps, the scheduler ran {ran} in {self._timesteps_set} schedules")
        spans = [a.until_ms(b) for a, b in zip(self._marks, self._marks[1:], strict=False)]
        return {
            "encode_ms": (spans[0],),
            "first_step_ms": (spans[1],),
            STEP: tuple(spans[2:-1]),
            "decode_ms": (spans[-1],),
            "device_latency_s": (self._marks[0].until_ms(self._marks[-1]) / 1e3,),
        }


def unproven(message: str) -> NoReturn:
    """Raise WorkerError(unproven): what was generated is not what was asked for."""
    raise WorkerError(Failure(kind=FailureKind.UNPROVEN, phase=Phase.GENERATE, message=message))


def generate_once(pipeline: Any, case: Case, stages: Stages) -> Generation:
    """Generate `case.workload` once, with its seed and its measured steps, and time it.

    The values are those of this generation, even where it takes fewer steps than the workload has.
    `latency_s` is host time from the call to the synchronised result, `device_latency_s` the same interval by
    the clock of `stages`. Raises WorkerError(numerics) for NaN or a constant image, WorkerError(unproven) for
    a shape or a number of steps that was not asked for.
    """
    arguments = call_arguments(case.build.pipeline, case.workload)
    with stages.attached(pipeline), calls.counted(pipeline) as counts, quiet(stages.clock):
        started_s = time.perf_counter()
        stages.begin()
        output = getattr(pipeline(**arguments), case.build.pipeline.output)
        stages.mark("decode_ms")
        stages.clock.synchronize()
        latency_s = time.perf_counter() - started_s
    values = {"latency_s": (latency_s,), **stages.values(case.workload.generated_steps)}
    _check(output, case.workload)
    values |= {f"{name}_calls": (float(count),) for name, count in counts.items()}
    if case.workload.batch_size > 1:
        values["batch_psnr_db"] = (most_alike_db(output),)
    return Generation(values=values, output=output)


def prime(pipeline: Any, case: Case) -> None:
    """Generate `PRIMING_STEPS` steps, untimed: compiles what is compiled lazily."""
    workload = dataclasses.replace(case.workload, steps=PRIMING_STEPS, measured_steps=None)
    pipeline(**call_arguments(case.build.pipeline, workload))


def run_step(pipeline: Any, case: Case) -> None:
    """Generate until the scheduler has taken one step of the workload of `case`, untimed."""
    with early_stop.after_steps(pipeline, 1):
        pipeline(**call_arguments(case.build.pipeline, case.workload))


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class StepWork:
    """The work of one denoise step, counted once per build."""

    tflop: float
    """For one image or video: 2 per multiply-add of GEMMs, convolutions and attention."""
    unknown: tuple[str, ...]
    """Operators that multiply, and whose work torch does not know: `tflop` is without them."""
    workload: Workload
    """The workload that it was counted for: one image or video, one step."""
    attention_tflop: float
    """The part of `tflop` that is attention."""
    attention_calls: int
    """Of `scaled_dot_product_attention`, by any kernel and in any batch."""

    def values(self, workload: Workload) -> dict[str, float]:
        """Metric name -> value for `workload`; empty where it differs in more than batch size and steps, and
        where the work of an operator is not known."""
        if _of_one(workload) != self.workload or self.unknown:
            return {}
        return {"step_tflop": self.tflop * workload.batch_size}

    @property
    def uncounted(self) -> dict[str, str]:
        """Metric name -> why this torch cannot count it."""
        if not self.unknown:
            return {}
        return {"step_tflop": f"this torch does not know the work of {', '.join(self.unknown)}"}


def count_step(pipeline: Any, case: Case) -> StepWork:
    """Count the work of an eager, unquantized `pipeline` between two calls of its scheduler, for one image.

    The work is proportional to the batch size, and one image fits in memory even where the batch only fits
    once it is quantized. `torch.utils.flop_counter` ignores what it does not know, so the count is never too
    high.
    """
    workload = _of_one(case.workload)
    unknown = UnknownWork()
    counter = FlopCounterMode(display=False, custom_mapping=UNCOUNTED)
    attention = AttentionCalls()
    with contextlib.ExitStack() as counting:

        def begin() -> None:
            # Below the counter, which passes on what an operator consists of.
            counting.enter_context(unknown)
            counting.enter_context(counter)
            counting.enter_context(attention)

        counting.enter_context(early_stop.after_steps(pipeline, 1, at_timesteps=begin))
        pipeline(**call_arguments(case.build.pipeline, workload))
    return StepWork(
        tflop=counter.get_total_flops() / 1e12,
        attention_tflop=_attention_tflop(counter),
        unknown=tuple(sorted(unknown.names)),
        workload=workload,
        attention_calls=attention.count,
    )


def _attention_tflop(counter: FlopCounterMode) -> float:
    by_operator = counter.get_flop_counts().get("Global", {})
    return sum(flops for operator, flops in by_operator.items() if "attention" in str(operator)) / 1e12


def _attention_flops(query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
    """FLOPs for shapes (batch, heads, tokens, head size): query times key, and the result times value."""
    batch, heads, queries, size = query
    return int(2 * batch * heads * queries * key[2] * (size + value[3]))


# flop_counter knows the attention of every other device. Without this, attention on a CPU would not count.
UNCOUNTED = {torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention_flops}


MULTIPLIES = re.compile(
    r"(^|_)((add|b|baddb|addb)?mm|matmul|gemm|linear|attention|convolution|conv[123]d)(_|$)"
)
"""What the name of an operator with much work contains."""
OF_TORCH = frozenset({"aten", "prim", "prims", "profiler"})
"""Namespaces whose operators are told apart by their names; any other may hide anything."""


class UnknownWork(TorchDispatchMode):
    """Collects the operators whose work `torch.utils.flop_counter` leaves out, and should not."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call] # torch annotates the class, and not this
        self.names: set[str] = set()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Call `func`, and note its name where nobody knows its work."""
        packet = func.overloadpacket if isinstance(func, torch._ops.OpOverload) else func
        namespace, _, name = str(packet).partition(".")
        heavy = namespace not in OF_TORCH or MULTIPLIES.search(name) is not None
        if heavy and packet not in flop_registry and packet not in UNCOUNTED:
            self.names.add(str(packet))
        return func(*args, **(kwargs or {}))


def _of_one(workload: Workload) -> Workload:
    return dataclasses.replace(workload, batch_size=1, steps=1, measured_steps=None)


def settle() -> None:
    """Collect garbage once, and exclude what survives from later collections: it is permanent.

    A full collection would take longer than a miniature's generation, and leave the processor's caches cold.
    """
    gc.collect()
    gc.freeze()


def call_arguments(spec: PipelineSpec, workload: Workload) -> dict[str, Any]:
    """Keyword arguments of the pipeline call; noise comes from the CPU, so it is the same on every GPU."""
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
def quiet(clock: Clock) -> Iterator[None]:
    """A window without garbage collection, and without work submitted before it."""
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


def most_alike_db(output: torch.Tensor) -> float:
    """PSNR in dB of the two pictures of a batch that are most alike; `IDENTICAL_DB` for the same picture."""
    pairs = itertools.combinations(output.float(), 2)
    lowest = min(float((one - other).square().mean()) for one, other in pairs)
    return IDENTICAL_DB if lowest == 0 else -10 * math.log10(lowest)


def output_sha256(output: torch.Tensor) -> str:
    """sha256 of the output as it is captured: float32, channels last."""
    # To the host first: it must not add to the peak of the GPU.
    data = output.detach().cpu().float().movedim(-3, -1).contiguous()
    return hashlib.sha256(data.numpy().data).hexdigest()
