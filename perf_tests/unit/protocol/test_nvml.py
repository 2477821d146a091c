"""protocol/nvml.py: what a fake NVML answers or refuses in, readings and reasons out."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pynvml
import pytest

from perf_tests.protocol.nvml import Card, ComputeProcess

Give = Callable[[str, Any], None]
"""Called with the name of an NVML function, and what it returns or the number of the error it raises."""

NOT_SUPPORTED = pynvml.NVML_ERROR_NOT_SUPPORTED
EVENT_REASON_NS = {74: 9_000_000_000, 76: 0, 269: 1_000_000, 270: 2_000_000, 271: 3_000_000}
VIOLATION_NS = {0: 7_000_000, 1: 500_000, 3: 0, 5: 0}


class Refused(int):
    """An error number that a fake raises."""


@pytest.fixture
def give(monkeypatch: pytest.MonkeyPatch) -> Give:
    """Make an NVML function return a value, or call a function given in its place."""

    def set_to(name: str, value: Any) -> None:
        def answer(*arguments: Any) -> Any:
            if isinstance(value, Refused):
                raise pynvml.NVMLError(int(value))
            return value(*arguments) if callable(value) else value

        monkeypatch.setattr(pynvml, name, answer)

    return set_to


def fields(counters: dict[int, int]) -> Callable[..., Any]:
    """nvmlDeviceGetFieldValues of a card that has these fields."""

    def one(number: int) -> SimpleNamespace:
        value = SimpleNamespace(ullVal=counters.get(number, 12345))
        code = pynvml.NVML_SUCCESS if number in counters else NOT_SUPPORTED
        return SimpleNamespace(
            nvmlReturn=code, valueType=pynvml.NVML_VALUE_TYPE_UNSIGNED_LONG_LONG, value=value
        )

    return lambda handle, numbers: [one(number) for number in numbers]


def violations(counters: dict[int, int]) -> Callable[..., Any]:
    """nvmlDeviceGetViolationStatus of a card that has these policies."""

    def one(handle: Any, policy: int) -> SimpleNamespace:
        if policy not in counters:
            raise pynvml.NVMLError(NOT_SUPPORTED)
        return SimpleNamespace(violationTime=counters[policy])

    return one


@pytest.fixture
def card(give: Give) -> Card:
    """A card that has both families of throttle counters and nothing else."""
    give("nvmlDeviceGetFieldValues", fields(EVENT_REASON_NS))
    give("nvmlDeviceGetViolationStatus", violations(VIOLATION_NS))
    return Card("handle")


def test_the_clock_event_reason_counters_come_first(card: Card) -> None:
    assert card.counters is not None
    assert card.counters.name == "clock event reason counters"
    assert card.throttled_ns() == {
        "power": 9_000_000_000,
        "sync_boost": 0,
        "sw_thermal": 1_000_000,
        "hw_thermal": 2_000_000,
        "hw_power_brake": 3_000_000,
    }
    assert card.unavailable == {}


def test_a_driver_without_a_decisive_cause_is_asked_for_violations(give: Give) -> None:
    give("nvmlDeviceGetFieldValues", fields({74: 1, 76: 1, 269: 1, 270: 1}))
    give("nvmlDeviceGetViolationStatus", violations({1: 500_000, 0: 7}))
    card = Card("handle")
    assert card.counters is not None
    assert card.counters.name == "violation status"
    assert card.throttled_ns() == {"power": 7, "thermal": 500_000}
    assert card.unavailable == {
        "throttled_ms.board": "Not Supported",
        "throttled_ms.reliability": "Not Supported",
    }


def test_a_card_without_throttle_counters_says_so_and_has_none(give: Give) -> None:
    give("nvmlDeviceGetFieldValues", Refused(pynvml.NVML_ERROR_FUNCTION_NOT_FOUND))
    give("nvmlDeviceGetViolationStatus", Refused(NOT_SUPPORTED))
    card = Card("handle")
    assert card.counters is None
    assert card.throttled_ns() == {}
    assert card.unavailable["throttled_ms.hw_thermal"] == "Function Not Found"
    assert card.unavailable["throttled_ms.thermal"] == "Not Supported"


READINGS: dict[str, tuple[str, Callable[[Card], Any], Any, Any]] = {
    # NVML's function -> the name of the reading, how it is taken, what NVML gives, what is read
    "nvmlDeviceGetPowerUsage": ("power_w", Card.power_w, 690_500, 690.5),
    "nvmlDeviceGetTemperature": ("temperature_c", Card.temperature_c, 61, 61.0),
    "nvmlDeviceGetClockInfo": ("sm_clock_mhz", lambda card: card.clock_mhz("sm_clock_mhz", 1), 1755, 1755.0),
    "nvmlDeviceGetMemoryInfo": ("device_used_mib", Card.used_mib, SimpleNamespace(used=3 << 30), 3072.0),
    "nvmlDeviceGetUtilizationRates": (
        "idle_utilization_pct",
        Card.utilization_pct,
        SimpleNamespace(gpu=7),
        7.0,
    ),
    "nvmlDeviceGetCurrentClocksEventReasons": (
        "throttle_reasons",
        Card.throttle_reasons,
        0x44,
        ("SwPowerCap", "HwThermalSlowdown"),
    ),
    "nvmlDeviceGetComputeRunningProcesses": (
        "compute_processes",
        Card.compute_processes,
        [SimpleNamespace(pid=7, usedGpuMemory=512 << 20), SimpleNamespace(pid=0, usedGpuMemory=None)],
        (ComputeProcess(pid=7, used_mib=512.0), ComputeProcess(pid=0, used_mib=None)),
    ),
}


@pytest.mark.parametrize("function", READINGS)
def test_a_reading_is_returned_or_reported_as_refused(card: Card, give: Give, function: str) -> None:
    name, read, given, expected = READINGS[function]
    give(function, given)
    assert read(card) == expected
    give(function, Refused(pynvml.NVML_ERROR_NO_PERMISSION))
    assert read(card) is None
    assert card.unavailable == {name: "Insufficient Permissions"}


def test_memory_allocated_by_processes_excludes_the_drivers(card: Card, give: Give) -> None:
    def info(handle: Any, version: int) -> SimpleNamespace:
        assert version == pynvml.nvmlMemory_v2
        return SimpleNamespace(used=2 << 20)

    give("nvmlDeviceGetMemoryInfo", info)
    assert card.allocated_mib() == 2.0


def test_ecc_errors_are_counted_by_kind(card: Card, give: Give) -> None:
    give("nvmlDeviceGetTotalEccErrors", lambda handle, kind, counter: 10 * kind + counter)
    # Corrected is 0 and uncorrected 1 to NVML, the volatile counter 0.
    assert card.ecc_errors() == {"corrected": 0, "uncorrected": 10}


def test_a_card_without_ecc_has_no_errors_to_compare(card: Card, give: Give) -> None:
    give("nvmlDeviceGetTotalEccErrors", Refused(NOT_SUPPORTED))
    assert card.ecc_errors() == {}
    assert card.unavailable["ecc_errors.uncorrected"] == "Not Supported"


def clocks(*samples: tuple[int, int]) -> tuple[int, list[SimpleNamespace]]:
    return pynvml.NVML_VALUE_TYPE_UNSIGNED_INT, [
        SimpleNamespace(timeStamp=time_us, sampleValue=SimpleNamespace(uiVal=mhz)) for time_us, mhz in samples
    ]


def test_the_mean_clock_is_that_of_the_samples_after_the_window_began(card: Card, give: Give) -> None:
    give("nvmlDeviceGetSamples", clocks((100, 1980)))
    began_us = card.last_sm_clock_us()
    # Drivers fill what they do not have with zeros, and may give what was asked for before.
    give("nvmlDeviceGetSamples", clocks((0, 0), (100, 1980), (200, 1700), (300, 1600)))
    assert began_us == 100
    assert card.mean_sm_clock_mhz(began_us) == 1650.0


def test_a_mean_clock_needs_samples(card: Card, give: Give) -> None:
    give("nvmlDeviceGetSamples", Refused(pynvml.NVML_ERROR_NOT_FOUND))
    assert card.last_sm_clock_us() == 0
    assert card.mean_sm_clock_mhz(0) is None
    assert card.unavailable["mean_sm_clock_mhz"] == "Not Found"


def test_the_utilization_of_a_process_is_its_highest(card: Card, give: Give) -> None:
    samples = [
        SimpleNamespace(pid=7, smUtil=40, timeStamp=10),
        SimpleNamespace(pid=7, smUtil=90, timeStamp=30),
        SimpleNamespace(pid=8, smUtil=0, timeStamp=20),
    ]
    give("nvmlDeviceGetProcessUtilization", samples)
    assert card.sm_utilization_pct(0) == {7: 90}
    assert card.last_utilization_us() == 30


@pytest.mark.parametrize("code", [pynvml.NVML_SUCCESS, pynvml.NVML_ERROR_NOT_FOUND])
def test_a_gpu_on_which_no_process_computed_is_not_a_missing_reading(
    card: Card, give: Give, code: int
) -> None:
    give("nvmlDeviceGetProcessUtilization", Refused(code))
    assert card.sm_utilization_pct(0) == {}
    assert card.unavailable == {}
