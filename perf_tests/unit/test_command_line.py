"""Commands that cannot be followed: one sentence, an exit code, no traceback."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

import pytest

from perf_tests.harness.plugin.command_line import join_values
from perf_tests.unit.conftest import BF16, FAKE_WORKER, ROOT, rebaseline

BUILD_OF_BF16 = (
    "perf_tests/test_build.py",
    f"--perf-worker-module={FAKE_WORKER}",
    f"--perf-case={BF16}",
    "-o",
    f"cache_dir={tempfile.gettempdir()}/perf-tests-cache-{os.getuid()}",
)


def run(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run Python in the checkout as a user does; `variables` are added to the environment."""
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        # The folder of this checkout first, in case another one is installed.
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join((str(ROOT), os.environ.get("PYTHONPATH", ""))),
            **variables,
        },
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
    variables = {"PYTHONOPTIMIZE": "1", "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    result = run("-m", "pytest", *BUILD_OF_BF16, f"--perf-out={tmp_path / 'run'}", **variables)
    assert result.returncode == pytest.ExitCode.USAGE_ERROR
    assert "PYTHONOPTIMIZE skip the assertions of this suite: run it without" in said(result)
    assert not (tmp_path / "run").exists()


def test_the_overhead_of_an_unknown_case_is_refused_with_the_nearest() -> None:
    result = run("tools/overhead.py", "--case", "flux-mini-b1-int8-eager")
    assert result.returncode == 2
    assert "'flux-mini-b1-int8-eager' is none of the " in said(result)
    assert "nearest: flux-mini-b1-int8wo-eager" in said(result)


def test_the_overhead_of_a_case_that_another_process_quantizes_is_refused_with_the_one_to_measure() -> None:
    result = run("tools/overhead.py", "--case", "flux-mini-b1-int8wo-eager-torchsave")
    assert result.returncode == 2
    assert "that another process has saved: measure flux-mini-b1-int8wo-eager," in said(result)


@pytest.mark.parametrize(
    ("content", "says"),
    [(b"", "it is truncated or not a run.json"), (b"\xff\xfe{", "it is truncated or not a run.json")],
    ids=["empty", "not UTF-8"],
)
def test_a_file_that_is_no_record_is_not_accepted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: bytes, says: str
) -> None:
    (tmp_path / "run.json").write_bytes(content)
    assert rebaseline(["apply", str(tmp_path), "--only", "*", "--reason", "any"]) == 2
    assert says in capsys.readouterr().err


def test_tests_side_by_side_are_refused_by_the_process_in_charge(tmp_path: Path) -> None:
    pytest.importorskip("xdist")
    arguments = (*BUILD_OF_BF16, "-n", "2", f"--perf-out={tmp_path / 'run'}")
    result = run("-m", "pytest", *arguments)
    assert result.returncode == pytest.ExitCode.USAGE_ERROR
    assert "ERROR: pytest-xdist runs tests side by side, and they would share one GPU: run with -n 0" in said(
        result
    )
    assert not (tmp_path / "run").exists()


# Values after a space


@pytest.mark.parametrize(
    ("given", "joined"),
    [
        (("-m", "cpu", "--perf-out", "/tmp"), ("-m", "cpu", "--perf-out=/tmp")),
        (("--perf-out", "/tmp", "tests", "-q"), ("--perf-out=/tmp", "tests", "-q")),
        (("--perf-plan", "/tmp"), ("--perf-plan", "/tmp")),
        (("--perf-out", "/tmp/not-there"), ("--perf-out", "/tmp/not-there")),
        (("--perf-out=x", "/tmp"), ("--perf-out=x", "/tmp")),
        (("--performance", "/tmp"), ("--performance", "/tmp")),
        (("--perf-out", "--perf-out", "/tmp"), ("--perf-out", "--perf-out=/tmp")),
    ],
)
def test_an_existing_path_is_joined_to_the_option_it_follows(
    given: tuple[str, ...], joined: tuple[str, ...]
) -> None:
    assert join_values(given) == joined


def test_a_run_directory_outside_of_the_checkout_may_follow_a_space(tmp_path: Path) -> None:
    # As `pip install -e .` leaves it behind.
    installed = tmp_path / "site" / "anything-1.0.dist-info"
    installed.mkdir(parents=True)
    (installed / "METADATA").write_text("Metadata-Version: 2.1\nName: anything\nVersion: 1.0\n")
    entry_points = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"]
    lines = [f"{name} = {module}" for name, module in entry_points["pytest11"].items()]
    (installed / "entry_points.txt").write_text("\n".join(["[pytest11]", *lines]))
    (tmp_path / "run").mkdir()

    # Only these plugins of all that are installed: others may take longer than the session itself.
    plugins = [f"-p{name}" for name in (*entry_points["pytest11"], "benchmark")]
    arguments = [*plugins, *(each for each in BUILD_OF_BF16 if not each.endswith(".py")), "-k", "test_build"]
    path = os.pathsep.join((str(ROOT), str(installed.parent)))
    variables = {"PYTHONPATH": path, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    result = run("-m", "pytest", *arguments, "--perf-out", str(tmp_path / "run"), **variables)

    assert "1 passed" in said(result)
    assert result.returncode == pytest.ExitCode.OK
    assert (tmp_path / "run" / "run.json").exists()
