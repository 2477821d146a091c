"""A folder in which the stand-in for uv builds stacks, and readers of what it holds then."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest

from perf_tests.harness.environments.cli import main

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


def arguments(home: Path, *more: str) -> list[str]:
    """Of `tools/stacks.py`, to build the stacks that `more` asks for; those of `ASKED` where it is empty."""
    return ["build", str(home / "stacks"), f"--pins={home / 'pins.txt'}", *(more or ASKED)]


def build(home: Path, *more: str) -> int:
    """The exit code of building them."""
    return main(arguments(home, *more))


def calls(home: Path) -> list[str]:
    """The commands given to uv since the last call of this."""
    path = home / "calls"
    found = path.read_text().splitlines() if path.exists() else []
    path.unlink(missing_ok=True)
    return found


def written(home: Path) -> dict[str, object]:
    """The content of stacks.json."""
    found: dict[str, object] = json.loads((home / "stacks" / "stacks.json").read_text())
    return found


def environments(home: Path) -> list[str]:
    """The names of the environments, without the digests."""
    return sorted(each.name.rpartition("-")[0] for each in (home / "stacks" / "environments").iterdir())
