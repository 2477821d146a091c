"""`tools/stacks.py` with a stand-in for uv: what is built, kept and removed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from perf_tests.harness.attribution.stacks import read_stacks
from perf_tests.harness.environments.cli import main
from perf_tests.harness.records.attributions import Corner
from perf_tests.harness.runs.file_lock import FileLock
from perf_tests.unit.conftest import ROOT
from perf_tests.unit.gone import is_gone_within_5_s
from perf_tests.unit.harness.environments.homes import (
    ASKED,
    GOOD,
    INDEX,
    NEW_TORCHAO,
    arguments,
    build,
    calls,
    environments,
    prepared,
    written,
)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """A folder with four stacks, which no test changes, and the commands that built them."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        folder = prepared(tmp_path_factory.mktemp("built"), monkeypatch)
        assert build(folder, *ASKED, f"--wheels={folder / 'wheels.json'}") == 0
    return folder, calls(folder)


def test_four_stacks_differ_in_torch_with_what_it_pins_and_torchao_only(
    built: tuple[Path, list[str]],
) -> None:
    home, _ = built
    stacks = read_stacks(home / "stacks" / "stacks.json")
    packages = {
        corner: json.loads((Path(stacks.python(corner)).parents[1] / "built.json").read_text())["packages"]
        for corner in Corner
    }
    shared = {"numpy": "2.4.6", "sympy": "1.14.0"}
    good_torch = {"torch": "2.13.0+cu130"}
    new_torch = {"torch": "2.14.1+cu130", "triton": "3.8.0"}
    assert packages == {
        Corner.GOOD: {**shared, **good_torch, "torchao": "0.17.0"},
        Corner.NEW_TORCH: {**shared, **new_torch, "torchao": "0.17.0"},
        Corner.NEW_TORCHAO: {**shared, **good_torch, "torchao": "0.18.0"},
        Corner.NEW: {**shared, **new_torch, "torchao": "0.18.0"},
    }
    assert json.loads((home / "wheels.json").read_text())["torch"] == (
        "https://index.example/torch-2.14.1+cu130-py3-none-any.whl#sha256=torch1"
    )


def test_what_moves_with_torch_although_its_wheel_does_not_pin_it_is_told(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # As where the good torch was resolved weeks ago, and the new one today.
    brings = {"sympy": "1.15.0", "triton": "3.8.0"}
    index = {**INDEX, "torch==2.14.1": {"version": "2.14.1+cu130", "brings": brings}}
    (home / "index.json").write_text(json.dumps(index))

    assert build(home) == 0

    assert capsys.readouterr().out.splitlines()[0] == (
        "the stacks differ with torch in sympy 1.14.0 and 1.15.0, too: pin it in --pins"
    )


def test_each_version_is_resolved_once_and_each_layer_is_compiled(built: tuple[Path, list[str]]) -> None:
    _, done = built
    assert [each.startswith("pip compile") for each in done].count(True) == 5  # shared, two of each axis
    installed = [each for each in done if each.startswith("pip install")]
    assert len(installed) == 12
    # uv compiles what a command installs, and nothing that is there already.
    assert all("--no-deps --compile-bytecode" in each for each in installed)


def test_what_is_built_is_kept_without_asking_uv(
    built: tuple[Path, list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    home, _ = built
    before = written(home)

    assert build(home) == 0

    assert calls(home) == []
    assert written(home) == before
    assert capsys.readouterr().out.splitlines()[1] == (
        "good: torch 2.13.0+cu130, torchao 0.17.0: as it was built"
    )


def test_an_environment_is_read_only(built: tuple[Path, list[str]]) -> None:
    home, _ = built
    good = next((home / "stacks" / "environments").glob(f"{GOOD}-*"))
    writable = [path for path in (good, *good.rglob("*")) if path.stat().st_mode & 0o222]
    assert [path.name for path in writable] == ["built.json"]


def test_an_environment_that_was_changed_is_built_again(home: Path) -> None:
    assert build(home) == 0
    calls(home)
    good = next((home / "stacks" / "environments").glob(f"{GOOD}-*"))
    site = good / "lib" / "python3.11" / "site-packages"
    site.chmod(0o755)
    (site / "sympy-1.14.0.dist-info").rename(site / "sympy-1.15.0.dist-info")

    assert build(home) == 0

    assert [each for each in calls(home) if each.startswith("venv")] == [
        f"venv --quiet --python {sys.executable} {good}"
    ]
    assert (site / "sympy-1.14.0.dist-info").is_dir()


def test_an_environment_whose_python_is_gone_is_built_again(home: Path) -> None:
    assert build(home) == 0
    python = next((home / "stacks" / "environments").glob(f"{GOOD}-*")) / "bin" / "python"
    python.parent.chmod(0o755)
    python.unlink()
    python.symlink_to("/gone/bin/python3.12")  # as after the host has moved to another one

    assert build(home) == 0

    assert python.exists()


def test_a_build_that_was_killed_halfway_is_found_and_done_again(home_with_processes: Path) -> None:
    home = home_with_processes
    (home / "kill").touch()
    command = (sys.executable, str(ROOT / "tools" / "stacks.py"), *arguments(home))
    killed = subprocess.run(command, capture_output=True, check=False)
    assert killed.returncode == -9
    assert is_gone_within_5_s(int((home / "orphan").read_text())), "uv goes on installing"
    assert len(environments(home)) == 1
    assert not (home / "stacks" / "stacks.json").exists()

    assert build(home) == 0

    assert len(environments(home)) == 4
    assert len(list((home / "stacks" / "environments").glob("*/built.json"))) == 4


def test_two_builds_in_one_folder_wait_for_each_other(home_with_processes: Path) -> None:
    home = home_with_processes
    folder = home / "stacks"
    folder.mkdir()
    command = (sys.executable, str(ROOT / "tools" / "stacks.py"), *arguments(home))
    with FileLock(folder / ".lock"):
        second = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
        assert second.stderr is not None
        assert f"works in {folder}: waiting for it" in second.stderr.readline()
        assert second.poll() is None
        assert not (folder / "environments").exists()
    with second:
        assert second.wait(60) == 0


def test_pruning_removes_what_was_not_asked_for_and_what_is_half_built(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert build(home) == 0
    built = home / "stacks" / "environments"
    for name in (GOOD, NEW_TORCHAO):
        os.utime(next(built.glob(f"{name}-*")) / "built.json", (0, 0))
    (built / "half").mkdir()
    kept = home / "kept.json"
    kept.write_text(json.dumps({**written(home), "good": {"problem": "none"}}))
    capsys.readouterr()

    assert main(["prune", str(home / "stacks"), f"--keep={kept}"]) == 0

    assert capsys.readouterr().out.startswith("removed 2 environments, 0.0 GB")
    assert GOOD not in environments(home)
    assert NEW_TORCHAO in environments(home)
    assert len(environments(home)) == 3


def test_pruning_keeps_stacks_that_are_written_under_another_name_of_the_folder(home: Path) -> None:
    assert build(home) == 0
    built = home / "stacks" / "environments"
    for each in built.iterdir():
        os.utime(each / "built.json", (0, 0))
    (home / "link").symlink_to(home / "stacks")

    assert main(["prune", str(home / "link"), f"--keep={home / 'stacks' / 'stacks.json'}"]) == 0

    assert len(environments(home)) == 4
