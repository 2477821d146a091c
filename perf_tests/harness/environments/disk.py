"""Room for environments: what they need, and what is no longer used."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from perf_tests.harness.environments import cells
from perf_tests.harness.environments.cells import SEAL, Cell
from perf_tests.protocol.errors import UsageError

UNPACKED = 3
"""Times the size of a wheel that it takes on the disk: 2.3 GB of torch with CUDA become 5.9."""
SPARE_BYTES = 10**9
"""For bytecode, and for wheels whose size no index tells."""
DAY_S = 86_400.0
POINTER_SUFFIXES = (".rev", ".http")
"""Of the files in which uv keeps what a link of that name points to."""


def needed_bytes(wanted: Iterable[Cell], held: Iterable[Cell]) -> int:
    """Room that the cells `wanted` take, of whose packages uv's cache has those of the cells `held`."""
    known = {(name, each.version) for cell in held for name, each in cell.packages.items()}
    sizes = {(name, each.version): each.size_bytes for cell in wanted for name, each in cell.packages.items()}
    missing = [size for package, size in sizes.items() if package not in known]
    return UNPACKED * sum(missing) + SPARE_BYTES if sizes else 0


def check_room(folder: Path, needed: int) -> None:
    """Raise UsageError where the disk of `folder` has less free."""
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise UsageError(
            f"the environments need about {needed / 1e9:.1f} GB in {folder}, where {free / 1e9:.1f} GB are "
            "free: make room, for example with `python tools/stacks.py prune`"
        )


def unused(folder: Path, days: float, kept: frozenset[Path]) -> Iterator[Path]:
    """Environments in `folder`, but for the resolved paths `kept`, that are half-built or not asked for in
    `days`."""
    oldest = time.time() - days * DAY_S
    for home in sorted(folder.iterdir()) if folder.is_dir() else ():
        seal = home / SEAL
        if home.resolve() not in kept and (not seal.exists() or seal.stat().st_mtime < oldest):
            yield home


def unlinked(cache: Path, days: float) -> Iterator[Path]:
    """What uv has unpacked into its cache, not within `days`, and no environment links; what points to it.

    `uv cache prune` would keep it, because it is what uv finds when it is to install that version again.
    """
    oldest = time.time() - days * DAY_S
    pointers: dict[Path, list[Path]] = {}
    for pointer in sorted(cache.glob("wheels-v*/**/*")):
        if pointer.is_symlink():
            pointers.setdefault(pointer.resolve(), []).append(pointer)
    # uv fails to install from an archive that is gone, so that no pointer may outlive one.
    yield from (each for archive, found in pointers.items() if not archive.exists() for each in found)
    for archive in sorted(cache.glob("archive-v*/*")):
        if archive.is_dir() and archive.stat().st_mtime < oldest and all(_is_alone(archive)):
            yield from pointers.get(archive.resolve(), ())
            yield archive


def remove_all(paths: Iterable[Path]) -> int:
    """Remove environments and parts of the cache; the bytes that this has freed. Raises InstallError."""
    freed = 0
    for path in paths:
        if path.is_symlink():
            for each in (path, *(path.with_name(path.name + suffix) for suffix in POINTER_SUFFIXES)):
                each.unlink(missing_ok=True)
        else:
            freed += sum(file.stat().st_size for file in _files(path) if file.stat().st_nlink == 1)
            cells.remove(path)
    return freed


def _is_alone(archive: Path) -> Iterator[bool]:
    return (path.stat().st_nlink == 1 for path in _files(archive))


def _files(folder: Path) -> Iterator[Path]:
    for parent, _, names in os.walk(folder):
        yield from (path for name in names if not (path := Path(parent, name)).is_symlink())
