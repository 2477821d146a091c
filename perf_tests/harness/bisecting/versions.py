"""Versions to choose from: commits of a clone, each in a work tree, or releases, each in an environment."""

from __future__ import annotations

import re
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import msgspec
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

from perf_tests.harness.bisecting import commands
from perf_tests.harness.bisecting.commands import CandidateError, Commands
from perf_tests.harness.bisecting.running import Prepared
from perf_tests.harness.environments.uv import OF_ANOTHER_ENVIRONMENT, InstallError
from perf_tests.harness.environments.work_trees import WorkTrees, git
from perf_tests.protocol.errors import UsageError

OWN_ENVIRONMENT: Mapping[str, None] = dict.fromkeys(OF_ANOTHER_ENVIRONMENT)
"""What a command leaves out so that it uses the environment it is told to use."""
BUILT_FROM = re.compile(r"""^git_version\b.*=\s*['"]([0-9a-f]{7,40})['"]""", re.MULTILINE)
"""As in `torch/version.py`."""


class Measure(Protocol):
    """How a version is measured once it is there."""

    @property
    def commands(self) -> Commands:
        """What runs its commands."""

    @property
    def uv_arguments(self) -> tuple[str, ...]:
        """What it needs of `uv pip install`."""

    def measure(self, folder: Path | None, variables: Mapping[str, str | None]) -> tuple[float, float]:
        """Value and half its 95 % interval, of the version in `variables`. Raises CandidateError."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ShellProbe:
    """By a command of the user."""

    command: str
    """For a shell. Its last line is the value, or a JSON object with it, and perhaps with `half`."""
    key: str
    """Of the value in that object."""
    commands: Commands
    # Compiling all that is installed takes longer than the few imports of most probes.
    uv_arguments: tuple[str, ...] = ()

    def measure(self, folder: Path | None, variables: Mapping[str, str | None]) -> tuple[float, float]:
        """What the command printed last, run in `folder`. Raises CandidateError where it fails."""
        return commands.result(self.commands.run(shell(self.command), folder, variables), self.key)


def shell(command: str) -> tuple[str, ...]:
    """How `command` is run."""
    return ("bash", "-c", command)


@dataclass(frozen=True, kw_only=True, slots=True)
class Commits:
    """Commits of a clone, of which every other one between two is on the first-parent line."""

    clone: Path
    folder: Path
    """For the work trees."""
    build: str
    """A shell command that builds a work tree, in which it is run; empty for none."""
    python: str
    """Where in the tree `build` puts an interpreter, if it does."""
    measuring: Measure
    commands: Commands

    def between(self, good: str, bad: str) -> tuple[str, ...]:
        """The commits from `good` to `bad`, both included. Raises PerfError where there is no such line."""
        ends = [git(self.clone, "rev-parse", "--verify", f"{each}^{{commit}}") for each in (good, bad)]
        listed = git(self.clone, "rev-list", "--first-parent", "--reverse", f"{ends[0]}..{ends[1]}")
        commits = listed.split()
        if not commits or commits[-1] != ends[1]:
            raise UsageError(f"{bad} does not come after {good} in {self.clone}")
        # Else their difference would be blamed on commits that do not build on the good end.
        if ends[0] not in git(self.clone, "rev-list", "--first-parent", ends[1]).split():
            raise UsageError(
                f"{good} is not on the first-parent line of {bad} in {self.clone}: give the commit where its "
                f"branch left that line (`git merge-base {good} {bad}`)"
            )
        return ends[0], *commits

    def prepare(self, item: str) -> Prepared:
        """Check the commit out, and build it."""
        tree = self.folder / item
        try:
            WorkTrees(clone=self.clone).add(tree, item)
        except InstallError as error:
            raise CandidateError(str(error)) from error
        if self.build:
            self.commands.run(shell(self.build), tree, self._variables(item))
        return Prepared(commit=item)

    def measure(self, item: str) -> tuple[float, float]:
        """Run the probe in the work tree of the commit."""
        return self.measuring.measure(self.folder.absolute() / item, self._variables(item))

    def discard(self, item: str) -> None:
        """Remove the work tree, if there is one."""
        WorkTrees(clone=self.clone).remove(self.folder / item)

    def stop(self) -> None:
        """End what is being built."""
        self.commands.stop()

    def _variables(self, item: str) -> dict[str, str | None]:
        tree = self.folder.absolute() / item
        return {"VERSION": item, "TREE": str(tree), "PYTHON": str(tree / self.python)}


@dataclass(frozen=True, kw_only=True, slots=True)
class Releases:
    """Releases of a package, each in an environment of its own beside the pins of all others."""

    package: str
    folder: Path
    """For the environments."""
    pins: Path | None
    """Requirements that all of them share; None for none."""
    arguments: Sequence[str]
    """Further ones for `uv pip install`, such as the index of a package."""
    measuring: Measure
    """It finds the interpreter of the environment in PYTHON, and is run where the search was begun."""
    commands: Commands
    wheels: Mapping[str, str] = field(default_factory=dict)
    """Version -> the address of its wheel, for those that no index need have any more."""

    def prepare(self, item: str) -> Prepared:
        """Make the environment with uv, which links what it has already, and check what it holds."""
        self.discard(item)  # of a search that was killed: nobody knows how far it had come
        environment = self.folder / item
        wanted = f"{self.package} @ {self.wheels[item]}" if item in self.wheels else f"{self.package}=={item}"
        pins = ("-r", str(self.pins)) if self.pins else ()
        self._uv("venv", "--python", sys.executable, str(environment))
        into = ("--python", str(self._python(item)))
        self._uv("pip", "install", *into, *pins, wanted, *self.measuring.uv_arguments, *self.arguments)
        listed = self._uv("pip", "list", *into, "--format", "json")
        return _prepared(self.package, item, listed, environment)

    def measure(self, item: str) -> tuple[float, float]:
        """Run the probe with the interpreter of the release."""
        python = str(self._python(item))
        return self.measuring.measure(None, {**OWN_ENVIRONMENT, "VERSION": item, "PYTHON": python})

    def discard(self, item: str) -> None:
        """Remove the environment, whose files stay in uv's cache."""
        shutil.rmtree(self.folder / item, ignore_errors=True)

    def stop(self) -> None:
        """End what is being installed."""
        self.commands.stop()

    def _python(self, item: str) -> Path:
        return (self.folder / item / "bin" / "python").absolute()

    def _uv(self, *arguments: str) -> str:
        return self.commands.run(("uv", *arguments, "--quiet"), variables=OWN_ENVIRONMENT)


class _Installed(msgspec.Struct):
    """A line of `uv pip list`."""

    name: str
    version: str


def _prepared(package: str, item: str, listed: str, environment: Path) -> Prepared:
    found = {each.name: each.version for each in msgspec.json.decode(listed, type=list[_Installed])}
    name = canonicalize_name(package)
    installed = found.pop(name, "none")
    # Of a wheel by its address, or beside an --override, it may be another one than was asked for.
    if not SpecifierSet(f"=={item}").contains(installed, prereleases=True):
        raise CandidateError(f"{package} {item} was asked for, and {installed} is installed")
    places = environment.glob(f"lib/python*/site-packages/{name.replace('-', '_')}/version.py")
    sources = (path.read_text(encoding="utf-8", errors="replace") for path in places)
    commits = (match[1] for text in sources if (match := BUILT_FROM.search(text)))
    return Prepared(commit=next(commits, ""), packages=found)
