"""Runs uv as every environment of this suite needs it, and other commands that installing takes."""

from __future__ import annotations

import ctypes
import errno
import os
import shutil
import signal
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from perf_tests.harness.processes.plain_text import harmless
from perf_tests.protocol.errors import PerfError, UsageError

TIMEOUT_S = 3600.0
PR_SET_PDEATHSIG = 1  # linux/prctl.h
SAID_CHARACTERS = 600
"""Of what a failing command said, the last ones: resolvers end with their reasons."""
OF_ANOTHER_ENVIRONMENT = ("VIRTUAL_ENV", "CONDA_PREFIX", "PYTHONPATH", "PYTHONHOME")
"""Variables that would point a command at another environment than the one it is told to use."""


class InstallError(PerfError):
    """Something that could not be resolved, installed or imported."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Uv:
    """uv with one cache, whose files it links into each environment."""

    cache: Path

    def run(
        self, *arguments: str, folder: Path | None = None, variables: Mapping[str, str] | None = None
    ) -> str:
        """What uv printed. Raises InstallError where it fails, UsageError where there is none."""
        require_uv()
        linked = {"UV_CACHE_DIR": str(self.cache.absolute()), "UV_LINK_MODE": "hardlink"}
        return output_of(("uv", *arguments), folder=folder, variables={**linked, **(variables or {})})

    def make(self, environment: Path, python: str) -> None:
        """Make an empty environment for that interpreter. Raises InstallError where uv fails."""
        self.run("venv", "--quiet", "--python", python, str(environment))

    def install(self, environment: Path, *arguments: str, variables: Mapping[str, str] | None = None) -> None:
        """Install exactly what is named into an environment, with its bytecode. Raises InstallError.

        Warnings of a file that is compiled later would be errors in a session that makes them errors. uv
        compiles what it installs with this command, and nothing that is there already.
        """
        into = ("--quiet", "--python", str(environment.absolute() / "bin" / "python"))
        self.run("pip", "install", *into, "--no-deps", "--compile-bytecode", *arguments, variables=variables)


def require_uv() -> None:
    """Raises UsageError where there is no uv."""
    if shutil.which("uv") is None:
        raise UsageError("uv makes the environments, and is not on PATH: `pip install uv`")


def output_of(
    command: Sequence[str], *, folder: Path | None = None, variables: Mapping[str, str] | None = None
) -> str:
    """What a command printed. Raises InstallError, with the end of what it said, where it fails."""
    inherited = {name: value for name, value in os.environ.items() if name not in OF_ANOTHER_ENVIRONMENT}
    try:
        done = subprocess.run(
            command,
            cwd=folder,
            env={**inherited, **(variables or {})},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=TIMEOUT_S,
            check=False,
            preexec_fn=_end_with_parent,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise InstallError(harmless(str(error))) from error
    if done.returncode:
        said = " ".join(harmless(done.stderr or done.stdout).split())[-SAID_CHARACTERS:]
        raise InstallError(f"{Path(command[0]).name} failed: {said or f'exit code {done.returncode}'}")
    return done.stdout


def _end_with_parent() -> None:
    """Else uv would go on installing after its parent was killed, into what the next build removes."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def check_links(cache: Path, folder: Path) -> None:
    """Make sure that files of the cache can be linked into `folder`; both are made where they do not exist.

    Raises UsageError where they cannot: uv would silently copy gigabytes for each environment instead.
    """
    for each in (cache, folder):
        try:
            each.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UsageError(f"{each}: cannot be made: {error.strerror}") from error
    source, link = cache / f".linked-{os.getpid()}", folder / f".link-{os.getpid()}"
    try:
        source.touch()
        link.hardlink_to(source)
    except OSError as error:
        why = "they are on different file systems" if error.errno == errno.EXDEV else error.strerror
        raise UsageError(
            f"files of the cache {cache} cannot be linked into {folder}: {why}; "
            "give a --cache on the file system of the environments"
        ) from error
    finally:
        source.unlink(missing_ok=True)
        link.unlink(missing_ok=True)
