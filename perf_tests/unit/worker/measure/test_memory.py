"""Bytes are counted once, through tensor subclasses, and peaks are the highest of their windows."""

from __future__ import annotations

import torch
from torchao.quantization import Int8WeightOnlyConfig, quantize_

from perf_tests.protocol.reports import MemoryWindow
from perf_tests.worker.measure.memory import peaks, stored_bytes


def test_shared_storage_counts_once() -> None:
    whole = torch.zeros(1024, dtype=torch.float32)
    assert stored_bytes([whole, whole[:512], whole.view(32, 32)]) == 4096


def test_a_quantized_weight_counts_its_data_its_scales_and_its_zero_points() -> None:
    linear = torch.nn.Linear(64, 32, bias=False, dtype=torch.bfloat16)
    quantize_(linear, Int8WeightOnlyConfig(set_inductor_config=False))
    # 32 rows of 64 int8, each with a float32 scale and an int8 zero point.
    assert stored_bytes([linear.weight]) == 32 * (64 + 4 + 1)


def window(allocated_mib: float | None, rss_mib: float) -> MemoryWindow:
    return MemoryWindow(allocated_mib=allocated_mib, reserved_mib=None, device_mib=None, rss_mib=rss_mib)


def test_a_peak_is_the_highest_of_all_windows() -> None:
    assert peaks([window(100.0, 7.0), window(90.0, 8.0)]) == {
        "peak_allocated_mib": 100.0,
        "peak_rss_mib": 8.0,
    }


def test_a_counter_the_device_lacks_is_absent() -> None:
    assert peaks([window(None, 7.0)]) == {"peak_rss_mib": 7.0}
