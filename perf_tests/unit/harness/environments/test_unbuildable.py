"""`tools/stacks.py` where a stack cannot be built: what is named, and what is refused before anything is."""

from __future__ import annotations

import errno
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from perf_tests.harness.attribution.stacks import read_stacks
from perf_tests.harness.environments import cells, disk
from perf_tests.harness.records.attributions import Corner
from perf_tests.protocol.errors import UsageError
from perf_tests.unit.harness.environments.homes import (
    ASKED,
    INDEX,
    NEW_TORCHAO,
    build,
    calls,
    environments,
    written,
)


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
