"""Stands in for uv: resolves from $FAKE/index.json, and installs folders that say what they would hold.

A package of the index is `{"version": ..., "brings": {name: version}}`. Files in $FAKE make something go
wrong: `does-not-import` (`with`: versions of an environment, `says`: what its import fails with), `installs`
(package -> another version), and `kill` (whoever installs a torch is killed, once).
"""

from __future__ import annotations

import json
import os
import re
import signal
import sys
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

PYTHON = """#!/bin/sh
if [ -e "$0.broken" ]; then cat "$0.broken" >&2; exit 1; fi
cat "$0.json"
"""


def fake() -> Path:
    """The folder of what it resolves from, and of what goes wrong."""
    return Path(os.environ["FAKE"])


def main(arguments: Sequence[str]) -> None:
    """Do what the command line asks for, and write it down. Exits where it would fail."""
    with (fake() / "calls").open("a") as calls:
        print(*arguments, file=calls)
    assert os.environ["UV_LINK_MODE"] == "hardlink"
    match arguments:
        case ["venv", *_, home]:
            python = Path(home, "bin", "python")
            python.parent.mkdir(parents=True)
            python.write_text(PYTHON)
            python.chmod(0o755)
        case ["pip", "compile", asked, *rest]:
            packages = resolved(Path(asked).read_text())
            Path(rest[rest.index("-o") + 1]).write_text("".join(map(entry, packages.items())))
        case ["pip", "install", *rest]:
            install(Path(rest[rest.index("--python") + 1]), rest)


def resolved(text: str) -> dict[str, str]:
    """What the index makes of the requirements in `text`."""
    index = json.loads((fake() / "index.json").read_text())
    found: dict[str, str] = {}
    for name, version in re.findall(r"^\W*(?:dependencies = \[\")?([a-z]+)==([^\s\"]+)", text, re.MULTILINE):
        package = index.get(f"{name}=={version}")
        if package is None:
            sys.exit(f"  x No solution found:\n  there is no version of {name}=={version}")
        found |= {name: package["version"], **package["brings"]}
    return found or index["shared"]


def entry(package: tuple[str, str]) -> str:
    """A package in a lock file."""
    name, version = package
    file = f"{name}-{version}-py3-none-any.whl"
    address = f"https://user:secret@index.example/{file}"
    wheel = f'{{ url = "{address}", size = 1000, hashes = {{ sha256 = "{name}1" }} }}'
    return f'[[packages]]\nname = "{name}"\nversion = "{version}"\nwheels = [{wheel}]\n'


def install(python: Path, rest: list[str]) -> None:
    """Install a lock file, or the work tree of a commit."""
    listed = python.with_name("python.json")
    said: dict[str, Any] = {"torch": "", "uncompiled": [], "packages": {}, "tags": {}}
    if listed.exists():
        said = json.loads(listed.read_text())
    if "--requirement" in rest:
        lock = tomllib.loads(Path(rest[rest.index("--requirement") + 1]).read_text())
        versions = {each["name"]: each["version"] for each in lock["packages"]}
    else:
        assert os.environ["USE_CPP"] == "0"
        versions = {"torchao": Path(rest[-1], "version.txt").read_text().strip()}
    if "torch" in versions and (fake() / "kill").exists():
        (fake() / "kill").rename(fake() / "orphan")
        (fake() / "orphan").write_text(str(os.getpid()))
        os.kill(os.getppid(), signal.SIGKILL)
        signal.pause()
    if (others := fake() / "installs").exists():
        versions |= {name: each for name, each in json.loads(others.read_text()).items() if name in versions}
    said["packages"] |= versions
    said["torch"] = said["packages"].get("torch", "")
    said["tags"] |= {name: ["py3-none-any"] for name in versions}
    listed.write_text(json.dumps(said))
    for name, version in versions.items():
        info = python.parents[1] / "lib" / "python3.11" / "site-packages" / f"{name}-{version}.dist-info"
        info.mkdir(parents=True)
    broken = fake() / "does-not-import"
    if broken.exists() and set(json.loads(broken.read_text())["with"]) <= set(said["packages"].values()):
        python.with_name("python.broken").write_text(json.loads(broken.read_text())["says"])


if __name__ == "__main__":
    main(sys.argv[1:])
