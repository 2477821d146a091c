"""Exact versions of a stack, each with the addresses and digests of its wheels, in three layers.

What all stacks share, what the wheel of a torch adds to it, and a torchao are resolved apart and once each.
So the stacks differ in nothing else, by construction.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit, urlunsplit

from packaging.utils import InvalidWheelFilename, canonicalize_name, parse_wheel_filename

from perf_tests.harness.attribution.stacks import AXES
from perf_tests.harness.environments import wanted
from perf_tests.harness.environments.uv import InstallError, Uv
from perf_tests.harness.environments.wanted import OF_TORCHS_INDEX, TorchaoWanted, TorchWanted
from perf_tests.protocol.base import Struct


class Wheel(Struct):
    """One file that a locked package can be installed from."""

    address: str
    """Without the user and password of a private index."""
    sha256: str
    size_bytes: int = 0
    """0 where the index does not tell it."""

    @property
    def tags(self) -> frozenset[str]:
        """What it is built for, as `WHEEL` in an installed package lists it; none for an unusual name."""
        try:
            *_, tags = parse_wheel_filename(unquote(urlsplit(self.address).path).rpartition("/")[2])
        except InvalidWheelFilename:
            return frozenset()
        return frozenset(map(str, tags))


class Locked(Struct):
    """A package of a lock."""

    name: str
    version: str
    wheels: tuple[Wheel, ...]

    @property
    def size_bytes(self) -> int:
        """Of its largest wheel; 0 where it is unknown."""
        return max((wheel.size_bytes for wheel in self.wheels), default=0)

    def installed_from(self, tags: frozenset[str]) -> Wheel | None:
        """The wheel with the tags of what is installed; None where it was built from source."""
        exact = (wheel for wheel in self.wheels if wheel.tags == tags)
        return next(exact, next((wheel for wheel in self.wheels if wheel.tags & tags), None))


@dataclass(frozen=True, kw_only=True, slots=True)
class Lock:
    """A resolved layer, and the file that uv installs it from."""

    path: Path
    packages: tuple[Locked, ...]

    @property
    def versions(self) -> dict[str, str]:
        """Package -> version."""
        return {package.name: package.version for package in self.packages}


@dataclass(frozen=True, kw_only=True, slots=True)
class Resolver:
    """Resolves layers once: each is a file in `folder`, from which later calls read it."""

    uv: Uv
    folder: Path
    python: str
    """The interpreter of the environments."""
    python_version: str
    pins: str
    """Requirements of the stack that the baselines were recorded with."""
    dependencies: tuple[str, ...]
    """What the project asks for."""

    def shared(self) -> Lock:
        """All packages but torch, torchao and what only they ask for. Raises InstallError."""
        asked = wanted.shared_requirements(self.dependencies)
        pins = wanted.shared_pins(self.pins)
        files = {"asked.txt": asked, "pins.txt": pins, "left-out.txt": AXES}
        options = ("asked.txt", "--constraints", "pins.txt", "--excludes", "left-out.txt")
        return self._resolved("shared", wanted.digest(asked, pins, self.python_version), files, options)

    def torch(self, torch: TorchWanted, shared: Lock) -> Lock:
        """Torch with what its wheel asks for, where that is shared in the shared version.

        Raises InstallError, for one where torch asks for another version of something shared.
        """
        key = wanted.digest(torch, shared.versions, wanted.shared_pins(self.pins), self.python_version)
        if (known := self._path("torch", key)).exists():
            return _read(known)
        elsewhere = (pin for pin in wanted.shared_pins(self.pins) if _is_not_in(shared, pin))
        pins = (*(f"{name}=={version}" for name, version in shared.versions.items()), *elsewhere)
        project = wanted.torch_project(torch, self._beside_torch(torch))
        files = {"pyproject.toml": (project,), "pins.txt": pins}
        options = ("pyproject.toml", "--constraints", "pins.txt")
        return self._resolved("torch", key, files, options)

    def torchao(self, torchao: TorchaoWanted) -> Lock | None:
        """A release of torchao, alone; None for a commit, which is in no index. Raises InstallError."""
        if torchao.commit:
            return None
        key = wanted.digest(torchao, self.python_version)
        files = {"asked.txt": (f"torchao=={torchao.release}",)}
        return self._resolved("torchao", key, files, ("asked.txt", "--no-deps"))

    def _beside_torch(self, torch: TorchWanted) -> dict[str, str]:
        """Versions of Triton, as torch of an index of its own asks for it: some builds ask for none."""
        if not torch.index:
            return {}
        asked = {"asked.txt": (f"torch=={torch.version}",)}
        options = ("asked.txt", "--default-index", torch.index, "--prerelease", "allow")
        found = self._resolved("alone", wanted.digest(torch, self.python_version), asked, options).versions
        return {name: found[name] for name in OF_TORCHS_INDEX[1:] if name in found}

    def _path(self, layer: str, key: str) -> Path:
        return self.folder / f"pylock.{layer}-{key}.toml"  # uv reads no file of another kind of name

    def _resolved(
        self, layer: str, key: str, files: Mapping[str, Sequence[str]], options: Sequence[str]
    ) -> Lock:
        path = self._path(layer, key)
        if not path.exists():
            question = self.folder / f"{layer}-{key}"
            question.mkdir(parents=True, exist_ok=True)
            for name, lines in files.items():
                (question / name).write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
            made = question / "pylock.toml"
            made.unlink(missing_ok=True)  # uv would prefer its versions
            output = ("--quiet", "--no-header", "--python", self.python, "-o", made.name)
            self.uv.run("pip", "compile", *options, "--format", "pylock.toml", *output, folder=question)
            made.replace(path)
        return _read(path)


def read_packages(text: str) -> tuple[Locked, ...]:
    """The packages of a lock file (PEP 751)."""
    return tuple(
        Locked(name=canonicalize_name(each["name"]), version=each["version"], wheels=tuple(_wheels(each)))
        for each in tomllib.loads(text).get("packages", ())
        if "version" in each
    )


def _wheels(package: dict[str, Any]) -> Iterator[Wheel]:
    for each in package.get("wheels", ()):
        address = urlsplit(each["url"])
        anonymous = urlunsplit(address._replace(netloc=address.netloc.rpartition("@")[2]))
        size = each.get("size") or _size_on_disk(address.path if address.scheme == "file" else "")
        yield Wheel(address=anonymous, sha256=each["hashes"]["sha256"], size_bytes=size)


def _size_on_disk(path: str) -> int:
    local = Path(unquote(path))
    return local.stat().st_size if path and local.is_file() else 0


def _read(path: Path) -> Lock:
    try:
        return Lock(path=path, packages=read_packages(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, LookupError) as error:
        raise InstallError(f"{path} cannot be read: {error}; remove it to resolve anew") from error


def _is_not_in(shared: Lock, pin: str) -> bool:
    return wanted.name_in(pin) not in shared.versions


def merged(locks: Iterable[Lock]) -> dict[str, Locked]:
    """Name -> package, of layers that go into one environment."""
    return {package.name: package for lock in locks for package in lock.packages}
