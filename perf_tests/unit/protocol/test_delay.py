"""protocol/pressure.py: how long the main thread of one process had to wait for a processor."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from perf_tests.protocol import pressure
from perf_tests.protocol.pressure import DelayMeter, delayed_ns


def test_the_second_field_of_schedstat_is_the_delay(tmp_path: Path) -> None:
    (tmp_path / "42").mkdir()
    (tmp_path / "42" / "schedstat").write_text("5000 1234 7\n")
    assert delayed_ns(42, tmp_path) == 1234


@pytest.mark.parametrize("content", ["", "5000\n", "x y z\n"])
def test_a_kernel_that_does_not_tell_leaves_it_unknown(tmp_path: Path, content: str) -> None:
    (tmp_path / "42").mkdir()
    (tmp_path / "42" / "schedstat").write_text(content)
    assert delayed_ns(42, tmp_path) is None
    assert delayed_ns(43, tmp_path) is None


def test_a_quarter_of_the_time_without_a_processor_is_25_percent(monkeypatch: pytest.MonkeyPatch) -> None:
    delays, clock = iter([1_000_000_000, 1_500_000_000]), iter([10.0, 12.0])
    monkeypatch.setattr(pressure, "delayed_ns", lambda pid: next(delays))
    monkeypatch.setattr("time.monotonic", lambda: next(clock))
    assert DelayMeter(os.getpid(), next(clock)).pressure_pct() == 25.0
