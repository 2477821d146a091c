from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from perf_tests.harness.fidelity.array_files import load_answers
from perf_tests.protocol.errors import WorkerError
from perf_tests.tables.cases import Case
from perf_tests.tables.pipelines.cogvideox import COGVIDEOX_MINI
from perf_tests.tables.pipelines.flux import FLUX_MINI
from perf_tests.tables.pipelines.spec import PipelineSpec, Workload
from perf_tests.worker.fidelity import trace
from perf_tests.worker.measure.generate import call_arguments

CPU = torch.device("cpu")


@pytest.mark.parametrize("spec", [FLUX_MINI, COGVIDEOX_MINI], ids=lambda spec: spec.id)
def test_an_unchanged_pipeline_answers_the_same_bits_and_keeps_no_hook(
    make_case: Callable[..., Case], make_pipeline: Callable[..., Any], spec: PipelineSpec
) -> None:
    case, pipeline = make_case(pipeline=spec), make_pipeline(pipeline=spec)
    step = pipeline.scheduler.step
    before = trace.record(pipeline, case)
    again = trace.repeat(pipeline, case, before, CPU)

    assert len(before.answers) == len(before.calls) == 5
    assert all(torch.equal(*pair) for pair in zip(before.answers, again.answers, strict=True))
    assert torch.equal(before.latents, again.latents)
    assert not pipeline.transformer._forward_hooks
    assert not pipeline.transformer._forward_pre_hooks
    assert pipeline.scheduler.step == step


def test_a_transformer_that_answers_differently_is_seen_at_every_timestep(
    make_case: Callable[..., Case], make_pipeline: Callable[..., Any]
) -> None:
    case, pipeline = make_case(), make_pipeline()
    before = trace.record(pipeline, case)
    pipeline.transformer.proj_out.bias.data += 0.125
    again = trace.repeat(pipeline, case, before, CPU)
    moved = [float((now - then).abs().max()) for now, then in zip(again.answers, before.answers, strict=True)]
    assert min(moved) > 0.1
    assert not torch.equal(before.latents, again.latents)


def test_teacher_forced_answers_do_not_depend_on_the_scheduler_but_latents_do(
    make_case: Callable[..., Case], make_pipeline: Callable[..., Any]
) -> None:
    case, pipeline = make_case(), make_pipeline()
    before = trace.record(pipeline, case)
    asked = dataclasses.replace(case, workload=dataclasses.replace(case.workload, seed=1))
    again = trace.repeat(pipeline, asked, before, CPU)
    assert all(torch.equal(*pair) for pair in zip(before.answers, again.answers, strict=True))
    assert not torch.equal(before.latents, again.latents)


def test_a_scheduler_that_takes_fewer_steps_is_unproven(
    make_case: Callable[..., Case], make_pipeline: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def three(spec: PipelineSpec, workload: Workload) -> dict[str, Any]:
        return {**call_arguments(spec, workload), "num_inference_steps": 3}

    pipeline = make_pipeline()
    monkeypatch.setattr(trace, "call_arguments", three)
    with pytest.raises(WorkerError, match="asked for 5 steps of 5, the scheduler ran 3"):
        trace.record(pipeline, make_case())


def test_the_file_holds_answers_and_latents_and_its_hash(tmp_path: Path) -> None:
    ones = torch.ones(1, 4)
    kept = trace.TransformerTrace(calls=(), answers=(ones, 2 * ones), latents=3 * ones)
    arrays = trace.save(kept, str(tmp_path / "captures" / "case.eager.npz"))
    answers, latents = load_answers(Path(arrays.file))
    np.testing.assert_array_equal(answers, [[[1.0] * 4], [[2.0] * 4]])
    np.testing.assert_array_equal(latents, [[3.0] * 4])
    assert arrays.sha256 == hashlib.sha256(Path(arrays.file).read_bytes()).hexdigest()
