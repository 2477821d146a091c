"""Runs the script of a known issue in a process of its own, and judges whether the issue still exists."""

from __future__ import annotations

import datetime
import os
import signal
import subprocess
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from perf_tests.harness.processes.inherited import REPOSITORY, worker_environment
from perf_tests.harness.processes.plain_text import harmless
from perf_tests.protocol.errors import PerfError
from perf_tests.tables.known_issues import KnownIssue

LOG_LINES = 10


class Reproduction(msgspec.Struct, frozen=True):
    """What the script prints in its last line; it may print other lines before."""

    figure: float
    """How bad the defect is, in the units of its row."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """Whether the issue is as the table says, and a sentence on what was found."""

    as_expected: bool
    text: str


def expired(issues: Iterable[KnownIssue], today: datetime.date) -> tuple[KnownIssue, ...]:
    """The issues that should have been looked at again before `today`."""
    return tuple(issue for issue in issues if today > issue.expires)


def watch(issue: KnownIssue, python: str, log: Path) -> Finding:
    """Reproduce `issue` under the interpreter `python`, with stderr in `log`, and judge it.

    Raises PerfError where the script cannot be started, fails, prints something else, or exceeds its
    deadline; its whole process group is dead by then.
    """
    return judge(issue, _reproduce(issue, python, log))


def judge(issue: KnownIssue, found: Reproduction) -> Finding:
    """Judge what was found: as expected while the issue reproduces.

    Whether its row has expired is not judged here: a date makes no change of the code wrong, so
    `tools/known_issues.py` only warns of it, and is red where a night calls it.
    """
    seen = f"{issue.id}: {found.figure:.3g} {issue.wording} ({issue.link})"
    if found.figure < issue.reproduces_from:
        bound = f"below {issue.reproduces_from:g} the issue no longer exists, so it is fixed"
        return Finding(as_expected=False, text=f"{seen}; {bound}: {issue.then}. Owner: {issue.owner}")
    return Finding(as_expected=True, text=seen)


def _reproduce(issue: KnownIssue, python: str, log: Path) -> Reproduction:
    try:
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("wb") as errors:
            process = subprocess.Popen(
                [python, str(REPOSITORY / issue.script), f"--{issue.figure}"],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=errors,
                cwd=REPOSITORY,
                env=worker_environment(os.environ, {}),
                start_new_session=True,
            )
    except OSError as error:
        raise PerfError(f"the script of {issue.id} could not be started: {error}") from error
    try:
        output, _ = process.communicate(timeout=issue.deadline_s)
    except subprocess.TimeoutExpired:
        raise PerfError(
            f"{issue.script} did not show {issue.id} within {issue.deadline_s:g} s: see {log}"
        ) from None
    finally:
        # The whole group, also after Ctrl-C: the script may have started compilers.
        with process, suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    return _read(issue, process.returncode, output, log)


def _read(issue: KnownIssue, returncode: int, output: bytes, log: Path) -> Reproduction:
    try:
        if returncode == 0:
            found = msgspec.json.decode(output.strip().rpartition(b"\n")[2], type=dict[str, Any])
            return msgspec.convert({"figure": found.get(issue.figure)}, type=Reproduction)
    except msgspec.DecodeError as error:
        raise PerfError(
            f"{issue.script} did not print its {issue.figure} as JSON: {error}: see {log}"
        ) from error
    last = harmless(log.read_text(encoding="utf-8", errors="replace")).splitlines()[-LOG_LINES:]
    message = f"{issue.script}, which shows {issue.id}, ended with exit code {returncode}; its last lines:"
    raise PerfError("\n".join((message, *last)))
