"""The probe measures what quantization costs the transformer's output, and nothing else."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from perf_tests.protocol.errors import WorkerError
from perf_tests.protocol.messages import FailureKind
from perf_tests.tables.cases import Case
from perf_tests.tables.pipelines.cogvideox import COGVIDEOX_MINI
from perf_tests.tables.pipelines.flux import FLUX_MINI
from perf_tests.tables.pipelines.spec import PipelineSpec
from perf_tests.tables.recipes import Recipe
from perf_tests.tables.schemes.rows import FP8WO, INT4DQ, INT8DQ, INT8WO
from perf_tests.tables.schemes.spec import Scheme
from perf_tests.worker.inspection import probe
from perf_tests.worker.inspection.probe import sqnr_db
from perf_tests.worker.model import build
from perf_tests.worker.quantization import apply

CPU = torch.device("cpu")


def recorded(case: Case) -> tuple[Any, probe.Probe]:
    pipeline = build.build(case.build, CPU)
    return pipeline, probe.record(pipeline, case)


@pytest.mark.parametrize(
    ("reference", "output", "expected_db"),
    [
        pytest.param([3.0, 4.0], [3.0, 4.5], 20.0, id="a-tenth"),
        pytest.param([3.0, 4.0], [3.0, 4.05], 40.0, id="a-hundredth"),
        pytest.param([3.0, 4.0], [0.0, 0.0], 0.0, id="nothing-left"),
        pytest.param([3.0, 4.0], [3.0, 4.0], 144.4944, id="identical"),
    ],
)
def test_sqnr_is_the_ratio_of_norms_in_db(
    reference: list[float], output: list[float], expected_db: float
) -> None:
    assert sqnr_db(torch.tensor(reference), torch.tensor(output)) == pytest.approx(expected_db, abs=1e-4)


@pytest.mark.parametrize("pipeline", [FLUX_MINI, COGVIDEOX_MINI], ids=lambda pipeline: pipeline.id)
@pytest.mark.parametrize("scheme", [INT8WO, INT8DQ, INT4DQ, FP8WO], ids=lambda scheme: scheme.id)
def test_a_quantized_transformer_is_within_the_range_of_its_scheme(
    make_case: Callable[..., Case], pipeline: PipelineSpec, scheme: Scheme
) -> None:
    case = make_case(Recipe(scheme=scheme), pipeline=pipeline)
    built, before = recorded(case)
    apply.apply(built, case.build)
    assert scheme.output_sqnr_db is not None
    assert scheme.output_sqnr_db.low <= before.sqnr_db(built) <= scheme.output_sqnr_db.high


def test_nothing_is_decoded_for_a_probe(
    make_case: Callable[..., Case], monkeypatch: pytest.MonkeyPatch
) -> None:
    case = make_case(Recipe(scheme=INT8WO))
    pipeline = build.build(case.build, CPU)
    called = []
    pipeline.transformer.register_forward_hook(lambda *_: called.append("transformer"))
    monkeypatch.setattr(pipeline.vae, "decode", lambda *_: called.append("decode"))
    before = probe.record(pipeline, case)
    assert called == ["transformer"]  # with the copied inputs
    assert before.sqnr_db(pipeline) == pytest.approx(144.4944, abs=1e-4)


def test_an_unchanged_transformer_answers_the_same(make_case: Callable[..., Case]) -> None:
    pipeline, before = recorded(make_case())
    assert before.sqnr_db(pipeline) == pytest.approx(144.4944, abs=1e-4)


def test_nothing_stays_attached_to_the_transformer(make_case: Callable[..., Case]) -> None:
    pipeline, before = recorded(make_case())
    before.sqnr_db(pipeline)
    assert not any(
        module._forward_pre_hooks or module._forward_hooks for module in pipeline.transformer.modules()
    )


def test_the_inputs_are_those_of_the_first_step(make_case: Callable[..., Case]) -> None:
    _, before = recorded(make_case())
    # The first timestep, as FLUX is given it: 1000 of 1000.
    assert before.keywords["timestep"].tolist() == [1.0]


def test_an_output_with_nan_fails(make_case: Callable[..., Case]) -> None:
    pipeline, before = recorded(make_case())
    pipeline.transformer.proj_out.weight.data.fill_(float("nan"))
    with pytest.raises(WorkerError, match="answers NaN or infinity") as caught:
        before.sqnr_db(pipeline)
    assert caught.value.failure.kind is FailureKind.NUMERICS
