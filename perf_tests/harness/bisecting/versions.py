"""Versions to choose from: commits of a clone, each in a work tree, or releases, each in an environment."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from perf_tests.harness.bisecting.running import CandidateError
from perf_tests.harness.processes.plain_text import harmless
from perf_tests.protocol.errors import UsageError

COMMAND_TIMEOUT_S = 3600.0
SKIPS = 125
"""The exit code by which a probe skips a version, as for `git bisect run`; so does any other failure."""


class ProbeResult(msgspec.Struct):
    """The last line that a probe prints."""

    value: float
    half: float = 0.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Commits:
    """Commits of a clone, of which every other one between two is on the first-parent line."""

    clone: Path
    folder: Path
    """For the work trees."""
    build: str
    """A shell command that builds a work tree, in which it is run; empty for none."""
    probe: str
    """A shell command that prints `{"value": 1.5}`, maybe with `half`, as its last line."""

    def between(self, good: str, bad: str) -> tuple[str, ...]:
        """The commits from `good` to `bad`, both included. Raises UsageError where there is no such line."""
        ends = [_output(self.clone, "rev-parse", "--verify", f"{each}^{{commit}}") for each in (good, bad)]
        listed = _output(self.clone, "rev-list", "--first-parent", "--reverse", f"{ends[0]}..{ends[1]}")
        commits = listed.split()
        if not commits or commits[-1] != ends[1]:
            raise UsageError(f"{bad} does not come after {good} in {self.clone}")
        # Else their difference would be blamed on commits that do not build on the good end.
        if ends[0] not in _output(self.clone, "rev-list", "--first-parent", ends[1]).split():
            raise UsageError(
                f"{good} is not on the first-parent line of {bad} in {self.clone}: give the commit where its "
                f"branch left that line (`git merge-base {good} {bad}`)"
            )
        return ends[0], *commits

    def prepare(self, item: str) -> None:
        """Check the commit out, and build it."""
        tree = self.folder / item
        if not tree.exists():
            try:
                _output(self.clone, "worktree", "add", "--detach", "--force", str(tree.absolute()), item)
            except UsageError as error:
                raise CandidateError(str(error)) from error
        if self.build:
            _run(self.build, tree, {"VERSION": item})

    def measure(self, item: str) -> tuple[float, float]:
        """Run the probe in the work tree of the commit."""
        tree = self.folder / item
        return probed(self.probe, tree, {"VERSION": item, "TREE": str(tree.absolute())})

    def discard(self, item: str) -> None:
        """Remove the work tree, if there is one."""
        if (tree := self.folder / item).exists():
            _output(self.clone, "worktree", "remove", "--force", str(tree.absolute()))


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
    probe: str
    """As for commits; PYTHON is the interpreter of the environment."""

    def prepare(self, item: str) -> None:
        """Make the environment with uv, which hard-links what it has already."""
        if shutil.which("uv") is None:
            raise CandidateError("uv is not installed, which makes the environments")
        environment = self.folder / item
        if (environment / "bin" / "python").exists():
            return
        pins = ("-r", str(self.pins)) if self.pins else ()
        _command(("uv", "venv", "-q", str(environment)))
        wanted = (*pins, f"{self.package}=={item}", "--compile-bytecode", *self.arguments)
        _command(("uv", "pip", "install", "-q", "--python", str(environment / "bin" / "python"), *wanted))

    def measure(self, item: str) -> tuple[float, float]:
        """Run the probe with the interpreter of the release."""
        python = str((self.folder / item / "bin" / "python").absolute())
        return probed(self.probe, self.folder / item, {"VERSION": item, "PYTHON": python})

    def discard(self, item: str) -> None:
        """Remove the environment, whose files stay in uv's cache."""
        shutil.rmtree(self.folder / item, ignore_errors=True)


def probed(command: str, folder: Path, variables: Mapping[str, str]) -> tuple[float, float]:
    """Value and half interval that the command prints last. Raises CandidateError where it fails."""
    output = _run(command, folder, variables)
    lines = output.strip().splitlines()
    try:
        found = msgspec.json.decode(lines[-1], type=ProbeResult)
    except (IndexError, msgspec.DecodeError) as error:
        raise CandidateError(f"its probe printed no value last: {harmless(str(error))}") from error
    return found.value, found.half


def _run(command: str, folder: Path, variables: Mapping[str, str]) -> str:
    return _command(("bash", "-c", command), folder, variables)


def _command(
    command: Sequence[str], folder: Path | None = None, variables: Mapping[str, str] | None = None
) -> str:
    try:
        done = subprocess.run(
            command,
            cwd=folder,
            env={**os.environ, **(variables or {})},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=COMMAND_TIMEOUT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise CandidateError(harmless(str(error))) from error
    if done.returncode:
        said = (done.stderr or done.stdout).strip().splitlines()
        why = harmless(said[-1]) if said else "it said nothing"
        raise CandidateError(why if done.returncode == SKIPS else f"exit code {done.returncode}: {why}")
    return done.stdout


def _output(clone: Path, *arguments: str) -> str:
    try:
        done = subprocess.run(
            ("git", "-C", str(clone), *arguments),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=COMMAND_TIMEOUT_S,
            check=True,
        )
    except (OSError, subprocess.SubprocessError) as error:
        said = getattr(error, "stderr", "") or str(error)
        raise UsageError(f"git {arguments[0]} in {clone}: {harmless(str(said)).strip()}") from error
    return done.stdout.strip()
