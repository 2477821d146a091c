"""Readings tell what happened on the GPU during a generation, and which processes were on it."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pynvml
import pytest
import torch

from perf_tests.protocol import pressure
from perf_tests.protocol.nvml import ComputeProcess
from perf_tests.worker.measure import host
from perf_tests.worker.measure.telemetry import GpuMonitor, foreign

OWN, PARENT, SIBLING = 100, 99, 101
OURS = {OWN, PARENT, SIBLING}


def process(pid: int, used_mib: float | None = 500.0) -> ComputeProcess:
    return ComputeProcess(pid=pid, used_mib=used_mib)


@pytest.mark.parametrize(
    ("pids", "busy_pct", "strangers"),
    [
        pytest.param([OWN], {OWN: 99}, (), id="alone"),
        pytest.param([OWN, SIBLING], {OWN: 99, SIBLING: 40}, (), id="with another worker of the session"),
        pytest.param([OWN, 4711], {OWN: 99}, ("process 4711 (500 MiB)",), id="an idle stranger"),
        pytest.param(
            [OWN, 4711], {4711: 87}, ("process 4711 (500 MiB, 87 % of the SMs' time)",), id="a busy stranger"
        ),
        pytest.param([OWN], {4711: 87}, ("process 4711 (87 % of the SMs' time)",), id="one that has left"),
        pytest.param([OWN, 0], {}, ("a hidden process (500 MiB)",), id="one whose id is hidden"),
    ],
)
def test_a_stranger_is_any_process_that_is_not_of_the_session(
    pids: list[int], busy_pct: dict[int, int], strangers: tuple[str, ...]
) -> None:
    listed = tuple(map(process, pids))
    assert foreign(listed, busy_pct, ours=OURS, computing=1, own=OWN) == strangers


@pytest.mark.parametrize(
    ("pids", "busy_pct", "computing", "strangers"),
    [
        pytest.param([70001], {70001: 99}, 1, (), id="the worker under another id"),
        pytest.param([70001, 70002], {70001: 9, 70002: 9}, 2, (), id="two workers of the session"),
        pytest.param([70001], {}, 0, (), id="a worker that cannot see itself"),
        pytest.param([70001, 70002], {}, 1, ("1 of unknown id hold a context",), id="a stranger"),
        pytest.param(
            [0, 0, 0],
            {70001: 9, 70002: 9},
            1,
            ("2 of unknown id hold a context", "1 of unknown id computed at the same time"),
            id="hidden ids",
        ),
    ],
)
def test_processes_of_another_namespace_are_only_counted(
    pids: list[int], busy_pct: dict[int, int], computing: int, strangers: tuple[str, ...]
) -> None:
    listed = tuple(map(process, pids))
    assert foreign(listed, busy_pct, ours=OURS, computing=computing, own=OWN) == strangers


class FakeGpu:
    """One GPU as NVML and torch report it; a test changes its fields between two readings."""

    def __init__(self) -> None:
        self.used_mib = 1000.0
        self.reserved_mib = 0.0
        self.thermal_ns = 5_000_000
        self.ecc_errors = 3
        self.clocks = [(10, 1980)]
        self.pids = [OWN]
        self.utilization_pct = 0

    def functions(self) -> dict[str, Any]:
        """Name -> NVML's function."""
        return {
            "nvmlInit": lambda: None,
            "nvmlDeviceGetHandleByUUID": lambda uuid: uuid,
            "nvmlDeviceGetFieldValues": lambda handle, numbers: [self._field(number) for number in numbers],
            "nvmlDeviceGetTotalEccErrors": lambda handle, kind, counter: self.ecc_errors,
            "nvmlDeviceGetMemoryInfo": lambda *_: SimpleNamespace(used=self.used_mib * 2**20),
            "nvmlDeviceGetUtilizationRates": lambda handle: SimpleNamespace(gpu=self.utilization_pct),
            "nvmlDeviceGetComputeRunningProcesses": lambda handle: [
                SimpleNamespace(pid=pid, usedGpuMemory=None) for pid in self.pids
            ],
            "nvmlDeviceGetProcessUtilization": lambda handle, after_us: [],
            "nvmlDeviceGetSamples": lambda handle, kind, after_us: (
                1,
                [self._clock(*c) for c in self.clocks],
            ),
            "nvmlDeviceGetCurrentClocksEventReasons": lambda handle: 0x4,
            "nvmlDeviceGetClockInfo": lambda handle, clock: {1: 1755, 2: 2619}[clock],
            "nvmlDeviceGetPowerUsage": lambda handle: 690_000,
            "nvmlDeviceGetTemperature": self._no_temperature,
        }

    def _field(self, number: int) -> SimpleNamespace:
        value = SimpleNamespace(ullVal=self.thermal_ns if number == 270 else 0)
        return SimpleNamespace(nvmlReturn=0, valueType=3, value=value)

    def _clock(self, time_us: int, mhz: int) -> SimpleNamespace:
        return SimpleNamespace(timeStamp=time_us, sampleValue=SimpleNamespace(uiVal=mhz))

    def _no_temperature(self, handle: Any, sensor: int) -> float:
        raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> FakeGpu:
    fake = FakeGpu()
    for name, function in fake.functions().items():
        monkeypatch.setattr(pynvml, name, function)
    properties = SimpleNamespace(uuid="1234")
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: properties)
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda: fake.reserved_mib * 2**20)
    monkeypatch.setattr("os.getpid", lambda: OWN)
    monkeypatch.setattr(host, "session_pids", lambda: frozenset(OURS))
    monkeypatch.setattr(host, "computing", lambda pids: frozenset({OWN}) & pids)
    monkeypatch.setattr(pressure, "load_per_core", lambda: 0.25)
    monkeypatch.setattr(pressure.PressureMeter, "pressure_pct", lambda meter: 1.5)
    return fake


def test_a_reading_tells_what_happened_since_the_generation_began(gpu: FakeGpu) -> None:
    monitor = GpuMonitor()
    gpu.thermal_ns += 1_000_000  # while nothing was measured
    gpu.clocks.append((20, 300))
    monitor.begin()
    gpu.thermal_ns += 2_500_000
    gpu.ecc_errors += 1
    gpu.clocks += [(30, 1700), (40, 1600)]
    gpu.used_mib, gpu.reserved_mib = 9000.0, 7700.0
    gpu.pids.append(4711)
    assert monitor.values() == {"mean_sm_clock_mhz": (1650.0,)}
    found = monitor.read()
    assert found.throttled_ms["hw_thermal"] == 2.5
    assert found.throttled_ms["hw_power_brake"] == 0.0
    assert found.throttle_counters == "clock event reason counters"
    assert found.throttle_reasons == ("SwPowerCap",)
    assert found.ecc_errors == {"corrected": 1, "uncorrected": 1}
    assert found.unaccounted_mib == 300.0
    assert (found.compute_processes, found.foreign_processes) == (2, ("process 4711",))
    assert (found.sm_clock_mhz, found.memory_clock_mhz, found.power_w) == (1755.0, 2619.0, 690.0)
    assert (found.load_per_core, found.cpu_pressure_pct) == (0.25, 1.5)
    assert found.temperature_c is None
    assert found.unavailable == {"temperature_c": "Not Supported"}


def test_memory_and_load_from_before_the_worker_are_in_every_reading(gpu: FakeGpu) -> None:
    gpu.used_mib, gpu.utilization_pct = 20000.0, 98
    monitor = GpuMonitor(lambda seconds: None)
    gpu.used_mib, gpu.utilization_pct = 1000.0, 0
    found = monitor.read()
    assert (found.allocated_before_mib, found.idle_utilization_pct) == (20000.0, 98.0)


def test_work_of_the_worker_before_is_forgotten(gpu: FakeGpu) -> None:
    gpu.utilization_pct = 46
    slept: list[float] = []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        gpu.utilization_pct = {3: 20, 4: 0}.get(len(slept), 46)

    assert GpuMonitor(sleep).read().idle_utilization_pct == 0.0
    assert slept == [0.1, 0.1, 0.1, 0.1]


def test_work_that_goes_on_is_waited_for_two_seconds(gpu: FakeGpu) -> None:
    gpu.utilization_pct = 46
    slept: list[float] = []
    assert GpuMonitor(slept.append).read().idle_utilization_pct == 46.0
    assert sum(slept) == pytest.approx(2.0)


def test_memory_from_before_is_unknown_while_another_worker_of_the_session_computes(
    gpu: FakeGpu, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(host, "computing", lambda pids: frozenset({SIBLING}) & pids)
    assert GpuMonitor().read().allocated_before_mib is None


def test_foreign_processes_are_unknown_in_a_container_that_hides_all_processes(gpu: FakeGpu) -> None:
    gpu.pids.clear()
    found = GpuMonitor().read()
    assert (found.compute_processes, found.foreign_processes) == (0, None)
    assert found.unavailable["foreign_processes"].startswith("NVML lists no process, not even this worker")


def test_a_generation_without_clock_samples_has_no_clock(gpu: FakeGpu) -> None:
    monitor = GpuMonitor()
    assert monitor.values() == {}


# The host


def make_proc(folder: Path, processes: dict[int, int], computing: tuple[int, ...] = ()) -> Path:
    """A /proc with pid -> parent, in which those of `computing` have CUDA open."""
    for pid, parent in processes.items():
        descriptors = folder / str(pid) / "fd"
        descriptors.mkdir(parents=True)
        (folder / str(pid) / "stat").write_text(f"{pid} (python (3.11) x) S {parent} {pid} 0")
        (descriptors / "0").symlink_to("/dev/null")
        (descriptors / "3").symlink_to("/dev/nvidia-uvm" if pid in computing else "/dev/nvidiactl")
    (folder / "self").mkdir()
    return folder


def test_a_session_is_the_parent_and_all_its_descendants(tmp_path: Path) -> None:
    proc = make_proc(tmp_path, {1: 0, 50: 1, 99: 50, 100: 99, 101: 99, 102: 100, 4711: 50})
    assert host.session_pids(proc, root=99) == {99, 100, 101, 102}


def test_a_process_computes_if_it_has_cuda_open_and_not_if_it_only_watches(tmp_path: Path) -> None:
    proc = make_proc(tmp_path, {99: 1, 100: 99, 101: 99}, computing=(100,))
    assert host.computing(frozenset({99, 100, 101, 102}), proc) == {100}


def test_of_several_cards_only_processes_that_were_given_this_one_count(tmp_path: Path) -> None:
    proc = make_proc(tmp_path, {99: 1, 100: 99, 101: 99, 102: 99}, computing=(100, 101, 102))
    (proc / "100" / "environ").write_bytes(b"HOME=/root\0CUDA_VISIBLE_DEVICES=GPU-1\0")
    (proc / "101" / "environ").write_bytes(b"CUDA_VISIBLE_DEVICES=GPU-2\0")
    (proc / "102" / "environ").write_bytes(b"HOME=/root\0")
    assert host.computing(frozenset({100, 101, 102}), proc, card="GPU-1") == {100}


def test_this_process_and_its_parent_belong_to_the_session() -> None:
    assert {os.getpid(), os.getppid()} <= host.session_pids()
