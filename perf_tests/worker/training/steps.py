"""Training steps: a batch's gradients and the optimizer's step, timed one by one."""

from __future__ import annotations

import hashlib
import itertools
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from perf_tests.protocol.errors import WorkerError
from perf_tests.protocol.messages import Failure, FailureKind, Phase
from perf_tests.tables.metrics.spec import TRAIN_STEP
from perf_tests.tables.training.spec import Training
from perf_tests.worker.measure.clock import Clock
from perf_tests.worker.measure.generate import quiet
from perf_tests.worker.training.adapters import Adapters
from perf_tests.worker.training.batches import Batch


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingRun:
    """Some steps in a row, from the same adapters as any other."""

    values: dict[str, tuple[float, ...]]
    """Metric name -> measured values; of the steps, without the first, in which the optimizer makes its
    state."""
    losses: tuple[float, ...]
    """Of each step, before the optimizer changes anything."""

    @property
    def sha256(self) -> str:
        """Of the losses as float32."""
        return hashlib.sha256(torch.tensor(self.losses).numpy().tobytes()).hexdigest()


def loss(transformer: nn.Module, batch: Batch) -> torch.Tensor:
    """How far the answer of the transformer is from what it is to be, in float32."""
    (answer,) = transformer(**batch.arguments)
    return F.mse_loss(answer.float(), batch.target)


def optimizer(adapters: Adapters, training: Training) -> torch.optim.Optimizer:
    """A new one, which knows nothing of earlier steps."""
    return torch.optim.AdamW(adapters.parameters.values(), lr=training.learning_rate)


def train(
    transformer: nn.Module,
    adapters: Adapters,
    training: Training,
    batches: Sequence[Batch],
    clock: Clock,
    before_mark: Callable[[str], None] = lambda _: None,
) -> TrainingRun:
    """Train one step for each of `batches`, and leave the adapters as they were before.

    `before_mark` is called before the end of each step. Raises WorkerError(numerics) for a loss that is not
    finite.
    """
    adapters.reset()
    updates = optimizer(adapters, training)
    losses = []
    with quiet(clock):
        started_s = time.perf_counter()
        marks = [clock.mark()]
        for batch in batches:
            of_batch = loss(transformer, batch)
            of_batch.backward()
            updates.step()
            updates.zero_grad()
            losses.append(of_batch.detach())
            before_mark(TRAIN_STEP)
            marks.append(clock.mark())
        clock.synchronize()
        latency_s = time.perf_counter() - started_s
    adapters.reset()
    steps_ms = [a.until_ms(b) for a, b in itertools.pairwise(marks)]
    found = tuple(torch.stack(losses).tolist())
    _check(found)
    size = len(batches[0].target)
    steady_ms = tuple(steps_ms[1:] or steps_ms)
    values = {
        TRAIN_STEP: steady_ms,
        "trained_samples_per_s": (size * 1e3 / statistics.median(steady_ms),),
        "train_losses": found,
        "latency_s": (latency_s,),
        "device_latency_s": (marks[0].until_ms(marks[-1]) / 1e3,),
    }
    return TrainingRun(values=values, losses=found)


def first_gradients(transformer: nn.Module, adapters: Adapters, batch: Batch) -> torch.Tensor:
    """Those of all adapters for one batch, as one vector on the host."""
    adapters.reset()
    loss(transformer, batch).backward()
    found = adapters.gradients()
    adapters.reset()
    return found


def _check(losses: Sequence[float]) -> None:
    wrong = [each for each in losses if not torch.isfinite(torch.tensor(each))]
    if wrong:
        message = f"the loss of a training step is {wrong[0]}"
        raise WorkerError(Failure(kind=FailureKind.NUMERICS, phase=Phase.GENERATE, message=message))
