"""Locks: which wheel an environment was installed from, how much room it takes, and what is asked of uv."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import msgspec
import pytest

from perf_tests.harness.environments import disk
from perf_tests.harness.environments.cells import PROBE, Probed, cell_of, check
from perf_tests.harness.environments.locks import Lock, Locked, Resolver, Wheel, read_packages
from perf_tests.harness.environments.torchao_clone import is_built_from
from perf_tests.harness.environments.uv import InstallError, Uv
from perf_tests.harness.environments.wanted import TorchaoWanted, TorchWanted

COMMIT = "36027d82" + 32 * "0"
PYTHON = "3.12.8 x86_64"
LOCK = """\
lock-version = "1.0"
[[packages]]
name = "torchao"
version = "0.17.0"
wheels = [
    { url = "https://a:b@index.example/torchao-0.17.0-cp310-abi3-manylinux_2_24_x86_64.manylinux_2_28_x86_64.whl", size = 3206172, hashes = { sha256 = "87a4" } },
    { url = "https://index.example/torchao-0.17.0-py3-none-any.whl", size = 1200680, hashes = { sha256 = "02eb" } },
]
[[packages]]
name = "Mixed_Name"
version = "1.0"
sdist = { url = "https://index.example/mixed_name-1.0.tar.gz", hashes = { sha256 = "0000" } }
"""  # noqa: E501 (addresses cannot be divided)


def locked(**versions: str) -> Lock:
    packages = tuple(Locked(name=name, version=version, wheels=()) for name, version in versions.items())
    return Lock(path=Path("pylock.toml"), packages=packages)


def probed(says: str, /, **packages: str) -> Probed:
    """What an environment says of itself, whose torch `says` that it is that version."""
    return Probed(torch=says, uncompiled=(), packages=packages, tags={})


def test_the_installed_wheel_is_that_of_its_tags() -> None:
    torchao, mixed = read_packages(LOCK)

    built_for = frozenset({"cp310-abi3-manylinux_2_24_x86_64", "cp310-abi3-manylinux_2_28_x86_64"})
    found = torchao.installed_from(built_for)
    assert found is not None
    assert (found.sha256, found.address.partition("torchao-")[0]) == ("87a4", "https://index.example/")
    pure = torchao.installed_from(frozenset({"py3-none-any"}))
    assert pure is not None
    assert pure.sha256 == "02eb"
    assert torchao.installed_from(frozenset({"cp312-cp312-win_amd64"})) is None
    assert (mixed.name, mixed.wheels, mixed.size_bytes) == ("mixed-name", (), 0)


def test_a_wheel_of_an_unusual_name_has_no_tags() -> None:
    assert Wheel(address="https://index.example/torch.whl", sha256="00").tags == frozenset()


@pytest.mark.parametrize(
    ("version", "is_right"),
    [
        ("0.19.0+git36027d82", True),
        ("0.19.0.dev0+git36027d820", True),
        ("0.19.0+git36027d83", False),
        ("0.19.0", False),
        ("0.19.0+git", False),
    ],
)
def test_a_version_says_which_commit_it_was_built_from(version: str, is_right: bool) -> None:
    assert is_built_from(version, COMMIT) is is_right


@pytest.mark.parametrize(
    ("torch", "found", "says"),
    [
        ("2.14.1+cu130", {"torch": "2.14.1+cu130"}, ""),
        ("2.14.1+cpu", {"torch": "2.14.1+cpu"}, "torch is 2.14.1+cpu, not 2.14.1+cu130"),
        ("2.14.1+cpu", {}, "torch says that it is 2.14.1+cpu, not 2.14.1+cu130"),
        ("2.14.1+cu130", {"numpy": "2.4.7"}, "numpy is 2.4.7, not 2.4.6"),
        ("2.14.1+cu130", {"pip": "26.0"}, "pip is 26.0, not asked for"),
    ],
)
def test_an_environment_holds_what_is_locked_and_nothing_else(
    torch: str, found: Mapping[str, str], says: str
) -> None:
    locks = (locked(torch="2.14.1+cu130", numpy="2.4.6"), locked(torchao="0.17.0"))
    cell = cell_of(locks, TorchaoWanted(release="0.17.0"), PYTHON)
    packages = {"torch": "2.14.1+cu130", "numpy": "2.4.6", "torchao": "0.17", **found}

    if not says:
        check(cell, probed(torch, **packages))
        return
    with pytest.raises(InstallError) as raised:
        check(cell, probed(torch, **packages))
    assert says in str(raised.value)


def test_a_wheel_without_a_local_tag_may_hold_a_build_that_has_one() -> None:
    cell = cell_of(
        (locked(torch="2.14.1"), locked(torchao="0.17.0")), TorchaoWanted(release="0.17.0"), PYTHON
    )

    check(cell, probed("2.14.1+cu130", torch="2.14.1", torchao="0.17.0"))
    with pytest.raises(InstallError, match=r"torch says that it is 2\.14\.0\+cu130, not 2\.14\.1"):
        check(cell, probed("2.14.0+cu130", torch="2.14.1", torchao="0.17.0"))


def test_what_an_import_fails_with_is_said_in_a_line() -> None:
    command = (sys.executable, "-I", "-c", PROBE, "no_such_module")
    done = subprocess.run(command, capture_output=True, text=True, check=False)

    assert (done.returncode, done.stderr) == (1, "ModuleNotFoundError: No module named 'no_such_module'\n")


def test_what_is_imported_has_bytecode() -> None:
    cell = cell_of(
        (locked(torch="2.14.1"), locked(torchao="0.17.0")), TorchaoWanted(release="0.17.0"), PYTHON
    )
    bare = msgspec.structs.replace(
        probed("2.14.1", torch="2.14.1", torchao="0.17.0"), uncompiled=("a.pyc", "b.pyc")
    )

    with pytest.raises(InstallError, match=r"^2 modules have no bytecode: no a\.pyc$"):
        check(cell, bare)


def test_an_environment_of_another_python_is_another_one() -> None:
    # What was built before and what is built today would otherwise differ in more than the two axes.
    layers, torchao = (locked(torch="2.14.1"),), TorchaoWanted(commit=COMMIT)
    names = {cell_of(layers, torchao, python).name for python in ("3.12.7 x86_64", "3.12.8 x86_64")}
    assert len(names) == 2


def test_a_commit_is_what_the_installed_torchao_says() -> None:
    cell = cell_of((locked(torch="2.14.1"),), TorchaoWanted(commit=COMMIT), PYTHON)
    assert cell.name.startswith("torch-2.14.1-torchao-36027d820000-")

    check(cell, probed("2.14.1", torch="2.14.1", torchao="0.19.0+git36027d82"))
    with pytest.raises(InstallError, match=rf"torchao is 0\.18\.0, not built from {COMMIT}"):
        check(cell, probed("2.14.1", torch="2.14.1", torchao="0.18.0"))


def test_room_is_needed_for_what_no_environment_holds_yet() -> None:
    def sized(name: str, version: str, size: int) -> Lock:
        wheel = Wheel(address="https://index.example/a-1-py3-none-any.whl", sha256="00", size_bytes=size)
        return Lock(path=Path(), packages=(Locked(name=name, version=version, wheels=(wheel,)),))

    good, new = sized("torch", "2.13.0", 2 * 10**9), sized("torch", "2.14.1", 10**9)
    cells = [cell_of((torch,), TorchaoWanted(commit=COMMIT), PYTHON) for torch in (good, new)]

    assert disk.needed_bytes(cells, ()) == 10 * 10**9
    assert disk.needed_bytes(cells[1:], cells[:1]) == 4 * 10**9
    assert disk.needed_bytes((), cells) == 0


class RecordingUv(Uv):
    """Answers a resolution with torch and its Triton, and keeps what was asked."""

    def run(
        self, *arguments: str, folder: Path | None = None, variables: Mapping[str, str] | None = None
    ) -> str:
        assert folder is not None
        with (self.cache / "asked").open("a") as asked:
            print(*arguments, file=asked)
        versions = {"torch": "2.16.0", "triton": "3.9.0"}
        entry = '[[packages]]\nname = "{}"\nversion = "{}"\n'
        (folder / "pylock.toml").write_text("".join(entry.format(*each) for each in versions.items()))
        return ""


def test_the_index_of_torch_tells_its_triton_and_gives_nothing_else(tmp_path: Path) -> None:
    resolver = Resolver(
        uv=RecordingUv(cache=tmp_path),
        folder=tmp_path / "locks",
        python="python3",
        python_version="3.12",
        pins="numpy==2.4.6\nsympy==1.14.0\ntriton==3.7.0\n",
        dependencies=("torch>=2", "numpy>=2"),
    )
    torch = TorchWanted(version="2.16.0", index="https://index.example/nightly")

    found = resolver.torch(torch, locked(numpy="2.4.6"))

    alone, whole = (tmp_path / "asked").read_text().splitlines()
    assert alone.startswith(
        "pip compile asked.txt --default-index https://index.example/nightly --prerelease allow --format"
    )
    assert whole.startswith("pip compile pyproject.toml --constraints pins.txt --format pylock.toml")
    question = next((tmp_path / "locks").glob("torch-*"))
    assert (question / "pins.txt").read_text() == "numpy==2.4.6\nsympy==1.14.0\n"
    assert 'dependencies = ["torch==2.16.0", "triton==3.9.0"]' in (question / "pyproject.toml").read_text()
    assert found.versions == {"torch": "2.16.0", "triton": "3.9.0"}
    assert resolver.torch(torch, locked(numpy="2.4.6")) == found
    assert len((tmp_path / "asked").read_text().splitlines()) == 2
