"""The four stacks of an attribution: what `--perf-stacks FILE` says of them, whether they are a square."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

import msgspec

from perf_tests.harness.records.attributions import Corner
from perf_tests.protocol.base import Struct
from perf_tests.protocol.errors import UsageError

AXES = ("torch", "torchao")
HELD = ("diffusers", "transformers")
"""Packages that must be the same in all four: what moves with one of the axes would be taken for it."""


class MissingStack(Struct):
    """A stack that could not be installed."""

    problem: str
    """Why, in one sentence."""


class Stacks(Struct):
    """The file: an interpreter for each corner, or why there is none."""

    good: str | MissingStack
    new: str | MissingStack
    new_torch: str | MissingStack
    new_torchao: str | MissingStack
    wheels: dict[str, dict[str, str]] = msgspec.field(default_factory=dict)
    """Corner -> package -> the address of its wheel, with its digest, as `tools/stacks.py` writes them."""

    def python(self, corner: Corner) -> str:
        """The interpreter of a corner; empty where there is none."""
        found = getattr(self, corner.value)
        return "" if isinstance(found, MissingStack) else str(found)

    @property
    def summary(self) -> str:
        """Which stacks there are, as a clause."""
        return ", ".join(f"{corner}: {self.python(corner) or self.problem(corner)}" for corner in Corner)

    def problem(self, corner: Corner) -> str:
        """Why a corner has no interpreter; empty where it has one."""
        found = getattr(self, corner.value)
        return found.problem if isinstance(found, MissingStack) else ""


def read_stacks(path: Path) -> Stacks:
    """The stacks of `path`. Raises UsageError for a file that cannot be read or followed."""
    try:
        stacks = msgspec.json.decode(path.read_bytes(), type=Stacks)
    except OSError as error:
        raise UsageError(f"--perf-stacks {path}: cannot be read: {error.strerror}") from None
    except msgspec.DecodeError as error:
        names = ", ".join(f'"{corner}"' for corner in Corner)
        raise UsageError(
            f"--perf-stacks {path}: {error}; it holds a JSON object with {names}, each the path of an "
            'interpreter, or {"problem": "why there is none"}'
        ) from None
    for corner in (Corner.GOOD, Corner.NEW):
        if problem := stacks.problem(corner):
            raise UsageError(f"--perf-stacks {path}: nothing is measured without {corner}: {problem}")
    pythons = {corner: python for corner in Corner if (python := stacks.python(corner))}
    for corner, python in pythons.items():
        if shutil.which(python) is None:
            raise UsageError(f"--perf-stacks {path}: {corner}: there is no such interpreter: {python}")
    if len(set(pythons.values())) < len(pythons):
        raise UsageError(f"--perf-stacks {path}: two of the stacks have the same interpreter")
    return stacks


def contradiction(packages: Mapping[Corner, Mapping[str, str]]) -> str | None:
    """Why the stacks that reported these packages cannot tell torch from torchao; None where they can.

    Corners that reported nothing are left out.
    """
    return next(_contradictions(packages), None)


def _contradictions(packages: Mapping[Corner, Mapping[str, str]]) -> Iterator[str]:
    def versions(name: str, is_new: bool | None) -> dict[str, Corner]:
        return {
            packages[corner].get(name, "none"): corner
            for corner in Corner
            if corner in packages and (is_new is None or is_new_in(corner, name) is is_new)
        }

    wanted = [(name, is_new) for name in AXES for is_new in (False, True)] + [(name, None) for name in HELD]
    for name, is_new in wanted:
        found = versions(name, is_new)
        if len(found) > 1:
            listed = " and ".join(f"{version} in {corner}" for version, corner in found.items())
            yield f"{name} is {listed}: these stacks differ in more than torch and torchao"


def is_new_in(corner: Corner, package: str) -> bool:
    """Whether one of the two axes is new in a corner."""
    return corner.has_new_torch if package == "torch" else corner.has_new_torchao
