"""runs/validity.py: samples, runs and clocks in, reasons for distrust out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import pytest

from perf_tests.harness.runs.record import Process
from perf_tests.harness.runs.validity import (
    control,
    control_values,
    excuse_of_timeout,
    in_cycles,
    invalidity,
    must_retake,
    reasons,
    roofline_ms,
    sample_clocks_mhz,
)
from perf_tests.tables.platforms import CPU, H100, PLATFORMS, Platform
from perf_tests.tables.schemes.rows import (
    BF16,
    FP8DQROW,
    FP8WO,
    FP16,
    INT4DQ,
    INT8DQ,
    INT8DQ_SPARSE24,
    INT8WO,
    SCHEMES,
)
from perf_tests.tables.schemes.spec import Scheme
from perf_tests.unit.builders import make_build, make_process, make_run, make_sample, make_telemetry

# Samples


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        pytest.param(
            {"throttle_reasons": ("SwPowerCap", "HwSlowdown")},
            "the GPU was throttled: HwSlowdown",
            id="slowed down just now",
        ),
        pytest.param(
            {"throttled_ms": {"hw_thermal": 12.5, "power": 2900.0}},
            "the GPU was throttled: hw_thermal for 12.5 ms",
            id="a thermal pulse",
        ),
        pytest.param(
            {"throttled_ms": {"hw_power_brake": 0.25}, "throttle_reasons": ("HwPowerBrakeSlowdown",)},
            "the GPU was throttled: HwPowerBrakeSlowdown, hw_power_brake for 0.25 ms",
            id="power brake",
        ),
        pytest.param(
            {"throttled_ms": {"thermal": 3.0}},
            "the GPU was throttled: thermal for 3 ms",
            id="a violation of the thermal policy",
        ),
        pytest.param(
            {"ecc_errors": {"corrected": 2, "uncorrected": 1}},
            "the GPU's memory had ECC errors: 2 corrected, 1 uncorrected",
            id="ecc",
        ),
        pytest.param(
            {"foreign_processes": ("process 4711 (1234 MiB)",), "compute_processes": 2},
            "others were on the GPU: process 4711 (1234 MiB)",
            id="a foreign process",
        ),
        pytest.param(
            {"compute_processes": 3},
            "3 processes computed on the GPU, where the worker should have been alone",
            id="nobody knows whose",
        ),
        pytest.param(
            {"unaccounted_mib": 812.0},
            "others used the GPU: memory in use changed by +812 MiB that are not the worker's",
            id="somebody came",
        ),
        pytest.param(
            {"unaccounted_mib": -500.0},
            "others used the GPU: memory in use changed by -500 MiB that are not the worker's",
            id="somebody left",
        ),
        pytest.param(
            {"allocated_before_mib": 20000.0, "idle_utilization_pct": 98.0},
            "others used the GPU: 20000 MiB were in use before the worker started, it was already 98 % busy",
            id="somebody was there",
        ),
        pytest.param(
            {"cpu_pressure_pct": 40.0, "load_per_core": 0.5},
            "the host was busy: tasks waited for a processor 40 % of the time",
            id="pressure",
        ),
        pytest.param(
            {"load_per_core": 2.0},
            "the host was busy: the load was 2.00 per processor",
            id="load, where the kernel tells no pressure",
        ),
        pytest.param(
            {"launch_delay_pct": 5.4, "load_per_core": 0.1},
            "the thread that launches kernels had no processor for 5 % of the time",
            id="a delay, where other cards are measured on",
        ),
    ],
)
def test_a_disturbed_sample_is_invalid_and_says_why(changes: dict[str, Any], reason: str) -> None:
    assert reasons(make_sample(telemetry=make_telemetry(**changes))) == (reason,)


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"throttled_ms": {"power": 2900.0, "sync_boost": 0.0}}, id="power capping is normal"),
        pytest.param({"throttled_ms": {"board": 5.0, "reliability": 5.0}}, id="limits that only cap"),
        pytest.param({"throttled_ms": {"hw_thermal": 0.0}}, id="counted, and nothing happened"),
        pytest.param({"ecc_errors": {"corrected": 0, "uncorrected": 0}}, id="sound memory"),
        pytest.param(
            {"foreign_processes": (), "compute_processes": 2}, id="the session's other worker is not foreign"
        ),
        pytest.param({"unaccounted_mib": 150.0, "allocated_before_mib": 600.0}, id="contexts"),
        pytest.param({"idle_utilization_pct": 5.0}, id="a monitoring agent"),
        pytest.param({"cpu_pressure_pct": 10.0, "load_per_core": 4.0}, id="a load that nobody waited for"),
        pytest.param({"load_per_core": 1.0}, id="what compiling leaves behind"),
        pytest.param({"launch_delay_pct": 5.0, "load_per_core": 4.0}, id="a load of the other cards"),
        pytest.param(
            {
                "throttle_reasons": None,
                "compute_processes": None,
                "unavailable": {"throttle_reasons": "Not Supported"},
            },
            id="nothing is known",
        ),
    ],
)
def test_a_sample_with_normal_or_unknown_readings_is_valid(changes: dict[str, Any]) -> None:
    assert reasons(make_sample(telemetry=make_telemetry(**changes))) == ()


def test_a_sample_of_the_cpu_is_valid() -> None:
    assert reasons(make_sample()) == ()


def test_an_invalid_sample_names_all_its_reasons() -> None:
    telemetry = make_telemetry(ecc_errors={"corrected": 1}, throttle_reasons=("HwSlowdown",))
    run = make_run(processes=(make_process(samples=(make_sample(telemetry=telemetry),)),))
    assert invalidity(run) == (
        "the GPU was throttled during process 1: HwSlowdown; "
        "the GPU's memory had ECC errors during process 1: 1 corrected"
    )


HOT = make_sample(telemetry=make_telemetry(throttle_reasons=("HwThermalSlowdown",)))
COOL = make_sample(telemetry=make_telemetry())


@pytest.mark.parametrize(("retaken", "again"), [(0, True), (1, True), (2, False), (3, False)])
def test_an_invalid_sample_is_taken_again_twice_in_a_process(retaken: int, again: bool) -> None:
    assert must_retake(HOT, retaken) is again


def test_a_valid_sample_is_not_taken_again() -> None:
    assert not must_retake(COOL, 0)


def test_samples_that_were_taken_again_do_not_count() -> None:
    assert invalidity(make_run(processes=(make_process(samples=(COOL,), retaken=(HOT, HOT)),))) is None


def test_a_sample_that_stays_invalid_says_how_often_it_was_tried() -> None:
    run = make_run(processes=(make_process(samples=(COOL, HOT), retaken=(HOT, HOT)),))
    assert invalidity(run) == (
        "the GPU was throttled during process 1: HwThermalSlowdown (2 earlier samples were taken again)"
    )


# Roofline


@pytest.mark.parametrize(
    ("scheme", "floor_ms"),
    [
        # FLUX.1-dev at 1024x1024 takes 74.4 TFLOP a step.
        pytest.param(BF16, 75.197, id="bf16"),
        pytest.param(FP16, 75.197, id="fp16"),
        pytest.param(INT8WO, 75.197, id="weight-only int8 is multiplied in bf16"),
        pytest.param(FP8WO, 75.197, id="weight-only fp8 is multiplied in bf16"),
        pytest.param(INT8DQ, 37.597, id="int8"),
        pytest.param(FP8DQROW, 37.597, id="fp8"),
        pytest.param(INT4DQ, 37.597, id="int4 as int8"),
        pytest.param(INT8DQ_SPARSE24, 18.798, id="2:4 sparse int8"),
    ],
)
def test_the_roofline_is_the_work_at_the_peak_of_what_is_multiplied(scheme: Scheme, floor_ms: float) -> None:
    assert roofline_ms(74.4, scheme=scheme, platform=H100) == pytest.approx(floor_ms, abs=0.001)


@pytest.mark.parametrize(
    ("tflop", "platform"), [(None, H100), (74.4, CPU)], ids=["uncounted work", "a platform without peaks"]
)
def test_a_roofline_needs_counted_work_and_a_peak(tflop: float | None, platform: Platform) -> None:
    assert roofline_ms(tflop, scheme=BF16, platform=platform) is None


def test_every_scheme_that_a_gpu_must_run_has_a_peak_on_it() -> None:
    multiplied = {scheme.id: scheme.gemm for scheme in SCHEMES}
    for platform in PLATFORMS:
        if platform.peak_tflops:
            assert {multiplied[scheme] for scheme in platform.required_schemes} <= platform.peak_tflops.keys()


def at_steps_ms(*steps_ms: Sequence[float]) -> Process:
    """A process of bf16 FLUX.1-dev on an H100, a sample for each sequence of steps."""
    return make_process(
        build=make_build({"step_tflop": 74.4}, roofline_ms=75.2),
        samples=tuple(make_sample({"denoise_step_ms": each}) for each in steps_ms),
    )


def test_a_sample_faster_than_the_roofline_makes_the_run_invalid() -> None:
    run = make_run(processes=(at_steps_ms([100.0, 101.0]), at_steps_ms([100.0], [60.0, 61.0, 62.0])))
    assert invalidity(run) == (
        "a denoise step took 61 ms during process 2, and its 74.4 TFLOP cannot take less than 75.2 ms on "
        "this GPU: part of the work was skipped, or the clock is wrong"
    )


def test_a_sample_at_the_roofline_is_valid() -> None:
    assert invalidity(make_run(processes=(at_steps_ms([75.2]),))) is None


def test_a_sample_with_one_step_below_the_roofline_is_valid() -> None:
    # An event recorded late shortens one span and lengthens its neighbour.
    assert invalidity(make_run(processes=(at_steps_ms([70.0, 130.0, 100.0]),))) is None


# Clocks


def test_a_slowdown_that_the_clock_explains_vanishes_in_cycles() -> None:
    note = in_cycles(3.0, limit_pct=1.0, clocks_mhz=(1650.0, 1649.0, 1651.0), baseline_mhz=(1700.0,))
    assert note == (
        "vanishes in cycles (-0.03 % at 1650 MHz, 1700 MHz in the baseline): "
        "the code burns more power, or the card ran slower"
    )


@pytest.mark.parametrize(
    ("clocks_mhz", "baseline_mhz"),
    [
        pytest.param((1700.0,), (1700.0,), id="the same clock"),
        pytest.param((1690.0,), (1700.0,), id="a clock that explains part of it"),
        pytest.param((1800.0,), (1700.0,), id="a faster clock"),
        pytest.param((), (1700.0,), id="none now"),
        pytest.param((1650.0,), (), id="none in the baseline"),
    ],
)
def test_any_other_slowdown_does_not_vanish_in_cycles(
    clocks_mhz: Sequence[float], baseline_mhz: Sequence[float]
) -> None:
    assert in_cycles(3.0, limit_pct=1.0, clocks_mhz=clocks_mhz, baseline_mhz=baseline_mhz) is None


def test_the_clock_of_a_process_is_the_median_of_its_samples() -> None:
    def process(*clocks_mhz: float) -> Process:
        return make_process(samples=tuple(make_sample({"mean_sm_clock_mhz": [mhz]}) for mhz in clocks_mhz))

    silent = make_process(samples=(make_sample({"mean_sm_clock_mhz": []}),))
    run = make_run(processes=(process(1600.0, 1700.0, 1610.0), silent, process(1500.0)))
    assert sample_clocks_mhz(run) == (1610.0, 1500.0)


# The control

BEFORE = {
    "control_gemm_ms": [1.50, 1.49, 1.51],
    "control_attention_ms": [0.40],
    "control_sm_clock_mhz": [1700.0],
    "denoise_step_ms": [100.0],
}


def test_a_control_that_moved_is_reported_with_its_clock() -> None:
    now = {"control_gemm_ms": [1.56], "control_attention_ms": [0.404], "control_sm_clock_mhz": [1632.0]}
    found = control(now, BEFORE)
    assert found.moved
    assert found.text == (
        "the control moved (GEMM +4.0 %, attention +1.0 %, SM clock -4.0 %; tolerance 2 %): the card, its "
        "driver or the libraries became slower or faster, independent of the code under test"
    )


def test_a_control_that_became_faster_has_moved() -> None:
    assert control({"control_attention_ms": [0.38]}, BEFORE).moved


def test_a_control_within_its_tolerance_did_not_move() -> None:
    found = control({"control_gemm_ms": [1.52], "control_attention_ms": [0.40]}, BEFORE)
    assert not found.moved
    assert found.text == "the control did not move (GEMM +1.3 %, attention +0.0 %; tolerance 2 %)"


def test_a_control_on_another_card_may_differ_by_more() -> None:
    assert not control({"control_gemm_ms": [1.56]}, BEFORE, tolerance_pct=8.0).moved


def test_a_control_without_a_baseline_is_not_compared() -> None:
    found = control({"control_gemm_ms": [1.5]}, {"denoise_step_ms": [100.0]})
    assert (found.moved, found.change_pct) == (False, {})
    assert found.text == "the control has nothing to compare with"


def test_the_control_of_a_session_is_that_of_all_its_processes() -> None:
    def process(**values: float) -> Process:
        return make_process(build=msgspec.structs.replace(make_build(), values=values))

    runs = (
        make_run(processes=(process(control_gemm_ms=1.5, control_attention_ms=0.4), process())),
        make_run(processes=(process(control_gemm_ms=1.6, control_attention_ms=0.5, step_tflop=1.0),)),
    )
    assert control_values(runs) == {
        "control_gemm_ms": [1.5, 1.6],
        "control_attention_ms": [0.4, 0.5],
        "control_sm_clock_mhz": [],
    }


@pytest.mark.parametrize(
    ("pressure_pct", "load", "excused"),
    [(50.1, 0.0, True), (50.0, 99.0, False), (None, 2.1, True), (None, 2.0, False)],
)
def test_a_worker_without_an_answer_is_excused_by_half_the_time_under_pressure_or_two_tasks_per_processor(
    pressure_pct: float | None, load: float, excused: bool
) -> None:
    assert bool(excuse_of_timeout(pressure_pct, load)) == excused
