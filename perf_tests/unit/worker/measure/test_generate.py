"""A generation is what was asked for, and its stages add up to it."""

from __future__ import annotations

import collections
import dataclasses
import fnmatch
import functools
from collections.abc import Callable
from typing import Any

import pytest
import torch

from perf_tests.protocol.errors import WorkerError
from perf_tests.protocol.messages import FailureKind
from perf_tests.tables.cases import Build, Case
from perf_tests.tables.pipelines.cogvideox import COGVIDEOX_MINI
from perf_tests.tables.pipelines.flux import FLUX_MINI
from perf_tests.tables.pipelines.rows import MINIATURES
from perf_tests.tables.pipelines.spec import PipelineSpec
from perf_tests.tables.recipes import Recipe
from perf_tests.tables.schemes.rows import BF16
from perf_tests.worker.measure import generate
from perf_tests.worker.measure.clock import HostClock
from perf_tests.worker.measure.generate import (
    PRIMING_STEPS,
    Stages,
    call_arguments,
    count_step,
    generate_once,
    output_sha256,
    prime,
)
from perf_tests.worker.model import build

Make = Callable[..., Any]


class StepMark:
    """A mark of `StepClock`."""

    def __init__(self, ms: float) -> None:
        self.ms = ms

    def until_ms(self, later: Any) -> float:
        return float(later.ms - self.ms)


class StepClock:
    """Each mark is 1 ms longer after the one before: 0, 1, 3, 6, 10, ... ms."""

    def __init__(self) -> None:
        self.marks = 0

    def mark(self) -> StepMark:
        self.marks += 1
        return StepMark(self.marks * (self.marks - 1) / 2)

    def synchronize(self) -> None:
        """Nothing to wait for."""


def staged(clock: Any = None) -> Stages:
    return Stages(clock or HostClock(), lambda stage: None)


def test_stages_are_cut_at_the_schedulers_calls(make_pipeline: Make, make_case: Callable[..., Case]) -> None:
    pipeline = make_pipeline()
    values = generate_once(pipeline, make_case(), staged(StepClock())).values
    assert values["encode_ms"] == (1.0,)
    assert values["first_step_ms"] == (2.0,)
    assert values["denoise_step_ms"] == (3.0, 4.0, 5.0)
    assert values["decode_ms"] == (6.0,)
    assert values["device_latency_s"] == (0.021,)


@pytest.mark.parametrize("spec", [FLUX_MINI, COGVIDEOX_MINI], ids=lambda spec: spec.id)
def test_stages_add_up_to_the_whole(
    make_pipeline: Make, make_case: Callable[..., Case], spec: PipelineSpec
) -> None:
    pipeline = make_pipeline(pipeline=spec)
    values = generate_once(pipeline, make_case(pipeline=spec), staged()).values
    parts = sum(sum(values[name]) for name in ("encode_ms", "first_step_ms", "denoise_step_ms", "decode_ms"))
    assert parts / 1e3 == pytest.approx(values["device_latency_s"][0], rel=1e-9)
    assert values["latency_s"][0] >= values["device_latency_s"][0]


@pytest.fixture(scope="module", params=MINIATURES, ids=lambda spec: spec.id)
def miniature(request: pytest.FixtureRequest) -> tuple[Case, Any]:
    """A case of two steps, and its pipeline."""
    workload = dataclasses.replace(request.param.workload, steps=2)
    case = Case(build=Build(pipeline=request.param, recipe=Recipe(scheme=BF16)), workload=workload)
    return case, build.build(case.build, torch.device("cpu"))


def test_miniatures_generate_what_was_asked_for_and_the_same_again(miniature: tuple[Case, Any]) -> None:
    case, pipeline = miniature
    first, second = (generate_once(pipeline, case, staged(StepClock())) for _ in range(2))
    # Encode, two steps and decode lie between marks at 0, 1, 3, 6 and 10 ms of this clock.
    assert first.values["denoise_step_ms"] == (3.0,)
    assert first.values["device_latency_s"] == (0.01,)
    assert first.output.shape[-3:] == (3, case.workload.height, case.workload.width)
    assert first.output.float().std() > 0.1
    assert output_sha256(first.output) == output_sha256(second.output)


def rows_seen(case: Case, pipeline: Any) -> dict[str, int]:
    """Name of each linear module of the transformer -> the most rows it sees in one step."""
    rows: dict[str, int] = collections.Counter()

    def watch(name: str) -> Callable[..., None]:
        def count(module: Any, inputs: Any) -> None:
            rows[name] = max(rows[name], inputs[0].numel() // module.in_features)

        return count

    handles = [
        module.register_forward_pre_hook(watch(name))
        for name, module in pipeline.transformer.named_modules()
        if isinstance(module, torch.nn.Linear)
    ]
    workload = dataclasses.replace(case.workload, steps=1)
    pipeline(**call_arguments(case.build.pipeline, workload))
    for handle in handles:
        handle.remove()
    assert len(rows) == len(handles)
    return rows


def test_a_row_names_exactly_the_modules_that_see_one_row_per_image(miniature: tuple[Case, Any]) -> None:
    case, pipeline = miniature
    rows = rows_seen(case, pipeline)
    patterns = case.build.pipeline.single_row
    named = {name for name in rows if any(fnmatch.fnmatch(name, pattern) for pattern in patterns)}
    assert [pattern for pattern in patterns if not fnmatch.filter(rows, pattern)] == []
    # Two rows with classifier-free guidance.
    single = {name for name, seen in rows.items() if seen <= 2}
    assert single == named, (
        f"single_row of {case.build.pipeline.id} must match {sorted(single - named)} as well, "
        f"and none of {sorted(named - single)}"
    )
    assert {name for name, seen in rows.items() if seen <= 16} == named


def test_the_work_of_a_step_is_that_of_its_linear_modules_and_its_attention(
    make_pipeline: Make, make_case: Callable[..., Case]
) -> None:
    case, pipeline = make_case(), make_pipeline()
    rows = rows_seen(case, pipeline)
    linear = {name: module for name, module in pipeline.transformer.named_modules() if name in rows}
    gemms = sum(2 * rows[name] * each.in_features * each.out_features for name, each in linear.items())
    # 6 blocks, 4 heads of 64; 64 image tokens and 64 of text: two products of 128 x 128 x 64 each.
    attention = 6 * 4 * 2 * (2 * 128 * 128 * 64)
    counted = count_step(pipeline, case)
    assert counted.tflop * 1e12 == pytest.approx(gemms + attention, rel=1e-9)
    assert counted.attention_tflop * 1e12 == pytest.approx(attention, rel=1e-9)


def test_operator_whose_work_nobody_knows_is_named_and_nothing_is_counted(
    make_pipeline: Make, make_case: Callable[..., Case], monkeypatch: pytest.MonkeyPatch
) -> None:
    case, pipeline = make_case(), make_pipeline()
    assert (count_step(pipeline, case).unknown, count_step(pipeline, case).uncounted) == ((), {})
    for attention in tuple(generate.UNCOUNTED):  # as in a torch with another operator for it
        monkeypatch.delitem(generate.UNCOUNTED, attention)
    counted = count_step(pipeline, case)
    assert counted.values(case.workload) == {}
    assert counted.uncounted == {
        "step_tflop": "this torch does not know the work of aten._scaled_dot_product_flash_attention_for_cpu"
    }


@pytest.mark.parametrize(
    ("name", "multiplies"),
    [
        ("mm", True),
        ("_scaled_mm", True),
        ("_weight_int8pack_mm", True),
        ("mkldnn_convolution", True),
        ("_scaled_dot_product_fused_attention_overrideable", True),
        ("mul", False),
        ("upsample_bilinear2d", False),
        ("native_layer_norm", False),
        ("_to_copy", False),
    ],
)
def test_operators_that_multiply_are_told_by_their_names(name: str, multiplies: bool) -> None:
    assert (generate.MULTIPLIES.search(name) is not None) is multiplies


def test_the_work_of_a_step_is_counted_for_one_image_and_grows_with_the_batch(
    make_pipeline: Make, make_case: Callable[..., Case]
) -> None:
    case, pipeline = make_case(), make_pipeline()
    of_three = dataclasses.replace(case, workload=dataclasses.replace(case.workload, batch_size=3, steps=7))
    one, three = count_step(pipeline, case), count_step(pipeline, of_three)
    assert one == three
    assert one.values(of_three.workload) == {"step_tflop": 3 * one.tflop}
    larger = dataclasses.replace(case.workload, height=256)
    assert one.values(larger) == {}


def test_a_counted_pipeline_is_left_as_it_was(make_pipeline: Make, make_case: Callable[..., Case]) -> None:
    case, pipeline = make_case(), make_pipeline()
    before = pipeline.scheduler.step, pipeline.scheduler.set_timesteps
    count_step(pipeline, case)
    assert (pipeline.scheduler.step, pipeline.scheduler.set_timesteps) == before
    counted = output_sha256(generate_once(pipeline, case, staged()).output)
    assert counted == output_sha256(generate_once(make_pipeline(), case, staged()).output)


def test_the_scheduler_is_left_as_it_was(make_pipeline: Make, make_case: Callable[..., Case]) -> None:
    pipeline = make_pipeline()
    before = pipeline.scheduler.step, pipeline.scheduler.set_timesteps
    generate_once(pipeline, make_case(), staged())
    assert (pipeline.scheduler.step, pipeline.scheduler.set_timesteps) == before


def test_outputs_of_the_same_seed_have_the_same_bits(
    make_pipeline: Make, make_case: Callable[..., Case]
) -> None:
    pipeline = make_pipeline()
    stages = staged()
    digests = {output_sha256(generate_once(pipeline, make_case(), stages).output) for _ in range(2)}
    assert len(digests) == 1


def test_a_scheduler_that_skips_a_step_is_unproven(
    make_pipeline: Make, make_case: Callable[..., Case]
) -> None:
    pipeline = make_pipeline()
    original = pipeline.scheduler.set_timesteps

    @functools.wraps(original)  # the pipeline looks at its signature
    def one_less(*args: Any, **kwargs: Any) -> None:
        original(*args, **kwargs)
        pipeline.scheduler.timesteps = pipeline.scheduler.timesteps[:-1]

    pipeline.scheduler.set_timesteps = one_less
    with pytest.raises(WorkerError, match="asked for 4 steps, the scheduler ran 3") as caught:
        generate_once(pipeline, make_case(), staged())
    assert caught.value.failure.kind is FailureKind.UNPROVEN


def poison(pipeline: Any, value: float) -> None:
    decode = pipeline.vae.decode

    def spoiled(*args: Any, **kwargs: Any) -> Any:
        return (torch.full_like(decode(*args, **kwargs)[0], value),)

    pipeline.vae.decode = spoiled


@pytest.mark.parametrize(
    ("value", "message"),
    [
        pytest.param(float("nan"), "the output holds NaN", id="nan"),
        pytest.param(-1.0, "the output is a single colour", id="black"),
    ],
)
def test_an_image_without_content_is_a_numerics_error(
    make_pipeline: Make, make_case: Callable[..., Case], value: float, message: str
) -> None:
    pipeline = make_pipeline()
    poison(pipeline, value)
    with pytest.raises(WorkerError, match=message) as caught:
        generate_once(pipeline, make_case(), staged())
    assert caught.value.failure.kind is FailureKind.NUMERICS


# Workloads of which some steps are measured


def with_steps(case: Case, steps: int, measured_steps: int | None = None) -> Case:
    workload = dataclasses.replace(case.workload, steps=steps, measured_steps=measured_steps)
    return dataclasses.replace(case, workload=workload)


def count_steps(pipeline: Any) -> list[Any]:
    """A list that grows by one with every call of the transformer."""
    calls: list[Any] = []
    pipeline.transformer.register_forward_pre_hook(lambda module, inputs: calls.append(module))
    return calls


def test_steps_are_generated_only_as_far_as_they_are_measured(
    make_pipeline: Make, make_case: Callable[..., Case]
) -> None:
    pipeline = make_pipeline()
    calls = count_steps(pipeline)
    values = generate_once(pipeline, with_steps(make_case(), 28, measured_steps=3), staged()).values
    assert len(calls) == 3
    assert (len(values["first_step_ms"]), len(values["denoise_step_ms"])) == (1, 2)


def test_the_values_are_those_of_the_short_generation(
    make_pipeline: Make, make_case: Callable[..., Case]
) -> None:
    pipeline = make_pipeline()
    values = generate_once(pipeline, with_steps(make_case(), 28, measured_steps=3), staged()).values
    parts = sum(sum(values[name]) for name in ("encode_ms", "first_step_ms", "denoise_step_ms", "decode_ms"))
    assert values["device_latency_s"][0] * 1e3 == pytest.approx(parts, rel=1e-9)


def test_a_scheduler_that_runs_all_steps_of_a_short_generation_is_unproven(
    make_pipeline: Make, make_case: Callable[..., Case]
) -> None:
    pipeline = make_pipeline()
    set_timesteps = pipeline.scheduler.set_timesteps

    @functools.wraps(set_timesteps)  # the pipeline looks at its signature
    def all_of_them(*args: Any, **kwargs: Any) -> None:
        set_timesteps(*args, **{**kwargs, "sigmas": [1.0, 0.75, 0.5, 0.25]})

    pipeline.scheduler.set_timesteps = all_of_them
    with pytest.raises(WorkerError, match="asked for 2 steps, the scheduler ran 4"):
        generate_once(pipeline, with_steps(make_case(), 4, measured_steps=2), staged())


@pytest.mark.parametrize("measured_steps", [None, 3])
def test_priming_takes_two_steps_of_any_workload(
    make_pipeline: Make, make_case: Callable[..., Case], measured_steps: int | None
) -> None:
    pipeline = make_pipeline()
    calls = count_steps(pipeline)
    prime(pipeline, with_steps(make_case(), 28, measured_steps=measured_steps))
    assert len(calls) == PRIMING_STEPS == 2
