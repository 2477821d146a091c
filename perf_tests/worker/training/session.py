"""The life of a build that trains: one method per request, in the order in which the parent asks."""

from __future__ import annotations

import hashlib
import time
import warnings
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

import torch
import torch.nn.functional as F
from torch import nn

from perf_tests.protocol import messages, reports
from perf_tests.protocol.training import TrainingReport
from perf_tests.tables.cases import Case
from perf_tests.tables.platforms import Device
from perf_tests.tables.training.spec import Training
from perf_tests.worker import phases
from perf_tests.worker.inspection import counters
from perf_tests.worker.inspection.kernels import NotCounted
from perf_tests.worker.measure import memory
from perf_tests.worker.measure.telemetry import GpuMonitor
from perf_tests.worker.model import build
from perf_tests.worker.phases import CompiledWorkload, LoadedPipeline
from perf_tests.worker.quantization import state
from perf_tests.worker.training import float8, products, rounding, steps
from perf_tests.worker.training.adapters import Adapters
from perf_tests.worker.training.batches import Batch, batches
from perf_tests.worker.training.steps import TrainingRun

TRANSFORMER: Final = "transformer"
PRIMING_STEPS: Final = 2
"""A second step, because the optimizer has a state from then on."""
WARM_UP_STEPS: Final[Mapping[Device, int | None]] = {Device.CPU: 1, Device.CUDA: None}
"""Steps of a warm-up; None: all of them, since a GPU has to reach its clocks."""


@dataclass(frozen=True, slots=True, kw_only=True)
class InBf16:
    """What the same transformer did before anything was converted or compiled."""

    losses: tuple[float, ...]
    gradients: torch.Tensor
    """Of the first step."""
    redrawn: torch.Tensor
    """The same with other noise."""
    rounded: torch.Tensor | None
    """The same with the factors of each product rounded to float8; None where none is to be in float8."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Converted:
    """The transformer as it is trained."""

    adapters: Adapters
    wanted: frozenset[str]
    """Names of the Linear modules that are to multiply in float8."""
    in_bf16: InBf16
    frozen: dict[str, str]
    """Name -> hash of what is not trained, before the first step."""
    values: dict[str, float]
    """Metric name -> value."""


class TrainingSession:
    """Holds one transformer from `Load` to `Inspect`, and trains the same adapters again and again."""

    _case: Case
    _loaded: LoadedPipeline
    _converted: Converted
    _compiled: CompiledWorkload

    def __init__(self, monitor: GpuMonitor | None) -> None:
        self._monitor = monitor
        self._runs: list[TrainingRun] = []
        """Whole ones of the first seed."""

    @property
    def _training(self) -> Training:
        training = self._case.build.recipe.training
        assert training is not None, f"{self._case.id} does not train"
        return training

    @property
    def _transformer(self) -> nn.Module:
        transformer: nn.Module = self._loaded.pipeline.transformer
        return transformer

    def load(self, request: messages.Load) -> messages.Loaded:
        """Build the transformer on the device."""
        self._case = request.case
        self._loaded, reply = phases.load(
            request,
            self._monitor,
            lambda device: build.Alone(build.component(request.case.build, TRANSFORMER, device)),
        )
        return reply

    def quantize(self, _request: messages.Quantize) -> messages.Quantized:
        """Train in bf16, to compare with; then convert what the recipe converts, and add the adapters."""
        loaded, training = self._loaded, self._training
        torch.backends.cuda.enable_cudnn_sdp(training.cudnn_attention)
        if training.checkpointing:
            self._loaded.pipeline.transformer.enable_gradient_checkpointing()
        wanted = float8.wanted(self._transformer, training)
        started_s = time.perf_counter()
        in_bf16 = self._train_in_bf16(wanted)
        fidelity_s = time.perf_counter() - started_s
        memory.clear_workspaces()
        loaded.release()
        loaded.meter.reset()
        started_s = time.perf_counter()
        float8.convert(self._transformer, training, sorted(wanted)[loaded.faults.dropped_modules :])
        adapters = Adapters(self._transformer, training)
        loaded.stages.clock.synchronize()
        seconds = time.perf_counter() - started_s
        window = loaded.end_window()
        values = {
            "model_memory_mib": memory.model_mib(loaded.pipeline, loaded.device),
            "float8_modules": float(len(float8.converted(self._transformer))),
            "adapter_elements": float(sum(each.numel() for each in adapters.parameters.values())),
        }
        self._converted = Converted(
            adapters=adapters, wanted=wanted, in_bf16=in_bf16, frozen=self._hashes(adapters), values=values
        )
        # No weight is quantized: float8 copies are made in each step.
        report = reports.Quantization(expected_modules=0, groups=(), excluded={}, unquantized=())
        return messages.Quantized(seconds=seconds, memory=window, quantization=report, fidelity_s=fidelity_s)

    def compile(self, request: messages.Compile) -> messages.Compiled:
        """Compile by training for the first time."""
        priming = PRIMING_STEPS if self._case.build.recipe.compiles else 1
        self._compiled, reply = phases.compile(
            request, self._loaded, self._case.build, lambda: self._train(steps_of=priming)
        )
        return reply

    def generate(self, request: messages.Generate) -> messages.Generated:
        """Train all steps of one seed, or fewer to warm up, and forget them."""
        loaded = self._loaded
        if not request.warmup:
            loaded.faults.strike(loaded.pipeline)
        if loaded.gpu:
            loaded.gpu.begin()
        fewer = WARM_UP_STEPS[Device(loaded.device.type)] if request.warmup else None
        run = self._train(pair=request.pair, steps_of=fewer)
        clocks = loaded.gpu.values() if loaded.gpu else {}
        telemetry = loaded.gpu.read() if loaded.gpu else None
        loaded.meter.look()
        if request.warmup:
            self._compiled.warmed_up()
            loaded.arm(run.values, self._compiled.window)
        if request.pair == 0 and fewer is None:
            self._runs.append(run)
        sample = reports.Sample(
            values=run.values | clocks, output_sha256=run.sha256, telemetry=telemetry, pair=request.pair
        )
        return messages.Generated(sample=sample)

    def inspect(self, _request: messages.Inspect) -> messages.Inspected:
        """Compare with bf16, and look at one more step of what was timed."""
        loaded, compiled, converted = self._loaded, self._compiled, self._converted
        window = loaded.meter.read()
        counted = compiled.counts()
        failed = counters.guard_failures() - compiled.guards_after_warmup
        values = {
            **loaded.values,
            **converted.values,
            **counted,
            **memory.peaks([compiled.window, window]),
            **self._loss_values(),
        }
        recorded, idle = self._look_at_a_step(values)
        frozen = self._hashes(converted.adapters)
        names = frozen.keys() | converted.frozen.keys()
        is_float8 = float8.converted(self._transformer)
        report = TrainingReport(
            expected_float8=len(converted.wanted),
            float8=len(is_float8),
            wrong_linears=tuple(sorted(is_float8 ^ converted.wanted)),
            adapters=len(converted.adapters.parameters),
            adapter_dtypes=converted.adapters.dtypes,
            idle_adapters=idle,
            frozen=len(frozen),
            frozen_sha256=(_of_all(converted.frozen), _of_all(frozen)),
            changed=tuple(sorted(name for name in names if frozen.get(name) != converted.frozen.get(name))),
            kernels=None if recorded is None else recorded.report,
        )
        return messages.Inspected(
            values=values,
            memory=window,
            guard_failures=tuple(failed),
            training=report,
        )

    def _train(self, *, pair: int = 0, steps_of: int | None = None) -> TrainingRun:
        loaded = self._loaded
        given = batches(self._case, loaded.device, pair=pair)[:steps_of]
        return steps.train(
            self._transformer,
            self._converted.adapters,
            self._training,
            given,
            loaded.stages.clock,
            loaded.faults.before_mark,
        )

    def _train_in_bf16(self, wanted: Collection[str]) -> InBf16:
        device, training, transformer = self._loaded.device, self._training, self._transformer
        given = batches(self._case, device)
        redrawn = batches(self._case, device, redrawn=True)
        rounded = self._rounded_gradients(wanted, given[0])
        with _adapted(transformer, training) as adapters:
            return InBf16(
                losses=steps.train(transformer, adapters, training, given, self._loaded.stages.clock).losses,
                gradients=steps.first_gradients(transformer, adapters, given[0]),
                redrawn=steps.first_gradients(transformer, adapters, redrawn[0]),
                rounded=rounded,
            )

    def _rounded_gradients(self, wanted: Collection[str], batch: Batch) -> torch.Tensor | None:
        transformer, training = self._transformer, self._training
        if training.float8 is None:
            return None
        # Rounding comes first, since a module with an adapter has another name.
        with (
            rounding.rounded(transformer, training.float8, wanted),
            _adapted(transformer, training) as adapters,
        ):
            return steps.first_gradients(transformer, adapters, batch)

    def _look_at_a_step(
        self, values: dict[str, float]
    ) -> tuple[products.RecordedStep | None, tuple[str, ...]]:
        """What carried out the first step, and the adapters that it did not train; adds to `values` what the
        step shows."""
        converted, transformer = self._converted, self._transformer
        adapters, clock = converted.adapters, self._loaded.stages.clock
        batch = batches(self._case, self._loaded.device)[0]
        adapters.reset()
        updates = steps.optimizer(adapters, self._training)
        recorded = None
        try:
            recorded = products.record(lambda: steps.loss(transformer, batch), clock, self._loaded.device)
            values |= recorded.values
        except NotCounted as why:
            message = f"what multiplies in float8 was not recorded: {why}"
            warnings.warn(message, RuntimeWarning, stacklevel=2)
            steps.loss(transformer, batch).backward()
        values |= _distances(adapters.gradients(), converted.in_bf16)
        idle = set(adapters.without_gradient())
        before = {name: each.detach().clone() for name, each in adapters.parameters.items()}
        updates.step()
        idle |= {name for name, each in adapters.parameters.items() if torch.equal(each, before[name])}
        adapters.reset()
        return recorded, tuple(sorted(idle))

    def _loss_values(self) -> dict[str, float]:
        """Of the first seed: the last of the losses, and how far all of them lie from those of bf16."""
        wanted = self._converted.in_bf16.losses
        if not self._runs:
            return {}
        off_pct = [100 * abs(sum(run.losses) / sum(wanted) - 1) for run in self._runs]
        largest_pct = [
            100 * abs(mine / of_bf16 - 1)
            for run in self._runs
            for mine, of_bf16 in zip(run.losses, wanted, strict=True)
        ]
        return {
            "train_loss": self._runs[-1].losses[-1],
            "loss_difference_pct": max(off_pct),
            "largest_loss_difference_pct": max(largest_pct),
        }

    def _hashes(self, adapters: Adapters) -> dict[str, str]:
        """Name -> hash of each tensor of the transformer that is not trained."""
        trained = {f"{TRANSFORMER}.{name}" for name in adapters.parameters}
        found = state.hashes(self._loaded.pipeline, (TRANSFORMER,))
        return {name: each for name, each in found.items() if name not in trained}


@contextmanager
def _adapted(transformer: nn.Module, training: Training) -> Iterator[Adapters]:
    adapters = Adapters(transformer, training)
    try:
        yield adapters
    finally:
        adapters.remove()


def _distances(gradients: torch.Tensor, in_bf16: InBf16) -> dict[str, float]:
    """Metric name -> how close the gradients come to those of bf16, beside how close others come."""

    def cosine(to: torch.Tensor) -> float:
        return float(F.cosine_similarity(to.double(), in_bf16.gradients.double(), dim=0))

    mine = cosine(gradients)
    others = {"gradient_error_vs_redrawn": in_bf16.redrawn, "gradient_error_vs_rounded": in_bf16.rounded}
    values = {"gradient_cosine": mine}
    for name, other in others.items():
        error = 0.0 if other is None else 1 - cosine(other)
        if error > 0:  # what changes nothing would leave nothing to compare with
            values[name] = max(0.0, 1 - mine) / error
    return values


def _of_all(hashes: Mapping[str, str]) -> str:
    joined = "\n".join(f"{name} {each}" for name, each in sorted(hashes.items()))
    return hashlib.sha256(joined.encode()).hexdigest()
