"""Builds one environment, proves that it is what was asked for, and seals it."""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import msgspec
from packaging.utils import canonicalize_name
from packaging.version import Version

from perf_tests.harness.environments import wanted
from perf_tests.harness.environments.locks import Lock, Locked, merged
from perf_tests.harness.environments.torchao_clone import TorchaoClone, is_built_from
from perf_tests.harness.environments.uv import InstallError, Uv, output_of
from perf_tests.harness.environments.wanted import TorchaoWanted
from perf_tests.protocol.base import Struct
from perf_tests.protocol.files import replace_atomically

SEAL = "built.json"
IMPORTED = ("torch", "torchao.quantization", "diffusers", "transformers")
WRITABLE = stat.S_IWUSR | stat.S_IWGRP | stat.S_IWOTH
PROBE = """
import importlib, json, os, sys
from importlib import metadata
try:
    torch, *_ = [importlib.import_module(name) for name in sys.argv[1:]]
except Exception as error:
    sys.exit(f"{type(error).__name__}: {error}")
specs = [getattr(each, "__spec__", None) for each in list(sys.modules.values())]
cached = {os.path.relpath(each.cached, sys.prefix) for each in specs if getattr(each, "cached", None)}
own = [each for each in sorted(cached) if not each.startswith(os.pardir)]
tags = {each.name: (each.read_text("WHEEL") or "").splitlines() for each in metadata.distributions()}
print(json.dumps({
    "torch": torch.__version__,
    "uncompiled": [each for each in own if not os.path.exists(os.path.join(sys.prefix, each))],
    "packages": {each.name: each.version for each in metadata.distributions()},
    "tags": {name: [line[5:] for line in lines if line.startswith("Tag: ")] for name, lines in tags.items()},
}))
"""


class Probed(Struct):
    """What an environment says of itself."""

    torch: str
    uncompiled: tuple[str, ...]
    """Bytecode that there is not, of modules that were imported."""
    packages: dict[str, str]
    tags: dict[str, frozenset[str]]


class CellSeal(Struct):
    """What is in a finished environment: written last, so that a half-built one has none."""

    packages: dict[str, str]
    """Package -> version."""
    listed: tuple[str, ...]
    """The folders of the installed packages, which tell whether something was installed since."""
    wheels: dict[str, str]
    """Package -> the address of the wheel that it was installed from, ending in `#sha256=` and its digest."""


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One of the four environments."""

    name: str
    layers: tuple[Lock, ...]
    torchao: TorchaoWanted

    @cached_property
    def packages(self) -> dict[str, Locked]:
        """Name -> package, without a torchao by commit."""
        return merged(self.layers)


def cell_of(layers: tuple[Lock, ...], torchao: TorchaoWanted, python_version: str) -> Cell:
    """The environment of these layers and that Python; its name is that of its content."""
    packages = merged(layers)
    content = {name: [locked.version, [w.sha256 for w in locked.wheels]] for name, locked in packages.items()}
    key = wanted.digest(content, torchao, python_version)
    built = packages["torchao"].version if "torchao" in packages else torchao.commit[:12]
    return Cell(
        name=f"torch-{packages['torch'].version}-torchao-{built}-{key}", layers=layers, torchao=torchao
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class CellBuilder:
    """Builds environments in `folder`."""

    uv: Uv
    folder: Path
    python: str
    clone: TorchaoClone | None

    def home(self, cell: Cell) -> Path:
        """Where the environment is."""
        return self.folder / cell.name

    def sealed(self, cell: Cell) -> CellSeal | None:
        """What is in it, where it is whole and nothing has been installed since; else None."""
        return read_seal(self.home(cell))

    def build(self, cell: Cell) -> CellSeal:
        """Build it, or find that it is built. Raises InstallError; then nothing of it is left."""
        home = self.home(cell)
        if (found := self.sealed(cell)) is not None:
            os.utime(home / SEAL)  # it is in use: what is pruned is what was not
            return found
        remove(home)
        try:
            self._install(cell, home)
            probed = probe(home)
            check(cell, probed)
            seal = CellSeal(
                packages=_normal(probed.packages), listed=_listed(home), wheels=wheels(cell, probed)
            )
        except InstallError:
            remove(home)
            raise
        close(home, seal)
        return seal

    def _install(self, cell: Cell, home: Path) -> None:
        self.uv.make(home, self.python)
        for layer in cell.layers:
            self.uv.install(home, "--requirement", str(layer.path.absolute()))
        if not cell.torchao.commit:
            return
        if self.clone is None:
            raise InstallError(f"{cell.torchao} is a commit: name a --torchao-clone that has it")
        tree = self.folder.parent / "trees" / cell.torchao.commit
        self.clone.install(self.uv, home, cell.torchao.commit, tree)


def probe(home: Path) -> Probed:
    """Import the stack in an environment. Raises InstallError where it does not import."""
    python = str(home.absolute() / "bin" / "python")
    try:
        printed = output_of((python, "-I", "-B", "-c", PROBE, *IMPORTED))
        return msgspec.json.decode(printed.strip().splitlines()[-1], type=Probed)
    except InstallError as error:
        raise InstallError(f"it does not import: {error}") from error
    except (IndexError, msgspec.DecodeError) as error:
        raise InstallError(f"what it says of itself cannot be read: {error}") from error


def check(cell: Cell, probed: Probed) -> None:
    """Raise InstallError where something else is installed than what is locked, down to the local tag."""
    locked = {name: package.version for name, package in cell.packages.items()}
    found = _normal(probed.packages)
    if cell.torchao.commit:
        built = found.pop("torchao", "missing")
        if not is_built_from(built, cell.torchao.commit):
            raise InstallError(f"torchao is {built}, not built from {cell.torchao.commit}")
    wrong = [
        f"{name} is {found.get(name, 'missing')}, not {locked.get(name, 'asked for')}"
        for name in sorted(locked | found)
        if not _is_same(locked.get(name), found.get(name))
    ]
    if not _is_build_of(probed.torch, locked["torch"]):
        wrong.append(f"torch says that it is {probed.torch}, not {locked['torch']}")
    if probed.uncompiled:
        wrong.append(f"{len(probed.uncompiled)} modules have no bytecode: no {probed.uncompiled[0]}")
    if wrong:
        raise InstallError("; ".join(wrong))


def wheels(cell: Cell, probed: Probed) -> dict[str, str]:
    """Package -> address of the wheel that is installed, with its digest."""
    tags: dict[str, frozenset[str]]
    tags = {canonicalize_name(name): each for name, each in probed.tags.items()}
    found = {
        name: package.installed_from(tags.get(name, frozenset())) for name, package in cell.packages.items()
    }
    return {name: f"{wheel.address}#sha256={wheel.sha256}" for name, wheel in sorted(found.items()) if wheel}


def close(home: Path, seal: CellSeal) -> None:
    """Write the seal, and make the environment read-only: its files are those of others, too."""
    replace_atomically(home / SEAL, msgspec.json.format(msgspec.json.encode(seal), indent=1) + b"\n")
    for folder, _, files in os.walk(home):
        for path in (*(Path(folder, name) for name in files if name != SEAL), Path(folder)):
            if not path.is_symlink():
                path.chmod(path.stat().st_mode & ~WRITABLE)


def read_seal(home: Path) -> CellSeal | None:
    """What is in the environment; None where it is half-built, was changed since, or its Python is gone."""
    try:
        seal = msgspec.json.decode((home / SEAL).read_bytes(), type=CellSeal)
    except (OSError, msgspec.DecodeError):
        return None
    is_whole = seal.listed == _listed(home) and (home / "bin" / "python").exists()
    return seal if is_whole else None


def remove(home: Path) -> None:
    """Remove an environment, sealed or not. Raises InstallError where that fails."""
    try:
        for folder, _, _ in os.walk(home):
            Path(folder).chmod(stat.S_IRWXU)
        if home.exists():
            shutil.rmtree(home)
    except OSError as error:
        raise InstallError(f"{home} cannot be removed: {error.strerror}") from error


def _listed(home: Path) -> tuple[str, ...]:
    """What is installed, by the names of the folders that say so."""
    return tuple(sorted(path.name for path in home.glob("lib/python*/site-packages/*.dist-info")))


def _is_same(one: str | None, other: str | None) -> bool:
    """Whether two versions are, also of a package that writes 2026.09 for 2026.9."""
    return None not in (one, other) and Version(str(one)) == Version(str(other))


def _is_build_of(said: str, locked: str) -> bool:
    """Whether torch may say that of itself: a wheel without a local tag may hold a build that has one."""
    public = Version(said).public
    return Version(locked) in (Version(said), Version(public))


def _normal(packages: Mapping[str, str]) -> dict[str, str]:
    return {canonicalize_name(name): version for name, version in packages.items()}
