"""Builds the four environments of an attribution, and says which there are."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TypeVar

from perf_tests.harness.attribution.stacks import MissingStack, Stacks
from perf_tests.harness.environments import disk
from perf_tests.harness.environments.cells import Cell, CellBuilder, CellSeal, cell_of
from perf_tests.harness.environments.locks import Lock, Resolver
from perf_tests.harness.environments.uv import InstallError
from perf_tests.harness.environments.wanted import OF_TORCH, SquareWanted
from perf_tests.harness.records.attributions import Corner
from perf_tests.protocol.errors import UsageError

A = TypeVar("A")
T = TypeVar("T")
ORDER = (Corner.NEW, Corner.GOOD, Corner.NEW_TORCH, Corner.NEW_TORCHAO)
"""The two that every answer needs first."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SquareBuilder:
    """Resolves and builds; what fails in one stack leaves the others."""

    resolver: Resolver
    builder: CellBuilder
    say: Callable[[str], None]

    def build(self, square: SquareWanted) -> Stacks:
        """The stacks, with the reason for each that there is not.

        Raises InstallError where what all of them share does not resolve, UsageError where the disk is too
        full for them.
        """
        cells = self._cells(square)
        found = {corner: each for corner, each in cells.items() if isinstance(each, Cell)}
        missing = {corner: each for corner, each in found.items() if self.builder.sealed(each) is None}
        held = [each for corner, each in found.items() if corner not in missing]
        disk.check_room(self.builder.folder, disk.needed_bytes(missing.values(), held))
        seals: dict[Corner, CellSeal | InstallError] = {}
        for corner in ORDER:
            cell = cells[corner]
            began = time.monotonic()
            seals[corner] = _attempt(self.builder.build, cell) if isinstance(cell, Cell) else cell
            self.say(_said(corner, seals[corner], time.monotonic() - began, is_new=corner in missing))
        return stacks_of({corner: self._python(cells[corner], seals[corner]) for corner in ORDER}, seals)

    def _cells(self, square: SquareWanted) -> dict[Corner, Cell | InstallError]:
        shared = self.resolver.shared()
        torches = {
            each: _attempt(lambda torch: self.resolver.torch(torch, shared), each)
            for each in (square.good_torch, square.new_torch)
        }
        torchaos = {
            each: _attempt(self.resolver.torchao, each) for each in (square.good_torchao, square.new_torchao)
        }
        _check_torches(torches.values())
        if moved := _moved(torches.values()):
            self.say(f"the stacks differ with torch in {moved}, too: pin it in --pins")
        cells: dict[Corner, Cell | InstallError] = {}
        for corner in ORDER:
            torch, torchao = torches[square.torch(corner)], torchaos[square.torchao(corner)]
            problem = next((each for each in (torch, torchao) if isinstance(each, InstallError)), None)
            layers = tuple(each for each in (shared, torch, torchao) if isinstance(each, Lock))
            python_version = self.resolver.python_version
            cells[corner] = problem or cell_of(layers, square.torchao(corner), python_version)
        return cells

    def _python(self, cell: Cell | InstallError, seal: CellSeal | InstallError) -> str | MissingStack:
        if isinstance(seal, InstallError) or isinstance(cell, InstallError):
            return MissingStack(problem=str(seal))
        return str(self.builder.home(cell).absolute() / "bin" / "python")


def stacks_of(
    pythons: Mapping[Corner, str | MissingStack], seals: Mapping[Corner, CellSeal | InstallError]
) -> Stacks:
    """The file that `--perf-stacks` reads."""
    return Stacks(
        good=pythons[Corner.GOOD],
        new=pythons[Corner.NEW],
        new_torch=pythons[Corner.NEW_TORCH],
        new_torchao=pythons[Corner.NEW_TORCHAO],
        wheels={corner.value: seal.wheels for corner, seal in seals.items() if isinstance(seal, CellSeal)},
    )


def _check_torches(torches: Iterable[Lock | InstallError]) -> None:
    """Raise UsageError where both versions are one build, as 2.13.0 and 2.13.0+cu130 may be."""
    builds = [each.versions["torch"] for each in torches if isinstance(each, Lock)]
    if len(builds) > len(set(builds)):
        raise UsageError(f"the good and the new torch are both {builds[0]}: there is nothing to tell apart")


def _moved(torches: Iterable[Lock | InstallError]) -> str:
    """Packages that only torch asks for, in two versions although its wheels need not pin them."""
    locks = [each.versions for each in torches if isinstance(each, Lock)]
    if len(locks) < 2:
        return ""
    good, new = locks
    names = sorted(name for name in good.keys() & new.keys() if not OF_TORCH.fullmatch(name))
    return ", ".join(f"{name} {good[name]} and {new[name]}" for name in names if good[name] != new[name])


def _attempt(make: Callable[[A], T], asked: A) -> T | InstallError:
    try:
        return make(asked)
    except InstallError as error:
        return error


def _said(corner: Corner, seal: CellSeal | InstallError, seconds: float, *, is_new: bool) -> str:
    if isinstance(seal, InstallError):
        return f"{corner}: there is none: {seal}"
    how = f"built in {seconds:.0f} s" if is_new else "as it was built"
    return f"{corner}: torch {seal.packages['torch']}, torchao {seal.packages['torchao']}: {how}"
