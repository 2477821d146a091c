"""Campaigns on fake workers that end with the test."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest

from perf_tests.harness.execution.campaign import Campaign
from perf_tests.harness.execution.lane import Callbacks
from perf_tests.harness.execution.launcher import Stack
from perf_tests.harness.execution.planned import Planned
from perf_tests.harness.execution.sampling import SamplingRules
from perf_tests.harness.processes.worker_process import Worker
from perf_tests.harness.runs.store import SessionStart
from perf_tests.protocol.messages import Injection
from perf_tests.tables.platforms import Platform
from perf_tests.unit.conftest import FAKE_WORKER
from perf_tests.unit.harness.execution.campaigns import (
    CASES,
    CPU_ALONE,
    CREATED_AT,
    Conduct,
    fixed_processes,
)

T = TypeVar("T")


@pytest.fixture(scope="module")
def fake_workers_server(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Have what forks the fake workers started, by a thread that outlives every lane, before a test looks
    which processes its campaign starts."""
    log = tmp_path_factory.mktemp("logs") / "first.log"
    with Worker.spawn(python=sys.executable, log=log, command=("-m", FAKE_WORKER)):
        pass


@pytest.fixture
def conduct(tmp_path: Path) -> Iterator[Conduct]:
    """Campaigns on fake workers, closed at the end."""
    campaigns = []

    def conduct(
        *case_ids: str,
        platform: Platform = CPU_ALONE,
        injected: tuple[Injection, ...] = (),
        **settings: Any,
    ) -> Campaign:
        selected = [
            Planned(CASES[case_id], platform, injected if case_id == case_ids[0] else ())
            for case_id in case_ids
        ]
        campaign = Campaign(
            settings.pop("selected", selected),
            settings.pop("out", tmp_path),
            _take(settings, Stack, python=sys.executable, command=("-m", FAKE_WORKER)),
            _take(settings, SamplingRules, decide=fixed_processes(1), max_processes=5),
            _take(settings, SessionStart, started_at=CREATED_AT, command_line="pytest -m cpu"),
            _take(settings, Callbacks),
            settings.pop("several", None),
        )
        assert not settings, f"no campaign has {settings}"
        campaigns.append(campaign)
        return campaign

    yield conduct
    for campaign in campaigns:
        campaign.close()


def _take(settings: dict[str, Any], kind: type[T], **defaults: Any) -> T:
    """A `kind`, a dataclass, with those of the `settings` that are its fields, which are then removed."""
    names = {field.name for field in dataclasses.fields(kind)}  # type: ignore[arg-type]  # T is a dataclass
    return kind(**defaults | {name: settings.pop(name) for name in names & settings.keys()})
