"""tools/stacks.py with a stand-in for uv: what is built, kept and refused, and what the file says of it."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pytest

from perf_tests.harness.attribution.stacks import read_stacks
from perf_tests.harness.environments import cells, disk, uv
from perf_tests.harness.environments.cli import main
from perf_tests.harness.records.attributions import Corner
from perf_tests.harness.runs.file_lock import FileLock
from perf_tests.protocol.errors import UsageError
from perf_tests.unit.conftest import ROOT
from perf_tests.unit.gone import is_gone_within_5_s
from perf_tests.unit.harness.environments import fake_uv

INDEX = {
    "shared": {"numpy": "2.4.6"},
    "torch==2.13.0": {"version": "2.13.0+cu130", "brings": {"sympy": "1.14.0"}},
    "torch==2.14.1": {"version": "2.14.1+cu130", "brings": {"sympy": "1.14.0", "triton": "3.8.0"}},
    "torchao==0.17.0": {"version": "0.17.0", "brings": {}},
    "torchao==0.18.0": {"version": "0.18.0", "brings": {}},
}
PINS = "numpy==2.4.6\ntorch==2.13.0\ntorchao==0.17.0\n"
ASKED = ("--new-torch=2.14.1", "--new-torchao=0.18.0")
GOOD, NEW_TORCHAO = "torch-2.13.0+cu130-torchao-0.17.0", "torch-2.13.0+cu130-torchao-0.18.0"


def prepared(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with an index, pins, and the stand-in on PATH."""
    fake = folder / "bin" / "uv"
    fake.parent.mkdir()
    python = f"{sys.executable} -I -S {Path(__file__).with_name('fake_uv.py')}"
    fake.write_text(f'#!/bin/sh\nexec {python} "$@"\n')
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{fake.parent}:{os.environ['PATH']}")
    monkeypatch.setenv("FAKE", str(folder))
    (folder / "index.json").write_text(json.dumps(INDEX))
    (folder / "pins.txt").write_text(PINS)
    return folder


@pytest.fixture
def home_with_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Each command of the stand-in is a process, as uv's are."""
    return prepared(tmp_path, monkeypatch)


@pytest.fixture
def home(home_with_processes: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The stand-in runs in this process, since twenty interpreters a build take longer than all else."""
    output_of = uv.output_of

    def called(
        command: Sequence[str], *, folder: Path | None = None, variables: Mapping[str, str] | None = None
    ) -> str:
        if command[0] != "uv":
            return output_of(command, folder=folder, variables=variables)
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(folder or Path.cwd())
            for name, value in (variables or {}).items():
                patch.setenv(name, value)
            fake_uv.main(command[1:])
        return ""

    monkeypatch.setattr(uv, "output_of", called)
    return home_with_processes


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """A folder with four stacks, which no test changes, and the commands that built them."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        folder = prepared(tmp_path_factory.mktemp("built"), monkeypatch)
        assert build(folder, *ASKED, f"--wheels={folder / 'wheels.json'}") == 0
    return folder, calls(folder)


def arguments(home: Path, *more: str) -> list[str]:
    return ["build", str(home / "stacks"), f"--pins={home / 'pins.txt'}", *(more or ASKED)]


def build(home: Path, *more: str) -> int:
    return main(arguments(home, *more))


def calls(home: Path) -> list[str]:
    """The commands given to uv since the last call of this."""
    path = home / "calls"
    found = path.read_text().splitlines() if path.exists() else []
    path.unlink(missing_ok=True)
    return found


def written(home: Path) -> dict[str, object]:
    found: dict[str, object] = json.loads((home / "stacks" / "stacks.json").read_text())
    return found


def environments(home: Path) -> list[str]:
    """Their names, without the digest."""
    return sorted(each.name.rpartition("-")[0] for each in (home / "stacks" / "environments").iterdir())


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


def test_a_disk_that_fills_meanwhile_is_named_and_what_is_half_built_is_done_again(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def is_full(_path: Path, _content: bytes) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(cells, "replace_atomically", is_full)
        assert build(home) == 2
    assert "stacks: [Errno 28] No space left on device" in capsys.readouterr().err

    assert build(home) == 0
    assert len(list((home / "stacks" / "environments").glob("*/built.json"))) == 4


def test_a_stack_that_does_not_import_is_named_and_the_others_stay(home: Path) -> None:
    broken = {"with": ["2.13.0+cu130", "0.18.0"], "says": "Traceback\nImportError: no attribute 'x'\n"}
    (home / "does-not-import").write_text(json.dumps(broken))

    assert build(home) == 1

    stacks = read_stacks(home / "stacks" / "stacks.json")
    assert stacks.problem(Corner.NEW_TORCHAO) == (
        "it does not import: python failed: Traceback ImportError: no attribute 'x'"
    )
    assert [bool(stacks.python(corner)) for corner in Corner] == [True, True, False, True]
    assert NEW_TORCHAO not in environments(home)


def test_a_version_that_does_not_resolve_takes_its_stacks_only(home_with_processes: Path) -> None:
    home = home_with_processes
    assert build(home, "--new-torch=2.14.1", "--new-torchao=0.99.0") == 2

    found = written(home)
    assert (
        found["new"]
        == found["new_torchao"]
        == {"problem": "uv failed: x No solution found: there is no version of torchao==0.99.0"}
    )
    assert len(environments(home)) == 2
    with pytest.raises(UsageError, match=r"stacks\.json: nothing is measured without new: uv failed"):
        read_stacks(home / "stacks" / "stacks.json")


def test_another_version_than_what_is_locked_is_no_stack(home: Path) -> None:
    (home / "installs").write_text(json.dumps({"torch": "2.14.1+cpu"}))

    assert build(home) == 2

    assert written(home)["new"] == {
        "problem": "torch is 2.14.1+cpu, not 2.14.1+cu130; torch says that it is 2.14.1+cpu, not 2.14.1+cu130"
    }


def test_the_same_build_of_torch_under_two_names_leaves_nothing_to_tell(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    index = {**INDEX, "torch==2.13.0+cu130": INDEX["torch==2.13.0"]}
    (home / "index.json").write_text(json.dumps(index))

    assert build(home, "--new-torch=2.13.0+cu130", "--new-torchao=0.18.0") == 2

    assert "the good and the new torch are both 2.13.0+cu130" in capsys.readouterr().err
    assert not any(each.startswith("venv") for each in calls(home))


def other_file_system(self: Path, target: Path) -> None:
    raise OSError(errno.EXDEV, "Invalid cross-device link")


@pytest.mark.parametrize(
    ("patched", "name", "value", "says"),
    [
        (Path, "hardlink_to", other_file_system, "they are on different file systems; give a --cache on the"),
        (disk, "SPARE_BYTES", 10**18, "need about 1000000000.0 GB in "),
        (shutil, "which", lambda _name: None, "uv makes the environments, and is not on PATH"),
    ],
    ids=["file systems", "no room", "no uv"],
)
def test_what_cannot_be_built_is_refused_before_anything_is(
    home: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    patched: object,
    name: str,
    value: Callable[..., object] | int,
    says: str,
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(patched, name, value)
        assert build(home) == 2
    assert says in capsys.readouterr().err
    assert not any(each.startswith(("venv", "pip install")) for each in calls(home))
    assert build(home) == 0


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (("--new-torch=2.14.1", "--new-torchao=@main"), "torchao @main is a commit: name a --torchao-clone"),
        (("--new-torch=2.14.1", "--new-torchao=main"), "'main' is no version"),
        (("--new-torch=2.13.0", "--new-torchao=0.18.0"), "torch 2.13.0 is in all four stacks"),
        ((*ASKED, "--pins=nowhere.txt"), "nowhere.txt: No such file or directory"),
    ],
)
def test_what_cannot_be_followed_is_refused(
    home: Path, capsys: pytest.CaptureFixture[str], more: tuple[str, ...], says: str
) -> None:
    assert build(home, *more) == 2
    assert says in capsys.readouterr().err
    assert calls(home) == []


def git(folder: Path, *arguments: str) -> str:
    settings = ("-c", "user.name=a", "-c", "user.email=a@b.c", "-c", "commit.gpgsign=false")
    command = ("git", "-C", str(folder), *settings, *arguments)
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture
def clone(tmp_path: Path) -> tuple[Path, str]:
    """A clone, and a commit of it that says of itself which it is."""
    folder = tmp_path / "clone"
    folder.mkdir()
    git(folder, "init", "-q", "-b", "main")
    git(folder, "commit", "-qm", "first", "--allow-empty")
    commit = git(folder, "rev-parse", "HEAD")
    # What is checked out beside it is what the build would write into the version.
    (folder / "version.txt").write_text(f"0.19.0+git{commit[:8]}\n")
    git(folder, "add", "-A")
    git(folder, "commit", "-qm", "second")
    return folder, git(folder, "rev-parse", "HEAD")


def test_a_commit_is_built_from_a_work_tree_that_goes_afterwards(
    home: Path, clone: tuple[Path, str], capsys: pytest.CaptureFixture[str]
) -> None:
    folder, commit = clone

    asked = (f"--torchao-clone={folder}", "--new-torch=2.14.1", "--new-torchao=@main")
    assert build(home, *asked) == 2

    parent = git(folder, "rev-parse", "HEAD^")
    problem = f"torchao is 0.19.0+git{parent[:8]}, not built from {commit}"
    assert written(home)["new"] == {"problem": problem}
    tree = home / "stacks" / "trees" / commit
    build_call = next(each for each in calls(home) if str(tree) in each)
    assert "--no-deps --compile-bytecode --no-build-isolation" in build_call
    assert not tree.exists()
    assert git(folder, "worktree", "list").count("\n") == 0
    assert capsys.readouterr().out.splitlines()[0] == f"new: there is none: {problem}"


def test_a_commit_that_the_clone_has_not_is_refused(
    home: Path, clone: tuple[Path, str], capsys: pytest.CaptureFixture[str]
) -> None:
    folder, _ = clone
    assert build(home, f"--torchao-clone={folder}", "--new-torch=2.14.1", "--new-torchao=@gone") == 2
    assert f"{folder} has no commit gone: fetch it first" in capsys.readouterr().err


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
