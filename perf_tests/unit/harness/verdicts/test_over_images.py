"""Leaks, images that slow down and images that stall: what is red, and what must not be."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import pytest

from perf_tests.harness.runs.record import Process, Status, Verdict
from perf_tests.harness.verdicts.judge import judge_metric
from perf_tests.protocol.reports import Sample
from perf_tests.tables.platforms import CPU, H100, Platform
from perf_tests.unit.builders import (
    FLUX_FP8,
    GPU,
    H100_UUID,
    MINI_INT8WO,
    make_environment,
    make_process,
    make_run,
    make_sample,
    make_significance,
    make_telemetry,
    metric_named,
)

STEADY = (1.0, 1.001, 0.999, 1.0, 1.002)
SLOWS = (1.0, 1.02, 1.04, 1.06, 1.08)
ONE_STALL = (1.0, 1.0, 1.8, 1.0, 1.0)
LEAKS = (300.0, 316.0, 332.0, 348.0, 364.0)


def samples_of(name: str, values: Sequence[float], pressure_pct: float = 2.0) -> tuple[Sample, ...]:
    telemetry = make_telemetry(cpu_pressure_pct=pressure_pct)
    return tuple(make_sample({name: [value]}, telemetry=telemetry) for value in values)


def process(samples: tuple[Sample, ...], retaken: tuple[Sample, ...] = ()) -> Process:
    environment = make_environment(gpu=GPU)
    return make_process(environment=environment, samples=samples, twin_samples=samples, retaken=retaken)


def holding(*mib: float, name: str = "live_allocated_mib") -> Process:
    """A process that holds so much after each image."""
    return process(samples_of(name, mib))


def timed(*seconds: float, retaken: Sequence[float] = (), pressure_pct: float = 2.0) -> Process:
    """A process whose images took so long, and those that were taken again."""
    return process(
        samples_of("latency_s", seconds, pressure_pct), samples_of("latency_s", retaken, pressure_pct)
    )


def judged(name: str, *processes: Process, platform: Platform = H100) -> Verdict:
    case = FLUX_FP8 if platform is H100 else MINI_INT8WO
    return judge_metric(
        metric_named(name),
        case=case,
        platform=platform,
        run=make_run(case, platform, processes=processes),
        reference=None,
        accepted=None,
        unit=H100_UUID,
        significance=make_significance(),
    )


# Leaks


@pytest.mark.parametrize("platform", [CPU, H100], ids=lambda each: each.id)
@pytest.mark.parametrize(
    ("mib", "status"),
    [
        pytest.param((300.0, 300.2, 300.2, 300.3, 300.3), Status.PASS, id="unchanged"),
        pytest.param((300.0, 500.0, 500.0, 500.0, 500.0), Status.PASS, id="first-image"),
        pytest.param((900.0, 800.0, 600.0, 500.0, 300.0), Status.PASS, id="gives-back"),
        pytest.param(LEAKS, Status.REGRESSED, id="16-mib"),
        pytest.param((300.0, 300.0, 308.0, 308.0, 316.0), Status.REGRESSED, id="8-mib-every-other"),
    ],
)
def test_what_images_leave_on_the_device_is_limited(
    platform: Platform, mib: Sequence[float], status: Status
) -> None:
    assert judged("leaked_mib_per_image", holding(*mib), platform=platform).status is status


def test_a_leak_says_how_much_it_is_and_how_little_is_allowed() -> None:
    verdict = judged("leaked_mib_per_image", holding(*LEAKS))
    assert (verdict.measured, verdict.limit) == (16.0, 1.0)
    assert verdict.reason == "16 MiB is above 1 MiB: a pipeline keeps nothing of what it generated"


@pytest.mark.parametrize(("each_mib", "status"), [(15.0, Status.PASS), (17.0, Status.REGRESSED)])
def test_what_images_leave_on_the_host_is_limited(each_mib: float, status: Status) -> None:
    held = holding(*(5000.0 + image * each_mib for image in range(5)), name="live_host_mib")
    assert judged("host_growth_mib_per_image", held).status is status


def test_one_process_of_two_that_leaks_is_a_leak() -> None:
    verdict = judged("leaked_mib_per_image", holding(*(300.0,) * 5), holding(*LEAKS))
    assert verdict.status is Status.REGRESSED


@pytest.mark.parametrize(
    ("name", "few", "missing"),
    [
        ("leaked_mib_per_image", holding(300.0, 300.0), "2 samples do not show what grows"),
        ("slowing_pct", timed(1.0, 1.0, 1.0, 1.0), "4 samples do not show a trend"),
        ("stalled_images", timed(), "it has no samples"),
    ],
)
def test_too_few_images_decide_nothing(name: str, few: Process, missing: str) -> None:
    verdict = judged(name, few)
    assert verdict.status is Status.INCONCLUSIVE
    assert missing in verdict.reason


def few(name: str, warmups: Sequence[float], values: Sequence[float]) -> Process:
    """A process of a composed row: it is warmed up until two generations are alike, and times three."""
    return msgspec.structs.replace(process(samples_of(name, values)), warmups=samples_of(name, warmups))


@pytest.mark.parametrize(
    ("name", "warmups", "values", "status"),
    [
        ("live_allocated_mib", (100.0, 300.0), (300.0,) * 3, Status.PASS),
        ("live_allocated_mib", (300.0, 316.0), (332.0, 348.0, 364.0), Status.REGRESSED),
        # Of three warm-ups the last two: the growth is over as many images as in any other row.
        ("live_allocated_mib", (0.0, 299.0, 300.0), (300.0, 300.0, 302.0), Status.PASS),
        ("live_allocated_mib", (0.0, 299.0, 300.0), (300.0, 300.0, 303.5), Status.REGRESSED),
        ("latency_s", (1.0, 1.02), (1.04, 1.06, 1.08), Status.INCONCLUSIVE),
        # The first image of a process takes longer than the second, which hides nothing.
        ("latency_s", (1.03, 1.02), (1.04, 1.06, 1.08), Status.INCONCLUSIVE),
        ("latency_s", (1.03, 1.02), (1.04, 1.06, 1.07), Status.PASS),
        ("latency_s", (1.0, 1.05), (1.04, 1.06, 1.08), Status.PASS),
    ],
)
def test_few_images_are_seen_with_the_warm_ups_before_them(
    name: str, warmups: Sequence[float], values: Sequence[float], status: Status
) -> None:
    metric = "slowing_pct" if name == "latency_s" else "leaked_mib_per_image"
    verdict = judged(metric, few(name, warmups, values))
    assert verdict.status is status
    assert "do not show" not in verdict.reason


# Slowing down


def test_images_that_are_steady_pass_at_once() -> None:
    assert judged("slowing_pct", timed(*STEADY)).status is Status.PASS


def test_one_process_that_slows_down_asks_for_another() -> None:
    verdict = judged("slowing_pct", timed(*SLOWS))
    assert (verdict.status, verdict.wants_more) == (Status.INCONCLUSIVE, True)
    assert verdict.reason == (
        "8 % is above 5 %: the images of a process are the same work; another process has to confirm it, "
        "and none was measured"
    )


def test_a_second_process_that_slows_down_makes_it_red() -> None:
    verdict = judged("slowing_pct", timed(*SLOWS), timed(*SLOWS))
    assert (verdict.status, verdict.wants_more) == (Status.REGRESSED, False)
    assert "2 of 2 processes show it" in verdict.reason


def test_a_second_process_that_does_not_slow_down_acquits_the_first() -> None:
    verdict = judged("slowing_pct", timed(*SLOWS), timed(*STEADY))
    assert (verdict.status, verdict.wants_more) == (Status.PASS, False)
    assert "1 of 2 processes show it, and no other confirms it" in verdict.reason


# Stalls


@pytest.mark.parametrize(
    ("processes", "status"),
    [
        pytest.param((timed(*STEADY),), Status.PASS, id="none"),
        pytest.param((timed(1.0, 1.0, 1.8, 1.0, 2.0),), Status.REGRESSED, id="two-of-a-process"),
        pytest.param((timed(*ONE_STALL), timed(*ONE_STALL)), Status.REGRESSED, id="two-processes"),
        pytest.param((timed(*ONE_STALL),), Status.INVALID, id="one"),
        pytest.param((timed(*STEADY, retaken=(1.8,)),), Status.PASS, id="one-taken-again"),
        pytest.param((timed(*ONE_STALL, retaken=(1.8,)),), Status.REGRESSED, id="taken-again-and-again"),
        pytest.param(
            (timed(*STEADY, retaken=(1.8,)), timed(*STEADY, retaken=(2.2,))),
            Status.REGRESSED,
            id="taken-again-in-two-processes",
        ),
    ],
)
def test_two_stalls_are_red_and_one_is_the_machines(processes: tuple[Process, ...], status: Status) -> None:
    assert judged("stalled_images", *processes).status is status


def test_a_stall_quotes_the_pressure_on_the_host() -> None:
    verdict = judged("stalled_images", timed(*ONE_STALL, pressure_pct=12.0))
    assert verdict.reason == (
        "one image stalled, and no other confirms it: one of process 1 took 1.8 times the median while tasks "
        "waited for a processor 12 % of the time"
    )
