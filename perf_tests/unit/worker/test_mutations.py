"""Each mutation is caught at the levels that the table names, and rounding noise at none."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import math
from collections.abc import Iterator
from typing import Any

import msgspec
import numpy as np
import pytest
import torch
from torch import nn

from perf_tests.harness.fidelity import image_metrics
from perf_tests.harness.records.builds import BuildReport
from perf_tests.harness.records.fidelity import Fidelity
from perf_tests.harness.runs.record import Run, Status, Verdict
from perf_tests.harness.stats import observations
from perf_tests.harness.verdicts import build_checks
from perf_tests.harness.verdicts.gates import gated_metrics
from perf_tests.harness.verdicts.judge import judge_metric
from perf_tests.tables.cases import Build, Case
from perf_tests.tables.metrics.spec import Metric
from perf_tests.tables.pipelines.spec import PROMPTS
from perf_tests.tables.platforms import H100
from perf_tests.tables.recipes import Recipe
from perf_tests.tables.schemes.rows import BF16
from perf_tests.unit.builders import (
    H100_UUID,
    make_accepted,
    make_build,
    make_entry,
    make_process,
    make_run,
    make_significance,
)
from perf_tests.unit.worker.mutations import (
    BUILD_CHECK,
    CATASTROPHE,
    METRICS,
    METRICS_OF,
    MUTATIONS,
    UNCHANGED,
    Filter,
    Level,
    Mutation,
    Quantizing,
    unchanged,
)
from perf_tests.worker.fidelity import layers, trace
from perf_tests.worker.measure.generate import call_arguments
from perf_tests.worker.model import build
from perf_tests.worker.quantization import apply

CPU = torch.device("cpu")
MARGIN = 2.0
"""A mutation moves its metric by at least this many tolerances: a single one could be undone by the rounding
of another processor."""
GREEN = frozenset({Status.PASS, Status.IMPROVED})


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Reference:
    """A bf16 pipeline, which tests leave as it is, and its outputs."""

    pipeline: Any
    case: Case
    trace: trace.TransformerTrace
    pictures: tuple[np.ndarray, ...]


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Found:
    """What all levels find in a quantized pipeline, compared with its reference."""

    pipeline: Any
    case: Case
    report: BuildReport
    fidelity: Fidelity
    catastrophes: tuple[str, ...]

    @property
    def run(self) -> Run:
        process = make_process(build=self.report, fidelity=self.fidelity)
        return make_run(self.case, H100, processes=(process,))

    @property
    def metrics(self) -> dict[str, Metric]:
        # The gates of a GPU, which include videos; the tolerances of the CPU platform are the same.
        return {each.name: each for each in gated_metrics(self.case, H100) if each.name in METRICS}

    @property
    def values(self) -> dict[str, tuple[float, ...]]:
        return {
            name: observations.observe(each, self.run, None).values for name, each in self.metrics.items()
        }


class Bench:
    """Builds each bf16 pipeline once, and copies it before it is changed."""

    def __init__(self) -> None:
        self._references: dict[str, Reference] = {}
        self._sound: dict[str, Found] = {}

    def reference(self, mutation: Mutation) -> Reference:
        spec = mutation.pipeline
        workload = spec.workload_of_batch(mutation.images)
        case = Case(build=Build(pipeline=spec, recipe=Recipe(scheme=BF16)), workload=workload)
        if case.id not in self._references:
            self._references[case.id] = observed(build.build(case.build, CPU), case)
        return self._references[case.id]

    def sound(self, mutation: Mutation) -> Found:
        """The baseline: what is found when nothing is wrong."""
        twin = unchanged(mutation)
        if twin.name not in self._sound:
            self._sound[twin.name] = self.find(twin)
        return self._sound[twin.name]

    def find(self, mutation: Mutation) -> Found:
        reference = self.reference(mutation)
        case = reference.case.with_recipe(Recipe(scheme=mutation.scheme))
        pipeline = copy.deepcopy(reference.pipeline)
        with torchao_that(mutation.quantizing):
            quantized = apply.apply(pipeline, case.build)
        errors = layers.compare(pipeline, case, layers.twins(case.build, CPU))
        mutation.assembled(pipeline)
        asked = dataclasses.replace(case, workload=mutation.asked(case.workload))
        shown = tuple(mutation.pictures(each) for each in pictures(pipeline, asked))
        said = map(image_metrics.catastrophe, shown, (each.shape for each in reference.pictures))
        return Found(
            pipeline=pipeline,
            case=case,
            report=make_build(quantization=quantized, layers=errors),
            fidelity=compared(shown, trace.repeat(pipeline, asked, reference.trace, CPU), reference),
            catastrophes=tuple(each for each in said if each is not None),
        )


@pytest.fixture(scope="module")
def bench() -> Bench:
    """Shared, because building takes the longest."""
    return Bench()


def observed(pipeline: Any, case: Case) -> Reference:
    recorded = trace.record(pipeline, case)
    return Reference(pipeline=pipeline, case=case, trace=recorded, pictures=pictures(pipeline, case))


def pictures(pipeline: Any, case: Case) -> tuple[np.ndarray, ...]:
    """An output for each prompt and seed, channels last."""
    spec = case.build.pipeline
    outputs = (
        getattr(pipeline(**call_arguments(spec, case.workload.of_prompt(pair))), spec.output)
        for pair in range(PROMPTS)
    )
    return tuple(output.float().movedim(-3, -1).numpy() for output in outputs)


def compared(shown: tuple[np.ndarray, ...], now: trace.TransformerTrace, reference: Reference) -> Fidelity:
    answers = zip(now.answers, reference.trace.answers, strict=True)
    return msgspec.structs.replace(
        image_metrics.compare_pairs(list(zip(shown, reference.pictures, strict=True))),
        step_sqnrs_db=tuple(image_metrics.sqnr_db(each.numpy(), wanted.numpy()) for each, wanted in answers),
        latents_sqnr_db=image_metrics.sqnr_db(now.latents.numpy(), reference.trace.latents.numpy()),
    )


@contextlib.contextmanager
def torchao_that(quantizing: Quantizing) -> Iterator[None]:
    """Replaces torchao's `quantize_` with `quantizing`."""
    import torchao.quantization  # here: takes seconds

    right = torchao.quantization.quantize_

    def wrong(module: nn.Module, config: Any, filter_fn: Filter) -> None:
        quantizing(right, module, config, filter_fn)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(torchao.quantization, "quantize_", wrong)
        yield


def red(found: Found, before: Found) -> dict[str, Verdict | None]:
    """What is wrong with `found`: each metric that has regressed from `before`, and what is not a metric."""
    verdicts: dict[str, Verdict | None] = {
        name: verdict
        for name in found.metrics
        if (verdict := judged(found, before, name)).status not in GREEN
    }
    told = {
        BUILD_CHECK: build_checks.contradictions(found.case, found.report),
        CATASTROPHE: found.catastrophes,
    }
    return verdicts | {name: None for name, sentences in told.items() if sentences}


def judged(found: Found, before: Found, name: str) -> Verdict:
    return judge_metric(
        found.metrics[name],
        case=found.case,
        platform=H100,
        run=found.run,
        reference=None,
        accepted=make_accepted(
            make_entry(before.values, case=before.case, layers=before.report.layers), unit=H100_UUID
        ),
        unit=H100_UUID,
        significance=make_significance(),
    )


def tolerances(verdict: Verdict) -> float:
    """By how many tolerances the metric has moved; infinitely many where other layers are quantized."""
    if verdict.measured is None or verdict.baseline is None or verdict.limit is None:
        return math.inf
    return (verdict.measured - verdict.baseline) / (verdict.limit - verdict.baseline)


def test_mutations_use_every_level() -> None:
    assert len({each.name for each in MUTATIONS}) == 17
    assert len({each.quantizing for each in MUTATIONS} | {each.assembled for each in MUTATIONS}) == 11
    caught = [(level, name) for each in MUTATIONS for level, name in each.caught.items()]
    assert {level for level, _ in caught} == set(Level)
    assert all(name in METRICS_OF[level] for level, name in caught)


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.name)
def test_a_mutation_is_caught_where_the_table_says(bench: Bench, mutation: Mutation) -> None:
    wrong = red(bench.find(mutation), bench.sound(mutation))
    assert set(mutation.caught.values()) <= wrong.keys()
    verdicts = [verdict for name in mutation.caught.values() if (verdict := wrong[name])]
    assert [each.status for each in verdicts] == [Status.REGRESSED] * len(verdicts)
    assert min(map(tolerances, verdicts), default=math.inf) > MARGIN


@pytest.mark.parametrize("same", UNCHANGED, ids=lambda same: same.name)
def test_unchanged_code_is_green(bench: Bench, same: Mutation) -> None:
    assert red(bench.find(same), bench.sound(same)) == {}


@contextlib.contextmanager
def rounded_otherwise(pipeline: Any, seed: int) -> Iterator[None]:
    """Starts from noise that is rounded to bf16 differently, so that all later roundings differ as well."""
    right = pipeline.prepare_latents

    def prepare(*arguments: Any, **keywords: Any) -> Any:
        noise, ids = right(*arguments, **keywords)
        share = torch.rand(noise.shape, generator=torch.Generator().manual_seed(seed)) - 0.5
        moved = noise.float() * (1 + share * torch.finfo(torch.bfloat16).eps)
        return moved.to(noise.dtype), ids

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(pipeline, "prepare_latents", prepare)
        yield


@pytest.mark.parametrize("seed", range(20))
def test_rounding_noise_of_bf16_is_green(bench: Bench, seed: int) -> None:
    before, reference = bench.sound(MUTATIONS[0]), bench.reference(MUTATIONS[0])
    with rounded_otherwise(reference.pipeline, seed), rounded_otherwise(before.pipeline, seed):
        otherwise = observed(reference.pipeline, reference.case)
        now = trace.repeat(before.pipeline, before.case, otherwise.trace, CPU)
        noisy = compared(pictures(before.pipeline, before.case), now, otherwise)
    assert noisy.step_sqnrs_db != before.fidelity.step_sqnrs_db
    assert red(dataclasses.replace(before, fidelity=noisy), before) == {}
