"""Arguments that the tests give to sessions, and readers of what a session prints."""

from __future__ import annotations

import dataclasses
import itertools
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from perf_tests.harness.baselines.entry import Baselines
from perf_tests.harness.plugin import collection
from perf_tests.harness.plugin.session import PerfSession
from perf_tests.harness.runs import journal
from perf_tests.tables.known_issues import KNOWN_ISSUES
from perf_tests.tables.matrix import CPU_ROWS, MATRIX
from perf_tests.tables.metrics.spec import Group
from perf_tests.tables.platforms import CPU, H100, Platform
from perf_tests.unit.conftest import BF16, CASES, COMPILED, FP8DQROW, INT8WO, ROOT, make_options

ONLY_BF16 = f"--perf-case={BF16}"
ONLY_INT8WO = f"--perf-case={INT8WO}"
BOTH = (ONLY_BF16, ONLY_INT8WO)
THREE = (*BOTH, f"--perf-case={COMPILED}")
SCHNELL = "--perf-case=flux1-schnell-*[!h]??"
"""Nine cases of two families of H100 rows, compiled and eager: without the one that is graphed."""
BUILD = str(ROOT / "perf_tests" / "test_build.py")
LATENCY = str(ROOT / "perf_tests" / "test_latency.py")
RATIO = "time_ratio_vs_fp32"
NAMES = len(MATRIX) + len(KNOWN_ISSUES)
"""How many names `--perf-case` may match."""
UUID = "GPU-00000000-fake"
"""The UUID of the GPU that the fake worker reports."""
QUICK = dataclasses.replace(CPU, samples=2)
"""The CPU platform, with fewer samples per process."""

Open = Callable[..., PerfSession]
"""The fixture `open_session`."""
Edit = Callable[[Callable[[Baselines], Baselines]], Path]
"""The fixture `edit_baselines`."""


def on_platform(monkeypatch: pytest.MonkeyPatch, platform: Platform) -> None:
    """Have the CPU cases measured on `platform`, which differs from the row of the table."""
    rows = tuple(dataclasses.replace(row, platforms=(platform,)) for row in CPU_ROWS)
    monkeypatch.setattr(collection, "MATRIX", rows)


def on_h100(out: Path, baselines: Path, **changes: Any) -> PerfSession:
    """A session that owes the latency of one H100 case, whose baseline in `recorded` holds one process."""
    session = PerfSession(make_options(out=out, baselines=baselines, **changes), (), UUID)
    session.select(CASES[FP8DQROW], H100, Group.LATENCY)
    return session


def screen(result: pytest.RunResult) -> str:
    """All that the session printed, which must never hold a traceback through the suite itself."""
    text = f"{result.stdout}\n{result.stderr}"
    assert "Traceback (most recent call last)" not in text
    assert "/harness/" not in text
    return text


def failed_tests(result: pytest.RunResult) -> list[str]:
    """The names of the failed tests, with their parameters."""
    lines = (line for line in result.outlines if line.startswith("FAILED "))
    return [line.split()[1].rpartition("::")[2] for line in lines]


def collected(result: pytest.RunResult) -> set[str]:
    """The ids of the cases whose `test_build` was collected."""
    return {line.partition("[")[2].rstrip("]") for line in result.outlines if "test_build.py::" in line}


@contextmanager
def killed_after(lines: int, out: Path) -> Iterator[None]:
    """A session that is run meanwhile leaves in `out` what it would have left, had SIGKILL ended it once its
    journal held so many lines. One that is really killed takes ten times as long: test_session_costs.py."""
    left, written, write = out.with_name("killed"), itertools.count(), journal._write_all

    def copy_and_write(descriptor: int, content: bytes) -> None:
        if next(written) == lines:
            shutil.copytree(out, left, copy_function=_copy_if_there)
        write(descriptor, content)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(journal, "_write_all", copy_and_write)
        yield
    shutil.rmtree(out)
    left.rename(out)


def _copy_if_there(source: str, target: str) -> None:
    with suppress(FileNotFoundError):  # another card's case is compared meanwhile, and its arrays go
        shutil.copy2(source, target)


def until(reached: Callable[[], bool], *, timeout_s: float) -> bool:
    """Wait until `reached` holds; False where it does not within `timeout_s`."""
    deadline = time.monotonic() + timeout_s
    while not reached():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True
