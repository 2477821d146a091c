"""What one generation calls is counted, and a call too many, or one prompt for all, is red."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
import torch

from perf_tests.harness.runs.record import Status, Verdict
from perf_tests.harness.verdicts.judge import judge_metric
from perf_tests.protocol.reports import Sample
from perf_tests.tables.cases import Case
from perf_tests.tables.metrics.spec import IDENTICAL_DB
from perf_tests.tables.platforms import CPU, Device
from perf_tests.tables.recipes import CompileMode, Recipe
from perf_tests.tables.schemes.rows import BF16
from perf_tests.unit.builders import (
    CPU_MODEL,
    make_build,
    make_process,
    make_run,
    make_significance,
    metric_named,
)
from perf_tests.worker.inspection import prompts
from perf_tests.worker.measure import calls
from perf_tests.worker.measure.clock import CLOCKS
from perf_tests.worker.measure.generate import Generation, Stages, generate_once, most_alike_db
from perf_tests.worker.model import compile

Make = Callable[..., Any]
COUNTS = {"transformer_calls": 4, "text_encoder_calls": 1, "text_encoder_2_calls": 1, "decode_calls": 1}


def generated(pipeline: Any, case: Case) -> Generation:
    return generate_once(pipeline, case, Stages(CLOCKS[Device.CPU](), lambda _stage: None))


def judged(name: str, case: Case, values: dict[str, Any]) -> Verdict:
    """Of a process that reported `values`, both of its build and of its one sample."""
    spans = {key: value if isinstance(value, tuple) else (value,) for key, value in values.items()}
    sample = Sample(values=spans, output_sha256="a" * 64)
    once = {key: value for key, value in values.items() if isinstance(value, float)}
    process = make_process(build=make_build(once), samples=(sample,))
    return judge_metric(
        metric_named(name),
        case=case,
        platform=CPU,
        run=make_run(case, processes=(process,)),
        reference=None,
        accepted=None,
        unit=CPU_MODEL,
        significance=make_significance(),
    )


def run_twice(pipeline: Any, name: str) -> None:
    """Call the component again with the same arguments, as a caller would that forgets what it has."""
    owner = getattr(pipeline, name)
    right = type(owner)

    class Twice(right):  # type: ignore[misc,valid-type] # a class made while the test runs
        def __call__(self, *arguments: Any, **keywords: Any) -> Any:
            super().__call__(*arguments, **keywords)
            return super().__call__(*arguments, **keywords)

    owner.__class__ = Twice


@pytest.mark.parametrize("name", ["transformer", "text_encoder", "text_encoder_2"])
def test_component_that_is_called_twice_is_red(make_pipeline: Make, make_case: Make, name: str) -> None:
    case, pipeline = make_case(), make_pipeline()
    sound = generated(pipeline, case).values
    assert {key: sound[key] for key in COUNTS} == {key: (float(count),) for key, count in COUNTS.items()}
    assert judged(f"{name}_calls", case, sound).status is Status.PASS
    run_twice(pipeline, name)
    verdict = judged(f"{name}_calls", case, generated(pipeline, case).values)
    assert (verdict.status, verdict.measured) == (Status.REGRESSED, 2.0 * COUNTS[f"{name}_calls"])


def test_picture_that_is_decoded_twice_is_red(make_pipeline: Make, make_case: Make) -> None:
    case, pipeline = make_case(), make_pipeline()
    pipeline.image_processor.postprocess = twice_decoding(pipeline, pipeline.image_processor.postprocess)
    verdict = judged("decode_calls", case, generated(pipeline, case).values)
    assert (verdict.status, verdict.measured) == (Status.REGRESSED, 2.0)


def twice_decoding(pipeline: Any, right: Callable[..., Any]) -> Callable[..., Any]:
    def postprocess(*arguments: Any, **keywords: Any) -> Any:
        pipeline.vae.decode(torch.zeros(1, 4, 8, 8, dtype=torch.bfloat16))
        return right(*arguments, **keywords)

    return postprocess


def test_counting_leaves_the_pipeline_as_it_was(make_pipeline: Make) -> None:
    pipeline = make_pipeline()
    parts = [part for part in pipeline.components.values() if isinstance(part, torch.nn.Module)]
    before = [dict(vars(part)) for part in parts]
    with calls.counted(pipeline) as counts:
        pass
    assert [dict(vars(part)) for part in parts] == before
    assert counts == {"transformer": 0, "text_encoder": 0, "text_encoder_2": 0, "decode": 0}


@pytest.mark.usefixtures("dynamo_only")
def test_compiled_transformer_is_counted_and_not_compiled_again(make_pipeline: Make, make_case: Make) -> None:
    from perf_tests.worker.inspection import counters

    recipe = Recipe(scheme=BF16, compile=CompileMode.FULL)
    case, pipeline = make_case(recipe), make_pipeline(recipe)
    compile.apply(pipeline, case.build)
    generated(pipeline, case)
    before = counters.read()
    assert generated(pipeline, case).values["transformer_calls"] == (4.0,)
    assert counters.read().since(before).graphs == 0


def test_prompts_answered_with_the_embeddings_of_the_first_are_red(
    make_pipeline: Make, make_case: Make
) -> None:
    case, pipeline = make_case(), make_pipeline()
    sound = prompts.differences(pipeline, case)
    assert sound == {"distinct_prompt_embeddings": 4.0, "distinct_prompt_latents": 2.0}
    right = pipeline.encode_prompt
    kept: list[Any] = []

    def first(*arguments: Any, **keywords: Any) -> Any:
        kept.append(kept[0] if kept else right(*arguments, **keywords))
        return kept[0]

    pipeline.encode_prompt = first
    wrong = prompts.differences(pipeline, case)
    assert wrong == {"distinct_prompt_embeddings": 1.0, "distinct_prompt_latents": 1.0}
    for name in wrong:
        assert judged(name, case, sound).status is Status.PASS
        assert judged(name, case, wrong).status is Status.REGRESSED


def test_transformer_that_ignores_the_prompt_is_red(make_pipeline: Make, make_case: Make) -> None:
    case, pipeline = make_case(), make_pipeline()

    def without_text(_module: Any, arguments: Any, keywords: dict[str, Any]) -> Any:
        blank = {name: torch.zeros_like(keywords[name]) for name in prompts.TEXT_INPUTS}
        return arguments, keywords | blank

    pipeline.transformer.register_forward_pre_hook(without_text, with_kwargs=True)
    found = prompts.differences(pipeline, case)
    assert found["distinct_prompt_latents"] == 1.0
    assert judged("distinct_prompt_latents", case, found).status is Status.REGRESSED


def test_only_a_reference_takes_steps(make_pipeline: Make, make_case: Make) -> None:
    fused = make_case(Recipe(scheme=BF16, fuse_qkv=True))
    assert prompts.differences(make_pipeline(), fused) == {"distinct_prompt_embeddings": 4.0}


def test_noise_that_is_repeated_in_a_batch_is_red(make_pipeline: Make, make_case: Make) -> None:
    single, pipeline = make_case(), make_pipeline()
    case = dataclasses.replace(single, workload=dataclasses.replace(single.workload, batch_size=2))
    sound = generated(pipeline, case).values
    assert judged("batch_psnr_db", case, sound).status is Status.PASS
    right = pipeline.prepare_latents

    def repeated(*arguments: Any, **keywords: Any) -> Any:
        latents, ids = right(*arguments, **keywords)
        return latents[:1].expand_as(latents).clone(), ids

    pipeline.prepare_latents = repeated
    verdict = judged("batch_psnr_db", case, generated(pipeline, case).values)
    assert verdict.status is Status.REGRESSED
    assert verdict.limit == 25.0


def test_most_alike_pictures_are_found_anywhere_in_a_batch() -> None:
    black, grey = torch.zeros(3, 4, 4), torch.full((3, 4, 4), 0.1)
    white = torch.ones(3, 4, 4)
    assert most_alike_db(torch.stack([black, white, grey])) == pytest.approx(20.0)
    assert most_alike_db(torch.stack([black, white, black])) == IDENTICAL_DB


def test_one_generation_of_another_count_is_enough(make_case: Make) -> None:
    verdict = judged("transformer_calls", make_case(), {"transformer_calls": (4.0, 4.0, 8.0)})
    assert (verdict.status, verdict.measured) == (Status.REGRESSED, 8.0)


def test_count_that_was_not_reported_is_not_green(make_case: Make) -> None:
    assert judged("decode_calls", make_case(), {}).status is Status.INCONCLUSIVE
