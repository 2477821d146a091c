from __future__ import annotations

import pytest

from perf_tests.harness.runs.stalls import Stall, generation_s, stalled
from perf_tests.protocol.reports import Sample
from perf_tests.unit.builders import make_sample, make_telemetry


def images(*seconds: float, pressure_pct: float | None = 3.0) -> tuple[Sample, ...]:
    telemetry = make_telemetry(cpu_pressure_pct=pressure_pct)
    return tuple(make_sample({"latency_s": [each]}, telemetry=telemetry) for each in seconds)


def test_an_image_beyond_one_and_a_half_times_the_median_stalled() -> None:
    assert stalled(images(1.0, 1.0, 1.6, 1.0, 1.49), ()) == (
        Stall(index=2, ratio=1.6, was_retaken=False, pressure_pct=3.0),
    )


def test_an_image_that_was_retaken_counts_and_is_marked() -> None:
    (stall,) = stalled(images(1.0, 1.0, 1.0), images(2.0))
    assert (stall.index, stall.was_retaken) == (3, True)


def test_an_image_whose_telemetry_says_why_it_is_slow_does_not_count() -> None:
    assert stalled(images(1.0, 1.0, 1.0), images(2.0, pressure_pct=60.0)) == ()


@pytest.mark.parametrize(
    ("pressure_pct", "text"),
    [
        (3.0, "2.0 times the median while tasks waited for a processor 3 % of the time"),
        (None, "2.0 times the median, the pressure on the host not known"),
    ],
)
def test_a_stall_says_what_the_host_did(pressure_pct: float | None, text: str) -> None:
    (stall,) = stalled(images(1.0, 2.0, 1.0, pressure_pct=pressure_pct), ())
    assert stall.text == text


def test_time_of_a_generation_is_what_was_measured_where_the_latency_is_composed() -> None:
    assert generation_s(make_sample({"latency_s": [30.0], "measured_latency_s": [3.0]})) == 3.0
    assert generation_s(make_sample({"latency_s": [2.0]})) == 2.0
    assert generation_s(Sample(values={}, output_sha256="")) is None
