"""protocol/pressure.py: what the kernel tells of tasks that wait for a processor."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from perf_tests.protocol import pressure

SOME = "some avg10=0.02 avg60=0.39 avg300=0.25 total={}\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=7\n"


def test_pressure_is_the_containers_where_it_has_its_own(tmp_path: Path) -> None:
    own, hosts = tmp_path / "cpu.pressure", tmp_path / "cpu"
    hosts.write_text(SOME.format(3309749624))
    assert pressure.stalled_us((own, hosts)) == 3309749624
    own.write_text(SOME.format(12))
    assert pressure.stalled_us((own, hosts)) == 12


def test_a_kernel_that_tells_no_pressure_leaves_it_open(
    tmp_path: Path,
) -> None:
    assert pressure.stalled_us((tmp_path / "cpu",)) is None
    assert pressure.PressureMeter(stalled_us=None).pressure_pct() is None


def test_pressure_is_the_share_of_the_time_since_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pressure, "stalled_us", lambda: 1_500_000)
    monkeypatch.setattr(time, "monotonic", lambda: 102.0)
    assert pressure.PressureMeter(started_s=100.0, stalled_us=1_000_000).pressure_pct() == 25.0
