"""What runs in a step is seen from outside: blocks that fell back to eager, attention without a kernel."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from perf_tests.harness.verdicts import build_checks
from perf_tests.protocol.reports import StepReport
from perf_tests.tables.cases import Case
from perf_tests.tables.pipelines.flux import FLUX_MINI
from perf_tests.tables.pipelines.pixart import PIXART_MINI
from perf_tests.tables.pipelines.sd3 import SD3_MINI
from perf_tests.tables.pipelines.spec import PipelineSpec
from perf_tests.tables.recipes import CompileMode, Recipe
from perf_tests.tables.schemes.rows import BF16
from perf_tests.unit.builders import COLD_CACHE, ORDINARY_GROUP, make_build, make_quantization
from perf_tests.worker.inspection import counters, observed_step
from perf_tests.worker.measure.generate import count_step, prime
from perf_tests.worker.model import compile

Make = Callable[..., Any]
REGIONAL = Recipe(scheme=BF16, compile=CompileMode.REGIONAL)
FUSED = "_scaled_dot_product_flash_attention_for_cpu"


def compiled(make_pipeline: Make, case: Case) -> Any:
    pipeline = make_pipeline(case.build.recipe, pipeline=case.build.pipeline)
    compile.apply(pipeline, case.build)
    prime(pipeline, case)
    return pipeline


def unfused(step: StepReport, calls: int) -> float:
    return observed_step.unfused_attention_calls(step, calls)["unfused_attention_calls"]


def said(case: Case, step: StepReport) -> tuple[str, ...]:
    quantization = make_quantization(ORDINARY_GROUP, expected_modules=0)
    graphs = {"compiled_graphs": float(case.build.recipe.compiles)}
    cache = COLD_CACHE if case.build.recipe.compiles else None
    return build_checks.contradictions(
        case, make_build(graphs, quantization=quantization, cache=cache, step=step)
    )


@pytest.mark.parametrize(
    ("spec", "blocks", "calls"),
    [
        (FLUX_MINI, {"FluxTransformerBlock": 2, "FluxSingleTransformerBlock": 4}, 6),
        # Text and picture attend to themselves and to each other in turn.
        (PIXART_MINI, {"BasicTransformerBlock": 3}, 6),
        (SD3_MINI, {"JointTransformerBlock": 3}, 3),
    ],
    ids=lambda value: value.id if isinstance(value, PipelineSpec) else "",
)
def test_eager_step_runs_each_block_and_every_attention_fused(
    make_pipeline: Make, make_case: Make, spec: PipelineSpec, blocks: dict[str, int], calls: int
) -> None:
    case, pipeline = make_case(pipeline=spec), make_pipeline(pipeline=spec)
    step = observed_step.observe(pipeline, case)
    assert (step.blocks, step.attention) == (blocks, {FUSED: calls})
    assert count_step(pipeline, case).attention_calls == calls
    assert unfused(step, calls) == 0.0
    assert said(case, step) == ()


@pytest.mark.usefixtures("dynamo_only")
@pytest.mark.parametrize("mode", [CompileMode.REGIONAL, CompileMode.FULL])
def test_compiled_step_runs_no_block_and_compiles_nothing(
    make_pipeline: Make, make_case: Make, mode: CompileMode
) -> None:
    case = make_case(Recipe(scheme=BF16, compile=mode))
    pipeline = compiled(make_pipeline, case)
    before = counters.read()
    step = observed_step.observe(pipeline, case)
    assert counters.read().since(before).graphs == 0
    assert step.blocks == {"FluxTransformerBlock": 0, "FluxSingleTransformerBlock": 0}
    assert said(case, step) == ()


@pytest.mark.usefixtures("dynamo_only")
def test_kind_of_block_that_diffusers_forgets_to_compile_is_unproven(
    make_pipeline: Make, make_case: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    from diffusers import FluxTransformer2DModel

    monkeypatch.setattr(FluxTransformer2DModel, "_repeated_blocks", ["FluxTransformerBlock"])
    case = make_case(REGIONAL)
    step = observed_step.observe(compiled(make_pipeline, case), case)
    assert step.blocks == {"FluxTransformerBlock": 0, "FluxSingleTransformerBlock": 4}
    (sentence,) = said(case, step)
    assert sentence.endswith("compiles every FluxSingleTransformerBlock, and 4 calls in a step were eager")


@pytest.mark.usefixtures("dynamo_only")
def test_block_that_dynamo_gives_up_on_is_unproven(
    make_pipeline: Make, make_case: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    from diffusers.models.transformers.transformer_flux import FluxTransformerBlock

    monkeypatch.setattr(FluxTransformerBlock, "forward", torch.compiler.disable(FluxTransformerBlock.forward))
    case = make_case(REGIONAL)
    step = observed_step.observe(compiled(make_pipeline, case), case)
    assert step.blocks == {"FluxTransformerBlock": 2, "FluxSingleTransformerBlock": 0}


def test_attention_by_the_math_kernel_is_not_fused(make_pipeline: Make, make_case: Make) -> None:
    case, pipeline = make_case(), make_pipeline()
    with sdpa_kernel(SDPBackend.MATH):
        step = observed_step.observe(pipeline, case)
    assert step.attention == {"_scaled_dot_product_attention_math": 6}
    assert unfused(step, 6) == 6.0


def test_attention_written_out_is_not_fused(make_pipeline: Make, make_case: Make) -> None:
    case, pipeline = make_case(), make_pipeline()
    expected = count_step(pipeline, case).attention_calls
    right = torch.nn.functional.scaled_dot_product_attention

    def written_out(query: Any, key: Any, value: Any, **_keywords: Any) -> Any:
        scores = query @ key.transpose(-2, -1) / query.shape[-1] ** 0.5
        return scores.softmax(dim=-1) @ value

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(torch.nn.functional, "scaled_dot_product_attention", written_out)
        step = observed_step.observe(pipeline, case)
    assert torch.nn.functional.scaled_dot_product_attention is right
    assert step.attention == {}
    assert (expected, unfused(step, expected)) == (6, 6.0)


def test_attention_that_was_not_recorded_is_not_taken_for_fused() -> None:
    assert observed_step.unfused_attention_calls(StepReport(blocks={}, attention=None), 6) == {}
