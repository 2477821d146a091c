"""What the tests of jobs share: a server, and the job of a day that asks it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime

import pytest

from perf_tests.harness.telling.job import HostedJob
from perf_tests.unit.harness.telling import fake_github
from perf_tests.unit.harness.telling.fake_github import FakeGitHub


@pytest.fixture
def github(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeGitHub]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with fake_github.serving(FakeGitHub()) as fake:
        yield fake


@pytest.fixture
def slept_s() -> list[float]:
    """How long the jobs slept, one after the other."""
    return []


JobOf = Callable[..., HostedJob]


@pytest.fixture
def job_of(github: FakeGitHub, slept_s: list[float]) -> JobOf:
    """The job of a day in November, at an hour UTC."""

    def make(day: int, hour: int = 13, **environ: str) -> HostedJob:
        github.day, github.asked = f"2026-11-{day:02}", []
        return HostedJob(
            environ={
                "GITHUB_REPOSITORY": "octo/perf",
                "GITHUB_API_URL": github.url,
                "GITHUB_SERVER_URL": "https://github.com",
                "GITHUB_RUN_ID": str(day),
                "GITHUB_TOKEN": "s3cret",
                **environ,
            },
            now=lambda: datetime(2026, 11, day, hour, tzinfo=UTC),
            sleep=slept_s.append,
        )

    return make
