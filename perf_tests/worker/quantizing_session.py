"""The life of a model that is only quantized and moved: one method per request, as the parent asks."""

from __future__ import annotations

import hashlib
import itertools
import time
from collections import Counter
from collections.abc import Iterable
from typing import Final

import torch
from torch import nn

from perf_tests.protocol import messages, reports
from perf_tests.protocol.errors import WorkerError
from perf_tests.protocol.offloading import Placement
from perf_tests.tables.cases import Case
from perf_tests.tables.metrics.spec import ANSWER
from perf_tests.tables.recipes import QuantizedOn
from perf_tests.worker import phases
from perf_tests.worker.inspection import counters, probe, quantizing
from perf_tests.worker.measure import memory
from perf_tests.worker.measure.generate import quiet
from perf_tests.worker.measure.memory import MIB, plain_tensors
from perf_tests.worker.measure.telemetry import GpuMonitor
from perf_tests.worker.model import build
from perf_tests.worker.phases import CompiledWorkload, LoadedPipeline
from perf_tests.worker.quantization import apply, state

TRANSFORMER: Final = "transformer"
HOST: Final = torch.device("cpu")
FLOAT32_COPIES: Final = 3
"""What quantizing one weight may take, in sizes of that weight in float32."""


class QuantizingSession:
    """Holds one model from `Load`, which leaves it on the host, to `Inspect`."""

    _case: Case
    _loaded: LoadedPipeline
    _compiled: CompiledWorkload
    _unquantized: torch.Tensor
    """The logits of the first question, before anything was quantized; on the host."""
    _before: dict[str, int]
    _values: dict[str, float]

    def __init__(self, monitor: GpuMonitor | None) -> None:
        self._monitor = monitor

    @property
    def _model(self) -> nn.Module:
        model: nn.Module = self._loaded.pipeline.transformer
        return model

    def load(self, request: messages.Load) -> messages.Loaded:
        """Make the weights on the device, which is fastest, let the model answer, and move it to the host."""
        self._case = request.case
        self._loaded, reply = phases.load(request, self._monitor, self._made)
        return reply

    def quantize(self, request: messages.Quantize) -> messages.Quantized:
        """Quantize and move, in the order of the recipe."""
        loaded, recipe = self._loaded, self._case.build.recipe
        self._before = bytes_by_device(self._model)
        memory.clear_workspaces()
        loaded.release()
        loaded.meter.reset()
        started_s = time.perf_counter()
        counting = quantizing.counting(loaded.pipeline, recipe, loaded.device)
        with quantizing.converted() as converted, counting as counted:
            report, move_s = self._quantize_and_move()
        loaded.stages.clock.synchronize()
        seconds = time.perf_counter() - started_s
        loaded.faults.rescale(loaded.pipeline)
        window = loaded.end_window()
        self._values = {
            **counted,
            **state.values(loaded.pipeline, loaded.device, report, recipe),
            **self._peak_vs_needed(window),
            **({} if move_s is None else {"move_s": move_s}),
        }
        return messages.Quantized(
            seconds=seconds,
            memory=window,
            quantization=report,
            state=state.read(loaded.pipeline, self._case.build),
            tensors=state.hashes(loaded.pipeline, recipe.quantized_components) if request.tensors else {},
            converted=quantizing.total(loaded.converted, converted),
        )

    def compile(self, request: messages.Compile) -> messages.Compiled:
        """Answer for the first time; nothing is compiled."""
        self._compiled, reply = phases.compile(request, self._loaded, self._case.build, self._answer)
        logits = _logits(self._model, self._tokens(0).to(self._loaded.device))
        self._values["answer_sqnr_db"] = probe.sqnr_db(self._unquantized, logits.cpu())
        return reply

    def generate(self, request: messages.Generate) -> messages.Generated:
        """Answer the question of one seed."""
        loaded = self._loaded
        if not request.warmup:
            loaded.faults.strike(loaded.pipeline)
        if loaded.gpu:
            loaded.gpu.begin()
        values, digest = self._answer(request.pair)
        clocks = loaded.gpu.values() if loaded.gpu else {}
        telemetry = loaded.gpu.read() if loaded.gpu else None
        loaded.meter.look()
        if request.warmup:
            self._compiled.warmed_up()
            loaded.arm(values, self._compiled.window)
        sample = reports.Sample(
            values=values | clocks, output_sha256=digest, telemetry=telemetry, pair=request.pair
        )
        return messages.Generated(sample=sample)

    def inspect(self, _request: messages.Inspect) -> messages.Inspected:
        """Look at where everything is, once the last question was answered."""
        loaded, compiled = self._loaded, self._compiled
        window, counted = loaded.meter.read(), compiled.counts()
        return messages.Inspected(
            values={
                **loaded.values,
                **self._values,
                **counted,
                **memory.peaks([compiled.window, window]),
            },
            memory=window,
            guard_failures=tuple(counters.guard_failures() - compiled.guards_after_warmup),
            state=state.read(loaded.pipeline, self._case.build),
            placement=Placement(
                device=loaded.device.type,
                before=self._before,
                after=bytes_by_device(self._model),
                plain=plain_modules(self._model),
            ),
        )

    def _made(self, device: torch.device) -> build.Alone:
        model = build.component(self._case.build, TRANSFORMER, device)
        self._unquantized = _logits(model, self._tokens(0).to(device)).cpu()
        return build.Alone(model.to(HOST))

    def _quantize_and_move(self) -> tuple[reports.Quantization, float | None]:
        """What was quantized, and the seconds of moving; None where they cannot be told apart."""
        loaded, where = self._loaded, self._case.build.recipe.quantized_on
        move_s = self._move() if where is QuantizedOn.DEVICE else None
        report = apply.apply(
            loaded.pipeline,
            self._case.build,
            drop=loaded.faults.dropped_modules,
            device=loaded.device if where is QuantizedOn.MODULE else HOST,
        )
        return report, self._move() if where is QuantizedOn.HOST else move_s

    def _move(self) -> float:
        started_s = time.perf_counter()
        self._model.to(self._loaded.device)
        self._loaded.stages.clock.synchronize()
        return time.perf_counter() - started_s

    def _peak_vs_needed(self, window: reports.MemoryWindow) -> dict[str, float]:
        """Metric name -> value: the peak, over what had to be on the device; empty on a CPU."""
        if window.allocated_mib is None:
            return {}
        moved_first = self._case.build.recipe.quantized_on is QuantizedOn.DEVICE
        weights = self._before if moved_first else bytes_by_device(self._model)
        largest = max(each.weight.numel() for _, each in apply.linear_modules(self._loaded.pipeline))
        needed = sum(weights.values()) + FLOAT32_COPIES * largest * torch.float32.itemsize
        return {"quantize_peak_vs_needed": window.allocated_mib * MIB / needed}

    def _answer(self, pair: int = 0) -> tuple[dict[str, tuple[float, ...]], str]:
        """Metric name -> value, and the hash of the logits as float32. Raises WorkerError(numerics) for a
        logit that is not finite."""
        loaded, clock = self._loaded, self._loaded.stages.clock
        tokens = self._tokens(pair).to(loaded.device)
        with quiet(clock):
            started_s, started = time.perf_counter(), clock.mark()
            logits = _logits(self._model, tokens)
            loaded.faults.before_mark(ANSWER)
            ended = clock.mark()
            clock.synchronize()
            latency_s = time.perf_counter() - started_s
        if not bool(torch.isfinite(logits).all()):
            message = "a logit is not finite"
            raise WorkerError(
                messages.Failure(
                    kind=messages.FailureKind.NUMERICS, phase=messages.Phase.GENERATE, message=message
                )
            )
        digest = hashlib.sha256(logits.float().cpu().numpy().tobytes()).hexdigest()
        answer_ms = started.until_ms(ended)
        values = {ANSWER: answer_ms, "latency_s": latency_s, "device_latency_s": answer_ms / 1e3}
        return {name: (value,) for name, value in values.items()}, digest

    def _tokens(self, pair: int) -> torch.Tensor:
        workload = self._case.workload.of_prompt(pair)
        count = self._case.build.pipeline.modules[TRANSFORMER].config["vocab_size"]
        assert isinstance(count, int), "the row of the model says how many tokens it knows"
        generator = torch.Generator().manual_seed(workload.seed)
        return torch.randint(count, (workload.batch_size, workload.width), generator=generator)


def _logits(model: nn.Module, tokens: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        logits: torch.Tensor = model(input_ids=tokens, use_cache=False).logits
    return logits


def bytes_by_device(model: nn.Module) -> dict[str, int]:
    """Type of device -> bytes of the parameters and buffers that are there."""
    found: Counter[str] = Counter()
    tensors: Iterable[torch.Tensor] = itertools.chain(model.parameters(), model.buffers())
    # What the wrapper of a tensor subclass says of its device need not be true.
    for plain in itertools.chain.from_iterable(map(plain_tensors, tensors)):
        found[plain.device.type] += plain.nbytes
    return dict(found)


def plain_modules(model: nn.Module) -> dict[str, int]:
    """Class of modules -> how many have parameters of their own, none of them quantized."""
    own = ((module, list(module.parameters(recurse=False))) for module in model.modules())
    plain = (module for module, found in own if found and all(type(each) is nn.Parameter for each in found))
    return dict(Counter(type(module).__name__ for module in plain))
