"""Commands that cannot be followed: one sentence, an exit code, no traceback."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from perf_tests.unit.conftest import BF16, FAKE_WORKER, ROOT

BUILD_OF_BF16 = (
    "perf_tests/test_build.py",
    f"--perf-worker-module={FAKE_WORKER}",
    f"--perf-case={BF16}",
    "-p",
    "no:cacheprovider",
)


def run(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run Python in the checkout as a user does; `variables` are added to the environment."""
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), **variables},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def said(result: subprocess.CompletedProcess[str]) -> str:
    """All that was printed, which holds no traceback."""
    text = result.stdout + result.stderr
    assert "Traceback" not in text
    assert "INTERNALERROR" not in text
    return text


def test_python_without_assertions_is_refused(tmp_path: Path) -> None:
    result = run("-m", "pytest", *BUILD_OF_BF16, f"--perf-out={tmp_path / 'run'}", PYTHONOPTIMIZE="1")
    assert result.returncode == pytest.ExitCode.USAGE_ERROR
    assert "PYTHONOPTIMIZE skip the assertions of this suite: run it without" in said(result)
    assert not (tmp_path / "run").exists()


def test_the_overhead_of_an_unknown_case_is_refused_with_the_nearest() -> None:
    result = run("tools/overhead.py", "--case", "flux-mini-b1-int8-eager")
    assert result.returncode == 2
    assert "'flux-mini-b1-int8-eager' is none of the " in said(result)
    assert "nearest: flux-mini-b1-int8wo-eager" in said(result)


@pytest.mark.parametrize(
    ("content", "says"),
    [(b"", "it is truncated or not a run.json"), (b"\xff\xfe{", "it is truncated or not a run.json")],
    ids=["empty", "not UTF-8"],
)
def test_a_file_that_is_no_record_is_not_accepted(tmp_path: Path, content: bytes, says: str) -> None:
    (tmp_path / "run.json").write_bytes(content)
    result = run("tools/rebaseline.py", "apply", str(tmp_path), "--only", "*", "--reason", "any")
    assert result.returncode == 2
    assert says in said(result)
