"""protocol/files.py: bytes in, a whole file or the previous one out."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from perf_tests.protocol.files import read_regular, replace_atomically


def _temporary(path: Path) -> Path:
    return path.with_name(f"{path.name}.{os.getpid()}.tmp")


def test_a_file_is_replaced_and_nothing_else_is_left(tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    replace_atomically(path, b"old")
    replace_atomically(path, b"new")
    assert path.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [path]


def test_the_content_is_on_the_disk_before_the_file_has_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, sizes = tmp_path / "plan.json", []

    def fsync(descriptor: int) -> None:
        sizes.append((os.fstat(descriptor).st_size, path.exists()))

    monkeypatch.setattr(os, "fsync", fsync)
    replace_atomically(path, b"new")
    assert sizes == [(3, False)]


def test_a_full_disk_leaves_the_previous_file_intact(tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    replace_atomically(path, b"old")
    _temporary(path).symlink_to("/dev/full")
    with pytest.raises(OSError, match="No space left on device"):
        replace_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_an_interrupt_leaves_the_previous_file_intact(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "plan.json"
    replace_atomically(path, b"old")

    def interrupted(_descriptor: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupted)
    with pytest.raises(KeyboardInterrupt):
        replace_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_temporary_file_that_cannot_be_removed_does_not_hide_the_error(tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    _temporary(path).mkdir()
    with pytest.raises(IsADirectoryError):
        replace_atomically(path, b"new")


def test_a_folder_that_does_not_exist_is_an_error_and_is_not_made(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        replace_atomically(tmp_path / "gone" / "plan.json", b"new")
    assert list(tmp_path.iterdir()) == []


def test_a_pipe_is_refused_instead_of_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "run.json")
    with pytest.raises(OSError, match="it is a pipe or a device, not a file"):
        read_regular(tmp_path / "run.json")


def test_a_file_is_read_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_bytes(b"\xff\x00")
    assert read_regular(tmp_path / "run.json") == b"\xff\x00"
