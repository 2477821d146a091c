"""Cases of one size, and what was recorded of them, for the tests of planning."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from perf_tests.harness.planning.relatives import RecordedCase
from perf_tests.tables.cases import Build, Case, Weights
from perf_tests.tables.pipelines.flux import FLUX1_DEV
from perf_tests.tables.pipelines.spec import PipelineSpec, Workload
from perf_tests.tables.recipes import CompileMode, Offload, Recipe, Setting
from perf_tests.tables.schemes.rows import BF16
from perf_tests.tables.schemes.spec import Scheme
from perf_tests.unit.builders import make_entry

STAGES = {"encode_ms": [100.0], "first_step_ms": [300.0], "denoise_step_ms": [200.0], "decode_ms": [500.0]}
"""Median milliseconds."""


def case_of(
    scheme: Scheme = BF16,
    compile: CompileMode = CompileMode.EAGER,
    *,
    pipeline: PipelineSpec = FLUX1_DEV,
    weights: Weights = Weights.SYNTHETIC,
    batch: int = 1,
    steps: int = 6,
    measured_steps: int | None = None,
    fused: bool = False,
    settings: tuple[Setting, ...] = (),
    offload: Offload | None = None,
) -> Case:
    """A case that is always 100 x 100 pixels."""
    recipe = Recipe(scheme=scheme, compile=compile, fuse_qkv=fused, settings=settings, offload=offload)
    return Case(
        build=Build(pipeline=pipeline, recipe=recipe, weights=weights),
        workload=Workload(
            height=100, width=100, steps=steps, batch_size=batch, measured_steps=measured_steps
        ),
    )


def record_of(
    case: Case, seconds: dict[str, float] | None = None, *, step_ms: float = 200.0, **metrics: Sequence[float]
) -> RecordedCase:
    """An entry with the stages above and whatever `metrics` adds."""
    entry = make_entry({**STAGES, "denoise_step_ms": [step_ms], **metrics}, case=case)
    return RecordedCase(case=case, entry=msgspec.structs.replace(entry, seconds=seconds or {}))
