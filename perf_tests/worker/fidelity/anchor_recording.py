"""What an anchor records of a pipeline: every stage of its call, for four prompts and for a batch of two.

Small tensors are recorded whole, large ones as fixed projections of them: sums of their elements with signs
that an integer hash gives. Sums keep the ratio of a signal to its error: that of 1021 projections differs
from the tensor's own by 0.4 dB (two standard deviations), and does so alike in every run.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from enum import StrEnum
from functools import partial
from typing import Any, Final

import torch
from torch import nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from perf_tests.protocol.errors import WorkerError
from perf_tests.protocol.messages import Failure, FailureKind, Phase
from perf_tests.tables.digest_fields import identity
from perf_tests.tables.pipelines.spec import FURTHER_PROMPTS, PROMPTS, PipelineSpec, Workload
from perf_tests.worker.measure.generate import call_arguments
from perf_tests.worker.model import build as building
from perf_tests.worker.model import synthetic

MAX_SIDE: Final = 256
"""Of the image, in pixels: a CPU computes a step of that size in seconds, even at full width."""
MAX_STEPS: Final = 4
"""Of the schedule: errors grow from step to step, and each step at full width takes the CPU seconds."""
MAX_DECODED_FRAMES: Final = 5
"""Of the videos that are decoded."""
BATCH: Final = "batch"
"""The call that is asked for two outputs at once, and the only one that decodes them: decoding knows no
prompt, and is slow in bf16 on many processors. The others are `prompt-0` to `prompt-3`."""
PROJECTIONS: Final = 1021
"""Per tensor. Prime, so that no channel of a tensor ends up in one sum alone."""
TEXT_INPUTS: Final = ("encoder_hidden_states", "pooled_projections", "encoder_attention_mask")
"""Keywords of a transformer's call that hold what the pipeline made of its encoders' answers."""


class Stage(StrEnum):
    """A part of a pipeline's call."""

    SCHEDULE = "schedule"
    """Timesteps and sigmas (without them: cumulative alphas), as they stand at each step."""
    EMBEDS = "embeds"
    """The answer of each text encoder, and what the transformer is given of them."""
    ANSWER = "answer"
    """The transformer's, to its very first call; whole."""
    LATENTS = "latents"
    """After the last step, of each output."""
    PICTURE = "picture"
    """The outputs themselves, decoded: images or videos of the batch."""


@dataclasses.dataclass(frozen=True, slots=True)
class Sketch:
    """A tensor, or projections of it."""

    shape: tuple[int, ...]
    """Of the tensor."""
    values: torch.Tensor
    """float32, one dimension, on the CPU: its elements, or `PROJECTIONS` sums of them."""


Recording = Mapping[str, Sketch]
"""`stage.call` or `stage.call.what` -> what was there."""


def stage_of(name: str) -> Stage:
    """The stage that an item of a recording belongs to."""
    return Stage(name.partition(".")[0])


def calls(spec: PipelineSpec) -> dict[str, Workload]:
    """Name of each recorded call -> what it is asked for: at most `MAX_SIDE` pixels and `MAX_STEPS` steps."""
    default = spec.workload
    small = dataclasses.replace(
        default,
        batch_size=1,
        height=min(default.height, MAX_SIDE),
        width=min(default.width, MAX_SIDE),
        steps=min(default.steps, MAX_STEPS),
        measured_steps=None,
    )
    prompts = {f"prompt-{pair}": small.of_prompt(pair) for pair in range(PROMPTS)}
    return {**prompts, BATCH: dataclasses.replace(_quickly_decoded(small), batch_size=2)}


def _quickly_decoded(workload: Workload) -> Workload:
    """`workload` itself for images; for videos a quarter of the pixels of few frames, two of the latents'.

    A processor without bf16 instructions decodes slowly, and a video has many pixels.
    """
    if workload.num_frames is None:
        return workload
    return dataclasses.replace(
        workload,
        height=workload.height // 2,
        width=workload.width // 2,
        num_frames=min(workload.num_frames, MAX_DECODED_FRAMES),
    )


def arguments(spec: PipelineSpec, name: str, workload: Workload) -> dict[str, Any]:
    """Keyword arguments of the pipeline in the call `name`, for `workload`."""
    asked = call_arguments(spec, workload)
    if name != BATCH:
        asked["output_type"] = "latent"
    if workload.batch_size > 1 and spec.one_output_per_prompt:
        prompts = [workload.prompt, *FURTHER_PROMPTS][: workload.batch_size]
        return {**asked, "prompt": prompts, spec.batch_argument: 1}
    return asked


def asked(spec: PipelineSpec) -> dict[str, dict[str, Any]]:
    """Name of each recorded call -> its arguments and seed, as they come back from JSON."""
    found: dict[str, dict[str, Any]] = {}
    for name, workload in calls(spec).items():
        given = arguments(spec, name, workload)
        del given["generator"]
        found[name] = {"seed": workload.seed, **identity(given)}
    return found


def record(
    pipeline: Any, spec: PipelineSpec, workloads: Mapping[str, Workload] | None = None
) -> dict[str, Sketch]:
    """What an anchor of `spec` holds, as `pipeline` gives it in `workloads`, or else in all of `calls(spec)`.

    To be called before anything is fused, quantized or compiled; nothing stays attached to the pipeline.
    Raises WorkerError(unproven) where the pipeline never calls its transformer.
    """
    recording: dict[str, Sketch] = {}
    for name, workload in (workloads or calls(spec)).items():
        heard = _generate(pipeline, spec, name, workload)
        if heard.answer is None:
            message = f"{spec.id} generates without calling its transformer"
            raise WorkerError(Failure(kind=FailureKind.UNPROVEN, phase=Phase.LOAD, message=message))
        recording.setdefault(Stage.ANSWER, whole(heard.answer))
        recording |= heard.sketches(name)
    return recording


def whole(tensor: torch.Tensor) -> Sketch:
    """All of `tensor`, whatever its size."""
    return Sketch(tuple(tensor.shape), tensor.detach().flatten().float().cpu())


def sketch(tensor: torch.Tensor) -> Sketch:
    """`tensor`, or projections of it where it has more elements than there are projections."""
    count = tensor.numel()
    if count <= PROJECTIONS:
        return whole(tensor)
    signed = tensor.detach().flatten().double() * synthetic.signs("projections", count, tensor.device)
    rows = functional.pad(signed, (0, -count % PROJECTIONS)).view(-1, PROJECTIONS)
    return Sketch(tuple(tensor.shape), rows.sum(0).float().cpu())


def sketch_size(name: str, shape: tuple[int, ...]) -> int:
    """How many values the item `name` of a recording has, whose tensor has `shape`."""
    count = math.prod(shape)
    return count if stage_of(name) is Stage.ANSWER else min(count, PROJECTIONS)


@dataclasses.dataclass(kw_only=True, slots=True)
class _Heard:
    """What one generation shows of itself."""

    encodings: dict[str, list[torch.Tensor]] = dataclasses.field(default_factory=dict)
    """Name of a text encoder -> its answers."""
    inputs: dict[str, torch.Tensor] = dataclasses.field(default_factory=dict)
    """Of the transformer's first call, by keyword."""
    answer: torch.Tensor | None = None
    """To that call."""
    schedule: list[torch.Tensor] = dataclasses.field(default_factory=list)
    latents: torch.Tensor | None = None
    output: torch.Tensor | None = None

    def encoded(self, name: str, _module: nn.Module, _arguments: object, output: Any) -> None:
        self.encodings.setdefault(name, []).append(output[0])

    def answered(self, _module: nn.Module, _arguments: object, keywords: dict[str, Any], output: Any) -> None:
        if self.answer is None:
            self.answer = output[0].clone()
            given = {name: keywords.get(name) for name in TEXT_INPUTS}
            self.inputs = {name: each.clone() for name, each in given.items() if each is not None}

    def sketches(self, call: str) -> dict[str, Sketch]:
        """What belongs into the recording; what did not happen is left out."""
        found = {
            **{f"{Stage.EMBEDS}.{call}.{name}": torch.cat(each) for name, each in self.encodings.items()},
            **{f"{Stage.EMBEDS}.{call}.{name}": each for name, each in self.inputs.items()},
        }
        if self.schedule:
            found[f"{Stage.SCHEDULE}.{call}"] = torch.cat(self.schedule)
        for stage, tensor in ((Stage.LATENTS, self.latents), (Stage.PICTURE, self.output)):
            outputs = () if tensor is None else tensor
            found |= {f"{stage}.{call}.{number}": each for number, each in enumerate(outputs)}
        return {name: sketch(tensor) for name, tensor in found.items()}


def _generate(pipeline: Any, spec: PipelineSpec, call: str, workload: Workload) -> _Heard:
    heard = _Heard()
    with contextlib.ExitStack() as attached:
        for name, module in building.components(pipeline).items():
            if name.startswith("text_encoder"):
                attached.callback(module.register_forward_hook(partial(heard.encoded, name)).remove)
        hook = pipeline.transformer.register_forward_hook(heard.answered, with_kwargs=True)
        attached.callback(hook.remove)
        attached.enter_context(_steps_heard(pipeline.scheduler, heard))
        attached.enter_context(_Noise(f"noise.{workload.seed}"))
        output = getattr(pipeline(**arguments(spec, call, workload)), spec.output)
    if call == BATCH:
        heard.output = output
    return heard


@contextmanager
def _steps_heard(scheduler: Any, heard: _Heard) -> Iterator[None]:
    right = scheduler.step

    # `wraps`, because pipelines inspect the signatures of their scheduler's methods.
    @functools.wraps(right)
    def step(answer: torch.Tensor, timestep: Any, *rest: Any, **keywords: Any) -> Any:
        heard.schedule.append(_schedule(scheduler, timestep))
        result = right(answer, timestep, *rest, **keywords)
        heard.latents = result[0]
        return result

    scheduler.step = step
    try:
        yield
    finally:
        scheduler.step = right


def _schedule(scheduler: Any, timestep: Any) -> torch.Tensor:
    """The step's own timestep, all timesteps, and how noisy the scheduler holds the latents to be at them."""
    timesteps = scheduler.timesteps.cpu()
    sigmas = getattr(scheduler, "sigmas", None)
    noise = scheduler.alphas_cumprod.cpu()[timesteps.long()] if sigmas is None else sigmas
    parts = (torch.as_tensor(timestep).reshape(1), timesteps, noise)
    return torch.cat([part.cpu().double() for part in parts])


class _Noise(TorchFunctionMode):
    """Makes `torch.randn` a pure function of the shape: torch's own bits depend on dtype and processor."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self._name = name

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        keywords = kwargs or {}
        if func is not torch.randn:
            return func(*args, **keywords)
        noise = torch.empty(*args, dtype=torch.bfloat16)
        # Viewed as a matrix the noise has a single row; this gain makes its variance 1.
        synthetic.fill(self._name, noise.view(1, -1), gain=math.sqrt(noise.numel()))
        return noise.to(device=keywords.get("device"), dtype=keywords.get("dtype"))
