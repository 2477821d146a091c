"""Choose a scheme for each Linear module: the fastest for its shape whose error on its activations is small.

What torchao's `autoquant` did, with two things that it did not do: a floor for the error of each layer, and a
plan that can be read, and followed by another process.
"""

from __future__ import annotations

import dataclasses
import math
import re
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from perf_tests.protocol.errors import WorkerError
from perf_tests.protocol.messages import FailureKind
from perf_tests.tables.cases import Case
from perf_tests.tables.recipes import CompileMode, Recipe
from perf_tests.tables.schemes.spec import Scheme, Search
from perf_tests.worker.measure import memory
from perf_tests.worker.measure.clock import Clock
from perf_tests.worker.measure.generate import call_arguments
from perf_tests.worker.measure.probe import sqnr_db
from perf_tests.worker.model import compile as compiling
from perf_tests.worker.model.lazy import construct
from perf_tests.worker.quantization import plans, support
from perf_tests.worker.quantization.apply import REFUSALS, Chosen, broken_rule, look
from perf_tests.worker.quantization.plans import AutoquantPlan, CandidateResult, PlanLayer, PlanShape

REPEATS = 21
"""Timed calls of which the median counts, after one that compiles and allocates."""

GIVE_UP_RATIO = 10.0
GIVE_UP_CALLS = 2
"""A candidate is not called again where each of its first timed calls takes this many times the unquantized
layer's: of one alone the host may have been the reason."""

MAX_SQNR_ROWS = 1024
"""Rows of a module's activations, evenly spaced, that its error is taken on. Random ones, with and
without outlier channels, gave within 0.03 dB what all 4608 of them give (as many as FLUX has)."""

# Written before each timed call: the caches (50 MB on an H100) hold nothing of the call before, and for the
# 0.2 ms that it takes at 3 TB/s the host runs ahead, so that the device's time does not hold the host's.
FLUSH_BYTES = 512 << 20

Measure = Callable[[Callable[[], object]], float]
"""Calls once and answers how many milliseconds that took."""


class CallTimer:
    """Times one call by a clock's marks, as the stages of a generation are timed."""

    def __init__(self, clock: Clock, device: torch.device) -> None:
        self._clock = clock
        size = FLUSH_BYTES if device.type == "cuda" else 0
        self._flushed = torch.empty(size, dtype=torch.int8, device=device)

    def __call__(self, call: Callable[[], object]) -> float:
        self._flushed.zero_()
        start = self._clock.mark()
        call()
        end = self._clock.mark()
        self._clock.synchronize()
        return start.until_ms(end)


def choose(pipeline: Any, case: Case, file: Path, measure: Measure, targets: dict[str, nn.Linear]) -> Chosen:
    """A scheme for each of `targets`, modules of the fused and unquantized pipeline of `case`.

    As the plan in `file` says; without one it is searched for, and written. Raises WorkerError(load) for a
    plan that is broken or not of this model and stack, and where it cannot be written.
    """
    search = _search_of(case.build.recipe)
    device = pipeline.transformer.device
    model, stack = plans.model_of(pipeline, case), plans.stack_of(device)
    schemes = {scheme.id: scheme for scheme in search.candidates}
    plan, search_s = plans.load(file, model, stack, targets.keys(), schemes.keys()), None
    if plan is None:
        started_s = time.perf_counter()
        shapes, layers = find(pipeline, case, targets, measure, device)
        plan = AutoquantPlan(
            format_version=plans.FORMAT_VERSION,
            model=model,
            stack=stack,
            search_s=(search_s := time.perf_counter() - started_s),
            min_sqnr_db=search.min_sqnr_db,
            margin_pct=search.margin_pct,
            shapes=shapes,
            layers=layers,
        )
        plans.save(file, plan)
        memory.clear_workspaces()
    return Chosen(
        schemes={name: schemes[plan.layers[name].chosen] for name in targets},
        report=plans.report(file, plan, search_s),
    )


def _search_of(recipe: Recipe) -> Search:
    assert recipe.scheme.search is not None, f"{recipe.scheme.id} is not searched for"
    return recipe.scheme.search


def find(
    pipeline: Any, case: Case, targets: dict[str, nn.Linear], measure: Measure, device: torch.device
) -> tuple[tuple[PlanShape, ...], dict[str, PlanLayer]]:
    """What was timed, by shape, and what was chosen, by module."""
    recipe = case.build.recipe
    search = _search_of(recipe)
    for setting in recipe.settings:
        construct(setting.call)
    usable, unusable = _usable(search, device)
    seen = observe(pipeline, case, targets, usable)
    compiles = recipe.compile is not CompileMode.EAGER
    by_shape = {
        work: _candidates(search, unusable, seen, work, targets[example.name], measure, compiles)
        for work, example in seen.examples.items()
    }
    chosen = _chosen(search, by_shape, seen, recipe.compile)
    works = list(by_shape)
    layers = {
        name: PlanLayer(
            shape=works.index(seen.layers[name].work) if name in seen.layers else None,
            sqnr_db=seen.layers[name].sqnr_db if name in seen.layers else {},
            chosen=chosen.get(name, search.unquantized.id),
        )
        for name in targets
    }
    shapes = tuple(_shape(work, by_shape[work], number, layers) for number, work in enumerate(works))
    return shapes, layers


def _usable(search: Search, device: torch.device) -> tuple[list[Scheme], dict[str, str]]:
    """The candidates that quantize and that stack and device support; the id of each other -> why not."""
    usable, unusable = [], {}
    for scheme in search.candidates:
        try:
            support.check(scheme, device)
        except WorkerError as error:
            if error.failure.kind is not FailureKind.UNSUPPORTED:
                raise
            unusable[scheme.id] = error.failure.message
        else:
            usable.append(scheme)
    return [scheme for scheme in usable if scheme.config is not None], unusable


# The step that is looked at


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Work:
    """What a Linear module has to do."""

    rows: int
    in_features: int
    out_features: int
    bias: bool


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Errors:
    """What the candidates make of one module's output."""

    work: Work
    sqnr_db: dict[str, float]
    refused: dict[str, str]
    """Candidate -> why it has no output."""


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Example:
    """The first module of its work, and the activations it was called with."""

    name: str
    rows: torch.Tensor
    """(rows, in_features), in the memory of the host: the device's is the pipeline's."""


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Seen:
    """Everything that one step shows; a module that it does not call is missing."""

    layers: dict[str, Errors] = dataclasses.field(default_factory=dict)
    examples: dict[Work, Example] = dataclasses.field(default_factory=dict)


def observe(
    pipeline: Any, case: Case, targets: Mapping[str, nn.Linear], candidates: Sequence[Scheme]
) -> Seen:
    """The activations and errors of `targets` in a generation of one step; nothing stays attached.

    Of a module that is called several times the first call counts.
    """
    seen = Seen()

    def look_at(name: str, module: nn.Linear, arguments: tuple[torch.Tensor, ...]) -> None:
        if name in seen.layers:
            return
        rows = arguments[0].detach().reshape(-1, module.in_features)
        work = Work(
            rows=len(rows),
            in_features=module.in_features,
            out_features=module.out_features,
            bias=module.bias is not None,
        )
        if work not in seen.examples:
            # A copy on a CPU, too: models may write into what they have passed.
            seen.examples[work] = Example(name=name, rows=rows.to("cpu", copy=True))
        seen.layers[name] = _errors(work, module, rows, candidates)

    hooks = [module.register_forward_pre_hook(partial(look_at, name)) for name, module in targets.items()]
    workload = dataclasses.replace(case.workload, steps=1, measured_steps=None)
    try:
        pipeline(**call_arguments(case.build.pipeline, workload))
    finally:
        for hook in hooks:
            hook.remove()
    return seen


def _errors(work: Work, module: nn.Linear, rows: torch.Tensor, candidates: Sequence[Scheme]) -> Errors:
    some = rows[:: math.ceil(len(rows) / MAX_SQNR_ROWS)].contiguous()
    reference = _twin(module)(some)
    found = Errors(work=work, sqnr_db={}, refused={})
    for scheme in candidates:
        ratio_db, refusal = _error(work, module, scheme, some, reference)
        if ratio_db is not None:
            found.sqnr_db[scheme.id] = ratio_db
        if refusal is not None:
            found.refused[scheme.id] = refusal
    return found


def _error(
    work: Work, module: nn.Linear, scheme: Scheme, rows: torch.Tensor, reference: torch.Tensor
) -> tuple[float | None, str | None]:
    """SQNR in dB of the module's output under `scheme`, or None and why there is none."""
    if rule := broken_rule(module, scheme):
        return None, rule
    if work.rows < scheme.min_rows:
        return None, f"the kernels need at least {scheme.min_rows} rows"
    try:
        ratio_db = sqnr_db(reference, _quantized(module, scheme)(rows))
    except torch.OutOfMemoryError:
        raise
    except REFUSALS as error:
        return None, _first_line(error)
    return (ratio_db, None) if math.isfinite(ratio_db) else (None, "the output holds NaN or infinity")


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".strip().partition("\n")[0]


def _twin(module: nn.Linear) -> nn.Linear:
    """The weights of `module` in a module without its hooks, which can be quantized in its stead."""
    twin = nn.Linear(module.in_features, module.out_features, bias=module.bias is not None, device="meta")
    twin.weight, twin.bias = module.weight, module.bias
    return twin


def _quantized(module: nn.Linear, scheme: Scheme) -> nn.Module:
    """A copy of `module`, quantized. Raises one of `REFUSALS` where it does not come out as `scheme` says."""
    from torchao.quantization import quantize_

    assert scheme.config is not None, f"{scheme.id} quantizes nothing"
    assert scheme.weight is not None, f"{scheme.id} does not say what it makes of a weight"
    holder = nn.Sequential(_twin(module))
    quantize_(holder, construct(scheme.config))
    weight = holder[0].weight
    assert isinstance(weight, torch.Tensor), "a Linear module has a weight"
    if not scheme.weight.describes(*look(weight, scheme.weight)):
        raise ValueError(f"a weight of this shape does not become what {scheme.id} says")
    return holder[0]


# What it takes


def _candidates(
    search: Search,
    unusable: Mapping[str, str],
    seen: Seen,
    work: Work,
    module: nn.Linear,
    measure: Measure,
    compiles: bool,
) -> dict[str, CandidateResult]:
    """Each candidate on one shape; `module` is an example of it."""
    layers = [errors for errors in seen.layers.values() if errors.work == work]
    rows = seen.examples[work].rows.to(module.weight.device)
    unquantized_ms, _ = timed(search.unquantized, module, rows, measure, compiles=compiles, rival_ms=None)
    found = {search.unquantized.id: CandidateResult(median_ms=unquantized_ms)}
    for scheme in search.candidates:
        if scheme.id in found:
            continue
        ratios_db = [errors.sqnr_db[scheme.id] for errors in layers if scheme.id in errors.sqnr_db]
        reason = unusable.get(scheme.id) or _hopeless(search, scheme, layers, ratios_db)
        median_ms = None
        if reason is None:
            median_ms, reason = timed(
                scheme, module, rows, measure, compiles=compiles, rival_ms=unquantized_ms
            )
        found[scheme.id] = CandidateResult(
            median_ms=median_ms, sqnr_db=min(ratios_db, default=None), reason=reason
        )
    return found


def _hopeless(
    search: Search, scheme: Scheme, layers: Sequence[Errors], ratios_db: Sequence[float]
) -> str | None:
    """Why none of `layers` will be quantized so, however fast it is."""
    if not ratios_db:
        return next(errors.refused[scheme.id] for errors in layers)
    if max(ratios_db) < search.min_sqnr_db:
        return f"no layer of this shape keeps {search.min_sqnr_db:g} dB"
    return None


def timed(
    scheme: Scheme,
    module: nn.Linear,
    rows: torch.Tensor,
    measure: Measure,
    *,
    compiles: bool,
    rival_ms: float | None,
) -> tuple[float | None, str | None]:
    """Median milliseconds of `module` under `scheme`, or None and why there is none.

    `rival_ms` is the unquantized layer's, None for that layer itself, whose errors are not caught.
    """
    try:
        layer = _twin(module) if scheme.config is None else _quantized(module, scheme)
        call: Callable[[], object] = partial(
            torch.compile(layer, **compiling.OPTIONS) if compiles else layer, rows
        )
        with torch.no_grad():
            return median_ms(measure, device_work(call, rows.device) if compiles else call, rival_ms)
    except torch.OutOfMemoryError:
        raise
    except REFUSALS as error:
        if rival_ms is None:
            raise
        return None, _first_line(error)
    finally:
        if compiles:
            # All layers are one function to dynamo, which runs eager beyond a few graphs of a function.
            torch.compiler.reset()


def device_work(call: Callable[[], object], device: torch.device) -> Callable[[], object]:
    """What `call` makes the device do, without the host: a CUDA graph of it; `call` itself on a CPU.

    A layer within a compiled block waits for nothing, but one compiled by itself waits for its guards and
    launches: 0.1 to 0.4 ms on an H100, as long as most layers of FLUX.1-dev take.
    """
    if device.type != "cuda":
        return call
    # Compiled, and all libraries initialised, before it is captured.
    for _ in range(2):
        call()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        call()
    return graph.replay


def median_ms(
    measure: Measure, call: Callable[[], object], rival_ms: float | None
) -> tuple[float | None, str | None]:
    """The median of `REPEATS` calls; None, and why, where the first already take `GIVE_UP_RATIO` times
    `rival_ms`."""
    measure(call)
    first_ms = [measure(call) for _ in range(GIVE_UP_CALLS)]
    if rival_ms is not None and min(first_ms) > GIVE_UP_RATIO * rival_ms:
        return None, (
            f"given up: a call takes {min(first_ms):.3g} ms, and {rival_ms:.3g} ms unquantized, more than "
            f"{GIVE_UP_RATIO:g} times less"
        )
    return statistics.median((*first_ms, *(measure(call) for _ in range(REPEATS - GIVE_UP_CALLS)))), None


# What is chosen


def fastest(search: Search, candidates: Mapping[str, CandidateResult], ratios_db: Mapping[str, float]) -> str:
    """Id of the fastest candidate that keeps the floor and beats the unquantized layer by the margin.

    `ratios_db` is the SQNR of the layer; a candidate that it does not name does not fit the layer.
    """
    unquantized_ms = candidates[search.unquantized.id].median_ms
    assert unquantized_ms is not None, "the unquantized layer is always timed"
    limit_ms = unquantized_ms * (1 - search.margin_pct / 100)
    times_ms = {
        name: candidate.median_ms
        for name, candidate in candidates.items()
        if candidate.median_ms is not None
        and candidate.median_ms <= limit_ms
        and name in ratios_db
        and ratios_db[name] >= search.min_sqnr_db
    }
    return min(times_ms, key=times_ms.__getitem__, default=search.unquantized.id)


def _chosen(
    search: Search, by_shape: Mapping[Work, Mapping[str, CandidateResult]], seen: Seen, mode: CompileMode
) -> dict[str, str]:
    together: dict[tuple[str, Work], list[str]] = defaultdict(list)
    for name, errors in seen.layers.items():
        together[POSITIONS[mode](name), errors.work].append(name)
    chosen: dict[str, str] = {}
    for (_, work), names in together.items():
        choice = fastest(search, by_shape[work], _lowest_db([seen.layers[name] for name in names]))
        chosen |= dict.fromkeys(names, choice)
    return chosen


def _lowest_db(layers: Sequence[Errors]) -> dict[str, float]:
    """Candidate -> the SQNR of the layer that it serves worst; only those which fit all `layers`."""
    common = set.intersection(*(set(errors.sqnr_db) for errors in layers))
    return {name: min(errors.sqnr_db[name] for errors in layers) for name in common}


def _place_in_block(name: str) -> str:
    return re.sub(r"\.\d+\.", ".*.", name, count=1)


POSITIONS: dict[CompileMode, Callable[[str], str]] = {
    CompileMode.EAGER: str,
    CompileMode.FULL: str,
    # Repeated blocks are compiled once only as long as they are alike: with other schemes in a block it would
    # take another graph, and beyond a few of them dynamo runs eager. The worst of the layers decides.
    CompileMode.REGIONAL: _place_in_block,
}
"""Modules that have a name in common get the same choice."""


def _shape(
    work: Work, candidates: dict[str, CandidateResult], number: int, layers: Mapping[str, PlanLayer]
) -> PlanShape:
    chosen = [layer.chosen for layer in layers.values() if layer.shape == number]
    return PlanShape(
        rows=work.rows,
        in_features=work.in_features,
        out_features=work.out_features,
        bias=work.bias,
        candidates=candidates,
        chosen={name: chosen.count(name) for name in candidates if name in chosen},
    )
