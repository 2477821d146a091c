"""Choose a scheme for each Linear module: the fastest for its shape whose error on its activations is small.

Like torchao's former `autoquant`, with two additions: a floor for the error of each layer, and a plan that
people can read and another process can follow.
"""

from __future__ import annotations

import re
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
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
from perf_tests.worker.model.lazy import construct
from perf_tests.worker.quantization import layer_errors, plans, support
from perf_tests.worker.quantization.apply import Chosen
from perf_tests.worker.quantization.layer_errors import CandidateErrors, LayerWork, ObservedStep
from perf_tests.worker.quantization.layer_timing import Measure, timed
from perf_tests.worker.quantization.plans import AutoquantPlan, CandidateResult, PlanLayer, PlanShape


def choose(pipeline: Any, case: Case, file: Path, measure: Measure, targets: dict[str, nn.Linear]) -> Chosen:
    """A scheme for each of `targets`, modules of the fused and unquantized pipeline of `case`.

    The plan in `file` decides; if there is none, it is searched for and written. Raises WorkerError(load) for
    a plan that is broken or belongs to another model or stack, and where it cannot be written.
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
    assert recipe.scheme.search is not None, f"{recipe.scheme.id} has no search"
    return recipe.scheme.search


def find(
    pipeline: Any, case: Case, targets: dict[str, nn.Linear], measure: Measure, device: torch.device
) -> tuple[tuple[PlanShape, ...], dict[str, PlanLayer]]:
    """What was timed, for each shape, and what was chosen, for each module."""
    recipe = case.build.recipe
    search = _search_of(recipe)
    for setting in recipe.settings:
        construct(setting.call)
    usable, unusable = _usable(search, device)
    seen = layer_errors.observe(pipeline, case, targets, usable)
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
    """The candidates that quantize and are supported here, and the id of each unsupported one -> why."""
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


def _candidates(
    search: Search,
    unusable: Mapping[str, str],
    seen: ObservedStep,
    work: LayerWork,
    module: nn.Linear,
    measure: Measure,
    compiles: bool,
) -> dict[str, CandidateResult]:
    """The result of each candidate for one shape, of which `module` is an example."""
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
    search: Search, scheme: Scheme, layers: Sequence[CandidateErrors], ratios_db: Sequence[float]
) -> str | None:
    """Why no layer could take `scheme`, however fast it is; None where one could."""
    if not ratios_db:
        return next(errors.refused[scheme.id] for errors in layers)
    if max(ratios_db) < search.min_sqnr_db:
        return f"no layer of this shape keeps {search.min_sqnr_db:g} dB"
    return None


def fastest(search: Search, candidates: Mapping[str, CandidateResult], ratios_db: Mapping[str, float]) -> str:
    """Id of the fastest candidate that keeps the floor and beats the unquantized layer by the margin.

    `ratios_db` is candidate -> SQNR of the layer; a candidate that is missing there does not fit the layer.
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
    search: Search,
    by_shape: Mapping[LayerWork, Mapping[str, CandidateResult]],
    seen: ObservedStep,
    mode: CompileMode,
) -> dict[str, str]:
    """Name of each module that the step calls -> id of its scheme."""
    together: dict[tuple[str, LayerWork], list[str]] = defaultdict(list)
    for name, errors in seen.layers.items():
        together[POSITIONS[mode](name), errors.work].append(name)
    chosen: dict[str, str] = {}
    for (_, work), names in together.items():
        choice = fastest(search, by_shape[work], _lowest_db([seen.layers[name] for name in names]))
        chosen |= dict.fromkeys(names, choice)
    return chosen


def _lowest_db(layers: Sequence[CandidateErrors]) -> dict[str, float]:
    """Candidate -> its lowest SQNR over `layers`; only candidates that fit all of them."""
    common = set.intersection(*(set(errors.sqnr_db) for errors in layers))
    return {name: min(errors.sqnr_db[name] for errors in layers) for name in common}


def _position_in_block(name: str) -> str:
    return re.sub(r"\.\d+\.", ".*.", name, count=1)


POSITIONS: dict[CompileMode, Callable[[str], str]] = {
    CompileMode.EAGER: str,
    CompileMode.FULL: str,
    CompileMode.MAX_AUTOTUNE: str,
    # Repeated blocks are compiled once only while they are alike: a block with other schemes takes another
    # graph, and beyond a few graphs dynamo runs eager. So the worst layer decides for the same layer of all.
    CompileMode.REGIONAL: _position_in_block,
}
"""Name of a module -> position; all modules of one position and work get the same scheme."""


def _shape(
    work: LayerWork, candidates: dict[str, CandidateResult], number: int, layers: Mapping[str, PlanLayer]
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
