"""tools/bisect.py by rows of this suite, whose workers are stand-ins: each commit says how they misbehave."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from perf_tests.harness.bisecting.cli import main
from perf_tests.harness.bisecting.commands import CandidateError
from perf_tests.harness.bisecting.suite_rows import half_interval
from perf_tests.tables.platforms import CPU, H100
from perf_tests.unit.conftest import FAKE_WORKER, INT8WO
from perf_tests.unit.git import git

BUILD = f"""mkdir -p .venv/bin && {{
    echo '#!/bin/sh'
    echo "PERF_FAKE=$(cat switches) exec {sys.executable} "'"$@"'
}} > .venv/bin/python && chmod +x .venv/bin/python"""


def bisect(folder: Path, recorded: Path, switches: tuple[str, ...], *more: str) -> tuple[int, list[str]]:
    """The exit code of a search over commits, of which each has these switches, and the commits."""
    clone = folder / "clone"
    git(folder, "init", "-q", "clone")
    commits = []
    for each in switches:
        (clone / "switches").write_text(each)
        git(clone, "add", "-A")
        git(clone, "commit", "-qm", f"with {each}", "--allow-empty")
        commits.append(git(clone, "rev-parse", "HEAD"))
    ends = (
        f"--good={commits[0]}",
        f"--bad={commits[-1]}",
        f"--build={BUILD}",
        f"--state={folder / 'b.json'}",
    )
    options = (f"--perf-worker-module={FAKE_WORKER}", f"--perf-baselines={recorded}", "-mcpu")
    row = (f"--case={INT8WO}", *(f"--perf-option={each}" for each in options))
    return main(["commits", str(clone), *ends, *row, *more]), commits


def test_the_commit_that_broke_a_graph_is_found_by_the_row_that_counts_them(
    tmp_path: Path, recorded: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    switches = ("", "exit:quantize", "reports:graph_breaks=3")
    code, commits = bisect(tmp_path, recorded, switches, "--metric=graph_breaks")
    said = capsys.readouterr().out.splitlines()
    assert (code, said[-1]) == (0, f"{commits[0]} -> {commits[2]}: +3; skipped between them: {commits[1]}")
    assert said[2].startswith(f"{commits[1]}: skipped: ERROR(crash): ")


def test_noise_is_that_of_the_platform_or_of_the_processes_themselves() -> None:
    # 1.96 x 0.36 % of 200 / sqrt(4)
    assert half_interval(200.0, (199.0, 200.0, 200.0, 201.0), H100) == pytest.approx(0.8843, abs=1e-4)
    assert half_interval(200.0, (199.0, 201.0), H100) == pytest.approx(0.9979, abs=1e-4)  # their mean
    assert half_interval(200.0, (198.0, 200.0, 201.0), CPU) == 3.0
    with pytest.raises(CandidateError, match="nobody knows the noise of cpu: give --processes 3 or more"):
        half_interval(200.0, (200.0,), CPU)


def test_a_metric_that_does_not_exist_is_refused(
    tmp_path: Path, recorded: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, _ = bisect(tmp_path, recorded, ("", ""), "--metric=latency")
    assert code == 2
    assert "--metric latency: name one of the metrics" in capsys.readouterr().err
