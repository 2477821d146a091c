"""Sessions that are opened without pytest, and baselines that a test edits."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from perf_tests.harness.baselines import files
from perf_tests.harness.baselines.entry import Baselines
from perf_tests.harness.plugin.session import PerfSession
from perf_tests.tables.metrics.spec import Group
from perf_tests.tables.platforms import Platform
from perf_tests.unit.builders import store_baselines
from perf_tests.unit.conftest import CASES, INT8WO, Suite, make_options
from perf_tests.unit.harness.plugin.sessions import QUICK, Edit, Open


@pytest.fixture
def open_session(tmp_path: Path, recorded: Path) -> Open:
    """Open a session that owes the build and the quantization of int8wo: one process, two samples."""

    def start(platform: Platform = QUICK, **changes: Any) -> PerfSession:
        options = make_options(**{"out": tmp_path / "run", "baselines": recorded, **changes})
        session = PerfSession(options, ("-m", "a marker"))
        session.select(CASES[INT8WO], platform, None)
        session.select(CASES[INT8WO], platform, Group.QUANTIZATION)
        return session

    return start


@pytest.fixture
def edit_baselines(suite: Suite) -> Edit:
    """Give the suite a copy of its baselines in which those of flux-mini on the CPU are others."""

    def edit(change: Callable[[Baselines], Baselines]) -> Path:
        suite.baselines = Path(shutil.copytree(suite.baselines, suite.folder / "baselines"))
        store_baselines(suite.baselines, change(files.read(suite.baselines, "cpu", "flux-mini")))
        return suite.baselines

    return edit
