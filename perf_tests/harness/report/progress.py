"""Signs of life while a session measures: a line for each phase, and on a terminal one status line a card."""

from __future__ import annotations

import math
import os
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Protocol, TextIO

from perf_tests.harness.processes.watch import Step
from perf_tests.harness.report.wording import flat
from perf_tests.protocol.errors import WorkerError
from perf_tests.protocol.messages import Phase

if TYPE_CHECKING:
    from rich.console import Group

Clock = Callable[[], float]
"""Seconds that only grow."""

PRIOR_S = 300.0
"""The forecast is believed as much as this many expected seconds that were measured."""
MAX_MESSAGE = 100
"""Characters of a failure that are printed while the session runs; the rest is in the report."""
MINUTE_S, HOUR_S = 60, 3600
PRECISE_BELOW_S = 9.95
FEW = 100
"""Up to so many seconds and minutes are printed as such."""


class Display(Protocol):
    """Where signs of life appear. Its methods do not raise."""

    def line(self, text: str) -> None:
        """Print a line that stays."""

    def status(self, lane: str, text: str) -> None:
        """Show what a card does now, until it does something else; nothing where `text` is empty."""


def duration(seconds: float) -> str:
    """`4.1 s`, `41 s`, `41 min` or `3 h 10 min`."""
    if seconds < PRECISE_BELOW_S:
        return f"{seconds:.1f} s"
    if seconds < FEW:
        return f"{seconds:.0f} s"
    if seconds < FEW * MINUTE_S:
        return f"{seconds / MINUTE_S:.0f} min"
    hours, minutes = divmod(round(seconds / MINUTE_S), MINUTE_S)
    return f"{hours} h {minutes} min" if minutes else f"{hours} h"


def roughly(seconds: float) -> str:
    """A forecast, rounded to what it is worth: tens of seconds, minutes, then half hours."""
    if seconds < FEW:
        return f"about {max(10, 10 * round(seconds / 10))} s"
    if seconds < FEW * MINUTE_S:
        return f"about {math.ceil(seconds / MINUTE_S)} min"
    half_hours = round(2 * seconds / HOUR_S)
    return f"about {half_hours // 2} h{' 30 min' if half_hours % 2 else ''}"


@dataclass(slots=True)
class TimeLeft:
    """When a session will have measured all of its cases, estimated anew whenever one is done."""

    expected_s: Mapping[str, float]
    """Case id -> what the case will probably take, its references included; empty where nothing is known."""
    lanes: int
    """How many cases are measured at once."""
    started: float
    done_before: Collection[str] = ()
    """Cases that an earlier session has measured."""
    _done: int = -1
    _ends_at: float | None = None

    def seconds(self, done: Collection[str], total: int, now: float) -> float | None:
        """Seconds from `now` until the last of `total` cases is done.

        None where that cannot be told yet, or no more: which package made what red is found out after the
        last case, and takes as long as it needs.
        """
        if len(done) != self._done:
            self._done = len(done)
            left_s = self._estimate(done, total, now)
            self._ends_at = None if left_s is None else now + left_s
        return None if self._ends_at is None or self._ends_at <= now else self._ends_at - now

    def _estimate(self, done: Collection[str], total: int, now: float) -> float | None:
        elapsed, measured = now - self.started, set(done) - set(self.done_before)
        if self.expected_s:
            work_s = math.fsum(self.expected_s[case_id] for case_id in measured)
            left_s = math.fsum(spent for case_id, spent in self.expected_s.items() if case_id not in done)
            return left_s * (elapsed + PRIOR_S / self.lanes) / (work_s + PRIOR_S)
        return (total - len(done)) * elapsed / len(measured) if measured else None


TOLD_AS: Final = {Phase.QUANTIZE: "quantize, fidelity", Phase.INSPECT: "inspect, fidelity"}
"""Phase -> all that its request asks a worker for, where that is more. Only the record tells the seconds
apart, since only the worker knows them."""


@dataclass(slots=True)
class _Generating:
    """The generations of one process so far."""

    count: int = 0
    spent_s: float = 0.0


@dataclass(slots=True)
class PhaseLines:
    """Prints a line for each phase of each worker; it is the `Watch` of a session, from any thread."""

    display: Display
    total: int
    """How many cases are selected."""
    done: Callable[[], Collection[str]]
    """The ids of those that are measured."""
    left: TimeLeft
    lanes: Mapping[str, str] = field(default_factory=dict)
    """Unit -> what its card is called; empty with one device, which needs no name."""
    clock: Clock = time.monotonic
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _generating: dict[tuple[str, str | None, str], _Generating] = field(default_factory=dict)

    @contextmanager
    def __call__(self, step: Step) -> Iterator[None]:
        """Tell of one phase of one worker."""
        self._began(step)
        begun = self.clock()
        try:
            yield
        except WorkerError as error:
            spent = duration(self.clock() - begun)
            self._print(
                step, f"{step.phase} failed after {spent}: {flat(error.failure.message)[:MAX_MESSAGE]}"
            )
            raise
        self._ended(step, self.clock() - begun)

    def _began(self, step: Step) -> None:
        with self._lock:
            key = (step.case_id, step.unit, step.stack)
            generated = self._generating.pop(key, None) if step.phase is Phase.INSPECT else None
            if generated is not None:
                text = f"generate {generated.count} times in {duration(generated.spent_s)}"
                self.display.line(self._line(step, text))
            self.display.status(self._lane(step), self._line(step, f"{step.phase} ..."))

    def _ended(self, step: Step, spent_s: float) -> None:
        if step.phase is not Phase.GENERATE:
            self._print(step, f"{TOLD_AS.get(step.phase, step.phase)} {duration(spent_s)}")
            self.display.status(self._lane(step), "")
            return
        with self._lock:  # one line for all of them, when the process is inspected
            generating = self._generating.setdefault((step.case_id, step.unit, step.stack), _Generating())
            generating.count += 1
            generating.spent_s += spent_s

    def _print(self, step: Step, text: str) -> None:
        with self._lock:
            self.display.line(self._line(step, text))

    def _line(self, step: Step, text: str) -> str:
        process = f"  process {step.process + 1}" if step.process else ""
        stack = f"{' ' if process else '  '}in {step.stack}" if step.stack else ""
        lane = self._lane(step)
        return "  ".join(filter(None, (self._where(), lane, f"{step.case_id}{process}{stack}", text)))

    def _lane(self, step: Step) -> str:
        return self.lanes.get(step.unit or "", "")

    def _where(self) -> str:
        done, now = self.done(), self.clock()
        left_s = self.left.seconds(done, self.total, now)
        parts = (f"{len(done)}/{self.total}", duration(now - self.left.started))
        return f"[{', '.join((*parts, *([] if left_s is None else [f'{roughly(left_s)} left'])))}]"


# Displays


class Lines:
    """A display for logs: each line is flushed, and but for the first phase only what has ended is told."""

    def __init__(self, stream: TextIO, before: Callable[[], str] = str) -> None:
        """`before` is what must precede a line: a newline where others have left one unfinished."""
        self._stream = stream
        self._before = before
        self._has_begun = False

    def line(self, text: str) -> None:
        """Print the line. Where nobody can read it any more, measuring goes on."""
        with suppress(OSError, ValueError):
            self._stream.write(f"{self._before()}{text}\n")
            self._stream.flush()

    def status(self, lane: str, text: str) -> None:
        """The first is a line, because the first import takes long; later ones become lines when they end."""
        if text and not self._has_begun:
            self._has_begun = True
            self.line(text)

    def close(self) -> None:
        """Nothing: all lines are written."""


class LiveLines:
    """A display for terminals: below the lines, what each card does now and since when."""

    def __init__(self, stream: TextIO, before: Callable[[], str] = str) -> None:
        """`before` is what must precede a line: a newline where others have left one unfinished."""
        # rich takes a tenth of a second to import, which sessions without a terminal need not wait for.
        from rich.console import Console
        from rich.live import Live

        self._before = before
        self._now: dict[str, tuple[str, float]] = {}
        self._console = Console(file=stream, force_terminal=True, highlight=False, markup=False)
        # Once a second is often enough to see that it lives, and takes nothing from what is measured.
        self._live = Live(
            console=self._console,
            refresh_per_second=1,
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
            get_renderable=self._shown,
        )

    def line(self, text: str) -> None:
        """Print the line above what is shown."""
        with suppress(OSError, ValueError):
            self._console.print(f"{self._before()}{text}", soft_wrap=True)

    def status(self, lane: str, text: str) -> None:
        """Show what the card does from now on, with the seconds since."""
        with suppress(OSError, ValueError):
            self._now.pop(lane, None)
            if text:
                self._now[lane] = (text, time.monotonic())
                self._live.start(refresh=True)

    def close(self) -> None:
        """Take away what was shown. Idempotent."""
        with suppress(OSError, ValueError):
            self._live.stop()

    def _shown(self) -> Group:
        from rich.console import Group
        from rich.text import Text

        now = time.monotonic()
        lines = (f"{text} {duration(now - since)}" for _, (text, since) in sorted(self._now.items()))
        return Group(*(Text(line, style="dim", no_wrap=True, overflow="ellipsis") for line in lines))


def uncaptured(stream: TextIO) -> TextIO:
    """A stream to where `stream` writes now, which stays the same when pytest captures what tests print.

    One in memory, which nobody redirects, is returned as it is.
    """
    try:
        return os.fdopen(os.dup(stream.fileno()), "w", encoding=stream.encoding, errors="replace")
    except OSError:  # which io.UnsupportedOperation is, too
        return stream


def display_on(stream: TextIO, before: Callable[[], str] = str) -> Lines | LiveLines:
    """The display that fits `stream`: a terminal, or a log."""
    is_terminal = stream.isatty() and os.environ.get("TERM") != "dumb"
    return LiveLines(stream, before) if is_terminal else Lines(stream, before)
