"""lanes/machine.py: what a fake NVML reports in, a GPU, its platform or a refusal out."""

from __future__ import annotations

import msgspec
import pynvml
import pytest

from perf_tests.harness.lanes.machine import first_gpu, mismatch, recognise
from perf_tests.protocol.errors import UsageError
from perf_tests.protocol.reports import Gpu
from perf_tests.tables.platforms import A100, B200, CPU, H100, H200
from perf_tests.unit.conftest import Plug

H100_CARD = Gpu(
    name="NVIDIA H100 80GB HBM3",
    uuid="GPU-1",
    capability=(9, 0),
    memory_gib=79.6,
    power_limit_w=700.0,
    driver="580",
)


def nvml_fails(monkeypatch: pytest.MonkeyPatch, function: str, code: int) -> None:
    def fail(*arguments: object) -> None:
        raise pynvml.NVMLError(code)

    monkeypatch.setattr(pynvml, function, fail)


@pytest.mark.parametrize(
    "code",
    [pynvml.NVML_ERROR_LIBRARY_NOT_FOUND, pynvml.NVML_ERROR_DRIVER_NOT_LOADED],
    ids=["library", "driver"],
)
def test_a_machine_without_a_driver_has_no_gpu(monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    nvml_fails(monkeypatch, "nvmlInit", code)
    assert first_gpu() is None


def test_a_driver_that_does_not_answer_is_not_a_machine_without_a_gpu(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    nvml_fails(monkeypatch, "nvmlInit", pynvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH)
    with pytest.raises(UsageError, match="repair the driver"):
        first_gpu()


def test_a_gpu_that_is_lost_is_one_sentence(plug_gpu: Plug, monkeypatch: pytest.MonkeyPatch) -> None:
    plug_gpu()
    nvml_fails(monkeypatch, "nvmlDeviceGetName", pynvml.NVML_ERROR_GPU_IS_LOST)
    with pytest.raises(UsageError, match="GPU is lost"):
        first_gpu()


def test_the_first_gpu_is_described_in_gib_and_watts(plug_gpu: Plug) -> None:
    plug_gpu()
    gpu = first_gpu()
    assert gpu is not None
    assert (gpu.name, gpu.capability) == ("NVIDIA H100 80GB HBM3", (9, 0))
    assert (gpu.memory_gib, gpu.power_limit_w, gpu.driver) == (80.0, 700.0, "580.10")


@pytest.mark.parametrize("visible", ["0", " 0,1", "GPU-12345678-fake", "GPU-1234"])
def test_the_visible_gpu_may_be_named_as_cuda_allows(
    plug_gpu: Plug, monkeypatch: pytest.MonkeyPatch, visible: str
) -> None:
    plug_gpu()
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    gpu = first_gpu()
    assert gpu is not None
    assert gpu.uuid == "GPU-12345678-fake"


@pytest.mark.parametrize("hidden", ["", "-1"])
def test_a_machine_that_hides_its_gpus_has_none(
    plug_gpu: Plug, monkeypatch: pytest.MonkeyPatch, hidden: str
) -> None:
    plug_gpu()
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", hidden)
    assert first_gpu() is None


@pytest.mark.parametrize("visible", ["1", "GPU-9", "gpu"])
def test_a_named_gpu_that_does_not_exist_is_refused(
    plug_gpu: Plug, monkeypatch: pytest.MonkeyPatch, visible: str
) -> None:
    plug_gpu()
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    with pytest.raises(
        UsageError, match=f"CUDA_VISIBLE_DEVICES names the GPU '{visible}', which is not among the 1 that"
    ):
        first_gpu()


def test_a_mig_slice_is_refused(plug_gpu: Plug, monkeypatch: pytest.MonkeyPatch) -> None:
    plug_gpu()
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "MIG-12345678")
    with pytest.raises(UsageError, match="MIG slice MIG-12345678: give the suite a whole GPU"):
        first_gpu()


def test_a_card_divided_into_slices_is_refused_although_it_looks_whole(plug_gpu: Plug) -> None:
    plug_gpu(mig=pynvml.NVML_DEVICE_MIG_ENABLE)
    with pytest.raises(UsageError, match="divided into MIG slices: give the suite a whole GPU"):
        first_gpu()


def test_a_card_without_support_for_slices_is_whole(plug_gpu: Plug, monkeypatch: pytest.MonkeyPatch) -> None:
    plug_gpu()
    nvml_fails(monkeypatch, "nvmlDeviceGetMigMode", pynvml.NVML_ERROR_NOT_SUPPORTED)
    assert first_gpu() is not None


@pytest.mark.parametrize(
    ("changes", "platform"),
    [
        ({}, H100),
        ({"name": "NVIDIA H200", "memory_gib": 140}, H200),
        ({"name": "NVIDIA A100-SXM4-80GB", "capability": (8, 0), "power_limit_w": 400}, A100),
        (
            {
                "name": "NVIDIA B200",
                "capability": (10, 0),
                "memory_gib": 183359 / 1024,
                "power_limit_w": 1000,
            },
            B200,
        ),
    ],
    ids=["h100", "h200", "a100", "b200"],
)
def test_a_gpu_that_the_table_describes_is_its_platform(
    plug_gpu: Plug, changes: dict[str, object], platform: object
) -> None:
    plug_gpu(**changes)
    gpu = first_gpu()
    assert gpu is not None
    assert recognise(gpu) is platform


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        (
            {"name": "NVIDIA L40S"},
            "unknown GPU 'NVIDIA L40S'.* known are 'NVIDIA H100 80GB HBM3'",
        ),
        (
            {"name": "NVIDIA A100-SXM4-40GB"},
            "unknown GPU 'NVIDIA A100-SXM4-40GB'.* known are 'NVIDIA H100 80GB HBM3'",
        ),
        (
            {"power_limit_w": 500},
            "is not the platform 'h100': power limit 500.0 W, but the table says 650 to 750; set",
        ),
        ({"memory_gib": 40}, "memory 40.0 GiB, but the table says 79 to 81"),
        ({"capability": (8, 9)}, r"compute capability \(8, 9\), but the table says \(9, 0\)"),
    ],
    ids=["name", "memory-in-name", "power", "memory", "capability"],
)
def test_another_gpu_is_refused_with_what_differs(
    plug_gpu: Plug, changes: dict[str, object], says: str
) -> None:
    plug_gpu(**changes)
    gpu = first_gpu()
    assert gpu is not None
    with pytest.raises(UsageError, match=says):
        recognise(gpu)


@pytest.mark.parametrize(
    ("gpu", "problem"),
    [
        pytest.param(H100_CARD, None, id="the card the platform names"),
        pytest.param(None, "sees no GPU, but h100 is one", id="a CPU build of torch"),
        pytest.param(
            msgspec.structs.replace(H100_CARD, name="NVIDIA L40S"),
            "computes on 'NVIDIA L40S'",
            id="another card",
        ),
        pytest.param(
            msgspec.structs.replace(H100_CARD, power_limit_w=500.0),
            "power limit 500.0 W",
            id="a throttled card",
        ),
    ],
)
def test_a_worker_on_hardware_other_than_the_platforms_is_a_mismatch(
    gpu: Gpu | None, problem: str | None
) -> None:
    found = mismatch(H100, gpu)
    assert found is None if problem is None else problem in (found or "")


def test_a_worker_on_any_hardware_may_measure_the_cpu() -> None:
    assert mismatch(CPU, None) is None
