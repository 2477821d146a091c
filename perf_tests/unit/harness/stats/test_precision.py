from __future__ import annotations

import random

import msgspec
import pytest

from perf_tests.harness.records.process_ends import SamplingEnd
from perf_tests.harness.runs.record import Process
from perf_tests.harness.stats.precision import generation_noise_pct, location_error_pct, sampling_end
from perf_tests.protocol.reports import Sample
from perf_tests.unit.builders import make_process, make_run, make_sample


def _process(*steps_ms: float) -> Process:
    return make_process(samples=tuple(make_sample({"denoise_step_ms": [each]}) for each in steps_ms))


@pytest.mark.parametrize(
    ("generations", "noise_pct"),
    [
        pytest.param([(100.0,), (102.0,), (101.0,)], 1.4826 / 101 * 100, id="spread of 1 ms"),
        pytest.param([(100.0,), (101.0,), (150.0,)], 1.4826 / 101 * 100, id="one stalled generation"),
        pytest.param([(100.0, 900.0, 100.0)] * 3, 0.0, id="one stalled step in each"),
        pytest.param([(100.0,), (150.0,)], 0.0, id="too few to tell"),
    ],
)
def test_noise_between_generations_is_not_moved_by_a_stall(
    generations: list[tuple[float, ...]], noise_pct: float
) -> None:
    samples = tuple(make_sample({"denoise_step_ms": list(steps)}) for steps in generations)
    run = make_run(processes=(make_process(samples=samples),))
    assert generation_noise_pct(run) == pytest.approx(noise_pct)


def test_noisiest_process_counts() -> None:
    calm, wild = _process(100.0, 100.0, 100.0), _process(100.0, 110.0, 120.0)
    assert generation_noise_pct(make_run(processes=(calm, wild))) == pytest.approx(1.4826 * 10 / 110 * 100)


def test_training_steps_lie_apart_as_those_of_denoising_do() -> None:
    samples = tuple(make_sample({"train_step_ms": [each] * 7}) for each in (60.0, 50.0, 45.0))
    run = make_run(processes=(make_process(samples=samples),))
    assert generation_noise_pct(run) == pytest.approx(1.4826 * 5 / 50 * 100)


def _images(count: int, sd_pct: float = 2.0, pattern_pct: float = 0.0) -> list[Sample]:
    """`count` images of 25 steps around 100 ms."""
    source = random.Random(11)
    shape = [1 + pattern_pct / 100 * (step % 5) / 5 for step in range(25)]
    return [
        make_sample({"denoise_step_ms": [100 * each * (1 + source.gauss(0, sd_pct / 100)) for each in shape]})
        for _ in range(count)
    ]


def test_error_of_a_process_is_that_of_its_steps() -> None:
    # 2 % / sqrt(200) x 1.03
    assert location_error_pct(_images(8), "denoise_step_ms") == pytest.approx(0.146, abs=0.015)


def test_pattern_that_repeats_is_no_error() -> None:
    assert location_error_pct(_images(8, sd_pct=0.0, pattern_pct=6.0), "denoise_step_ms") < 1e-9


NOISE_PCT = {"denoise_step_ms": 0.39}


def test_process_is_sampled_until_it_is_precise() -> None:
    images = _images(9)
    ends = {count: sampling_end(images[:count], NOISE_PCT, 3) for count in range(1, 10)}
    precise = [count for count, end in ends.items() if end is SamplingEnd.PRECISE]
    # 2 % / sqrt(25 n) x 1.03 is 0.4 x 0.39 % at 7 images; it is estimated to a tenth.
    assert 6 <= precise[0] <= 9
    assert all(ends[count] is None for count in range(1, precise[0]))


def test_sampling_ends_where_it_does_not_become_precise() -> None:
    ends = [sampling_end(_images(count, sd_pct=9.0), NOISE_PCT, 3) for count in (8, 9)]
    assert ends == [None, SamplingEnd.MOST]


def test_every_metric_that_is_named_has_to_be_precise() -> None:
    calm = _images(3, sd_pct=0.01)
    assert sampling_end(calm[:2], NOISE_PCT, 3) is None
    assert sampling_end(calm, NOISE_PCT, 3) is SamplingEnd.PRECISE
    assert sampling_end(calm, {"denoise_step_ms": 0.001}, 3) is None
    assert sampling_end(calm, {**NOISE_PCT, "decode_ms": 0.5}, 3) is SamplingEnd.PRECISE


def test_one_sample_is_never_precise() -> None:
    assert sampling_end(_images(1, sd_pct=0.0), NOISE_PCT, 1) is None


@pytest.mark.parametrize(
    ("latency", "end"),
    [
        pytest.param({"latency_s": [6.1]}, SamplingEnd.FIXED, id="slow"),
        pytest.param({"latency_s": [5.9]}, None, id="quick"),
        pytest.param({"latency_s": [60.0], "measured_latency_s": [5.9]}, None, id="composed"),
    ],
)
def test_slow_generation_is_not_repeated_for_precision(
    latency: dict[str, list[float]], end: SamplingEnd | None
) -> None:
    rough = [make_sample({"denoise_step_ms": [100.0 + each], **latency}) for each in (0.0, 5.0, -5.0)]
    assert sampling_end(rough, NOISE_PCT, 3) is end


def test_few_slow_generations_do_where_they_are_precise_and_are_else_repeated() -> None:
    """Large batches: three of them take a minute and a half, and most are precise by then."""
    slow = {"latency_s": [60.0], "measured_latency_s": [12.0]}
    calm = [make_sample({"denoise_step_ms": [100.0, 100.1], **slow})] * 3
    rough = [make_sample({"denoise_step_ms": [100.0 + each] * 2, **slow}) for each in (0, 5, -5, 3, 0)]
    assert sampling_end(calm, NOISE_PCT, 3, enough=5) is SamplingEnd.PRECISE
    ends = [sampling_end(rough[:count], NOISE_PCT, 3, enough=5) for count in (2, 3, 4, 5)]
    assert ends == [None, None, None, SamplingEnd.FIXED]


def test_what_cannot_become_precise_has_as_many_samples_as_the_platform_asks_for() -> None:
    silent = [msgspec.structs.replace(make_sample(), values={})] * 3
    assert [sampling_end(silent[:count], NOISE_PCT, 3) for count in (2, 3)] == [None, SamplingEnd.FIXED]
    assert sampling_end(_images(3), {}, 3) is SamplingEnd.FIXED
