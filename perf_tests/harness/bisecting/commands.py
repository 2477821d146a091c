"""Commands that install, build and measure versions: each ends with everything that it started."""

from __future__ import annotations

import math
import os
import re
import subprocess
import tempfile
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

import msgspec

from perf_tests.harness.processes.plain_text import harmless
from perf_tests.harness.processes.process_group import ProcessGroup
from perf_tests.protocol.errors import PerfError

SKIPS = 125
"""The exit code by which a probe skips a version, as for `git bisect run`; so does any other failure."""
END_TIMEOUT_S = 10.0
SAID_LINES = 3
"""Of what a failing command said, the last ones: installers explain themselves in several."""
EXCEPTION = re.compile(r"[\w.]+(Error|Exception)\b")
"""How the last line of a traceback begins, which needs no other."""


class CandidateError(Exception):
    """A version cannot be installed, built or measured: it is skipped."""


class ProbeResult(msgspec.Struct):
    """The last line that a probe prints, unless that is a bare number."""

    value: float
    half: float = 0.0


@dataclass(kw_only=True, slots=True)
class Commands:
    """Runs commands, from several threads at a time."""

    timeout_s: float
    """For each command."""
    _groups: set[ProcessGroup] = field(default_factory=set)
    _starting: threading.Lock = field(default_factory=threading.Lock)
    _is_stopped: bool = False

    def run(
        self,
        command: Sequence[str],
        folder: Path | None = None,
        variables: Mapping[str, str | None] | None = None,
        accepted: tuple[int, ...] = (0,),
    ) -> str:
        """What the command printed. None removes a variable from what it inherits.

        Raises CandidateError, with the end of what it said, where it fails, and PerfError where there is no
        room for what it prints.
        """
        # Files, since whatever the command left running would hold a pipe open, and the search with it.
        with _file() as output, _file() as errors:
            group = self._started(command, folder, {**os.environ, **(variables or {})}, output, errors)
            try:
                code = group.await_exit(self.timeout_s)
            finally:
                group.kill(END_TIMEOUT_S)
                self._groups.discard(group)
            self._raise_if_stopped()
            if code is None:
                raise CandidateError(f"it took longer than {self.timeout_s:g} s")
            if code not in accepted:
                raise CandidateError(_why(code, _written(errors) or _written(output)))
            return _written(output)

    def _started(
        self,
        command: Sequence[str],
        folder: Path | None,
        variables: Mapping[str, str | None],
        output: IO[bytes],
        errors: IO[bytes],
    ) -> ProcessGroup:
        try:
            with self._starting:
                self._raise_if_stopped()
                process = subprocess.Popen(
                    command,
                    cwd=folder,
                    env={name: value for name, value in variables.items() if value is not None},
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=errors,
                    start_new_session=True,
                )
                group = ProcessGroup(process)
                self._groups.add(group)
        except OSError as error:
            raise CandidateError(harmless(str(error))) from error
        return group

    def stop(self) -> None:
        """End the commands that run, with all that they started; no other is begun."""
        with self._starting:
            self._is_stopped = True
        for group in tuple(self._groups):
            group.kill_without_waiting()

    def _raise_if_stopped(self) -> None:
        if self._is_stopped:
            raise CandidateError("the search has ended")


def _file() -> IO[bytes]:
    try:
        return tempfile.TemporaryFile()
    except OSError as error:
        raise PerfError(
            f"what a command prints cannot be kept: {error.strerror}; make room, or point TMPDIR to a folder "
            "that has some"
        ) from error


def _written(file: IO[bytes]) -> str:
    file.seek(0)
    return file.read().decode(errors="replace")


def _why(code: int, said: str) -> str:
    lines = [line.strip() for line in harmless(said).splitlines() if line.strip()][-SAID_LINES:]
    is_traceback = bool(lines) and EXCEPTION.match(lines[-1]) is not None
    why = " / ".join(lines[-1:] if is_traceback else lines) or "it said nothing"
    return why if code == SKIPS else f"exit code {code}: {why}"


def result(output: str, key: str) -> tuple[float, float]:
    """Value and half interval in the last line that a probe printed: a number, or a JSON object with `key`.

    Raises CandidateError where there is none.
    """
    lines = output.strip().splitlines() or [""]
    wanted = f'the last line of a probe is a number, or JSON such as {{"{key}": 1.5}}'
    try:
        found = msgspec.json.decode(lines[-1], type=float | dict[str, object])
        values = {"value": found[key], "half": found.get("half", 0.0)} if isinstance(found, dict) else found
        read = (
            ProbeResult(value=values) if isinstance(values, float) else msgspec.convert(values, ProbeResult)
        )
    except (KeyError, msgspec.DecodeError) as error:
        raise CandidateError(f"{wanted}, not {harmless(lines[-1])[:200]!r}") from error
    if not (math.isfinite(read.value) and math.isfinite(read.half) and read.half >= 0):
        raise CandidateError(f"{wanted}, finite, with no negative half; not {harmless(lines[-1])[:200]!r}")
    return read.value, read.half
