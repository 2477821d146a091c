"""What quantizing takes on a CPU: operators, and the memory of all weights, old and new, at its peak.

On a GPU the allocator knows the peak, and seconds show a change of kind; on a CPU neither does.
"""

from __future__ import annotations

import functools
import importlib
import warnings
import weakref
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch.profiler import ProfilerActivity, record_function

from perf_tests.tables.recipes import Recipe
from perf_tests.worker.inspection.kernels import MEMORY, OPERATOR, Event, KinetoRecorder, NotCounted
from perf_tests.worker.measure.memory import MIB, plain_tensors
from perf_tests.worker.model.build import components

FREED = "freed bytes: "
"""How the name of an event begins that marks the end of one of the weights that are to be replaced. The
profiler does not tell of it: they were allocated before it started."""
BOOKKEEPING = "profiler::"
"""How the names of the operators begin that such a mark consists of."""


def counting(pipeline: Any, recipe: Recipe, device: torch.device) -> AbstractContextManager[dict[str, float]]:
    """What `counted` yields for `recipe`; nothing on a GPU, and where nothing is quantized."""
    quantizes = recipe.scheme.config is not None and not recipe.is_loaded
    # A search runs and compiles every candidate, which is not what is counted.
    if device.type != "cpu" or not quantizes or recipe.scheme.search:
        return nullcontext({})
    return counted(pipeline, recipe.quantized_components)


@contextmanager
def counted(pipeline: Any, names: tuple[str, ...]) -> Iterator[dict[str, float]]:
    """Metric name -> value for what is done in the block to the components `names`, filled in at its end.

    Stays empty, with a warning in the worker's log, where the profiler refuses.
    """
    values: dict[str, float] = {}
    recorder = KinetoRecorder(ProfilerActivity.CPU, memory=True)
    try:
        recorder.start()
    except NotCounted as exc:
        warnings.warn(f"quantizing was not counted: {exc}", RuntimeWarning, stacklevel=3)
        yield values
        return
    held, marks = _mark_when_freed(pipeline, names)
    try:
        yield values
    finally:
        events = list(recorder.stop())
        for mark in marks:
            mark.detach()
    values["operators_in_quantize"] = float(_operators(events))
    values["quantize_peak_allocated_mib"] = peak_bytes(events, held) / MIB


@contextmanager
def converted() -> Iterator[Counter[str] | None]:
    """Class of configs -> modules that torchao quantizes by one in the block, whoever asks it to; None for a
    torchao that keeps elsewhere what it calls for each."""
    try:
        module = importlib.import_module("torchao.quantization.transform_module")
        handlers = module._QUANTIZE_CONFIG_HANDLER
    except (ImportError, AttributeError):
        yield None
        return
    counts: Counter[str] = Counter()
    before = dict(handlers)

    def counting(name: str, handler: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(handler)
        def count(*arguments: Any, **keywords: Any) -> Any:
            counts[name] += 1
            return handler(*arguments, **keywords)

        return count

    handlers.update({config: counting(config.__name__, handler) for config, handler in before.items()})
    try:
        yield counts
    finally:
        # One that was registered in the block stays.
        handlers.update(before)


def total(*counts: Counter[str] | None) -> int | None:
    """Modules in all that `converted` has counted; None where one of the blocks was not counted."""
    known = [each for each in counts if each is not None]
    return sum(each.total() for each in known) if len(known) == len(counts) else None


def _mark_when_freed(pipeline: Any, names: tuple[str, ...]) -> tuple[int, list[weakref.finalize[Any, Any]]]:
    """How many bytes the weights take, and what marks the end of each; nothing here keeps them alive."""
    parts = components(pipeline)
    parameters = (parameter for name in names for parameter in parts[name].parameters())
    tensors = (plain for parameter in parameters for plain in plain_tensors(parameter))
    storages = {each.data_ptr(): each for each in (tensor.untyped_storage() for tensor in tensors)}
    marks = [weakref.finalize(each, _mark_freed, each.nbytes()) for each in storages.values()]
    return sum(each.nbytes() for each in storages.values()), marks


def _mark_freed(count: int) -> None:
    with record_function(f"{FREED}{count}"):
        pass


def _operators(events: Iterable[Event]) -> int:
    return sum(
        1
        for event in events
        if event.get("cat") == OPERATOR and not event["name"].startswith((BOOKKEEPING, FREED))
    )


def peak_bytes(events: Iterable[Event], held: int) -> int:
    """The most that was allocated at any time, of `held` bytes and all that `events` allocate and free."""
    changes = sorted((float(event["ts"]), change) for event in events if (change := _change(event)))
    peak = current = held
    for _, change in changes:
        current += change
        peak = max(peak, current)
    return peak


def _change(event: Event) -> int:
    name = event.get("name", "")
    if name == MEMORY:
        return int(event["args"]["Bytes"])
    if event.get("cat") == "user_annotation" and name.startswith(FREED):
        return -int(name.removeprefix(FREED))
    return 0
