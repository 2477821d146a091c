"""What uv keeps in its cache, and what of it no environment uses."""

from __future__ import annotations

import os
from pathlib import Path

from perf_tests.harness.environments import disk


def unpacked(cache: Path, version: str) -> Path:
    """An archive of the cache, with what points to it: days old."""
    archive = cache / "archive-v0" / version
    archive.mkdir(parents=True)
    (archive / "idna.py").write_text("text")
    pointers = cache / "wheels-v8" / "pypi" / "idna"
    pointers.mkdir(parents=True, exist_ok=True)
    (pointers / version).symlink_to(archive)
    (pointers / f"{version}.http").touch()
    os.utime(archive, (0, 0))
    return archive


def test_what_no_environment_links_goes_with_what_points_to_it(tmp_path: Path) -> None:
    used, unused, young = (unpacked(tmp_path, version) for version in ("3.10", "3.11", "3.12"))
    (tmp_path / "linked.py").hardlink_to(used / "idna.py")
    os.utime(young)

    freed = disk.remove_all(disk.unlinked(tmp_path, days=1))

    assert freed == 4
    assert [each.exists() for each in (used, unused, young)] == [True, False, True]
    left = sorted(path.name for path in (tmp_path / "wheels-v8" / "pypi" / "idna").iterdir())
    assert left == ["3.10", "3.10.http", "3.12", "3.12.http"]


def test_a_pointer_to_an_archive_that_is_gone_goes(tmp_path: Path) -> None:
    # uv would look there, and fail to install.
    archive = unpacked(tmp_path, "3.10")
    (archive / "idna.py").unlink()
    archive.rmdir()

    assert disk.remove_all(disk.unlinked(tmp_path, days=1)) == 0
    assert list((tmp_path / "wheels-v8" / "pypi" / "idna").iterdir()) == []
