"""A night from its workers to its issues: measured on fake workers, kept in history, told to a server."""

from __future__ import annotations

import runpy
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from perf_tests.harness.telling import findings
from perf_tests.harness.telling.job import HostedJob
from perf_tests.unit.conftest import FP8DQROW, ROOT, Misbehave, Plug, Suite
from perf_tests.unit.harness.telling import fake_github
from perf_tests.unit.harness.telling.fake_github import FakeGitHub

TOOLS = ROOT / "tools"
tell: Callable[..., int] = runpy.run_path(str(TOOLS / "tell.py"))["main"]
heartbeat: Callable[..., int] = runpy.run_path(str(TOOLS / "heartbeat.py"))["main"]
append: Callable[[list[str]], int] = runpy.run_path(str(TOOLS / "history.py"))["main"]
LATENCY = (str(ROOT / "perf_tests" / "test_latency.py"),)


@pytest.fixture
def github(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeGitHub]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with fake_github.serving(FakeGitHub()) as fake:
        yield fake


def test_a_slower_stack_becomes_one_issue_and_a_night_on_record(
    suite: Suite,
    plug_gpu: Plug,
    misbehave: Misbehave,
    github: FakeGitHub,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    plug_gpu()
    misbehave("slower:10")
    monkeypatch.setenv("GITHUB_RUN_ID", "17")
    monkeypatch.setenv("GITHUB_RUN_ATTEMPT", "2")
    result = suite.run("-m", "h100", f"--perf-case={FP8DQROW}", "--perf-max-processes=1", tests=LATENCY)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    told = findings.read(suite.out / "findings.json")
    assert told.run == "17-2"
    job = HostedJob(
        environ={
            "GITHUB_REPOSITORY": "octo/perf",
            "GITHUB_API_URL": github.url,
            "GITHUB_TOKEN": "t",
            "GITHUB_RUN_ID": "17",
        },
        now=lambda: datetime.fromisoformat(f"{told.night}T20:00:00").replace(tzinfo=UTC),
        sleep=lambda _: None,
    )
    capsys.readouterr()

    assert tell([str(suite.out / "findings.json"), "--platform", "h100", "--write"], job) == 0
    assert [issue["title"] for issue in github.issues] == [
        "Performance: fp8dqrow regional on h100: denoise_step_ms regressed"
    ]
    assert f"| `{FP8DQROW}` | +10.00 % |" in github.issues[0]["body"]

    nights = ("--history", str(tmp_path / "nights"))
    assert append(["append", str(suite.out), *nights, "--run", "17-2"]) == 0
    assert heartbeat([*nights, "--platform", "h100", "--write"], job) == 0
    assert len(github.issues) == 1
