"""How much of its time a device is held by workers, from the first phase of one to the last of any."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from perf_tests.harness.processes.watch import Step, Watch
from perf_tests.protocol.messages import Phase


@dataclass(frozen=True, kw_only=True, slots=True)
class Usage:
    """Where the time of a device went."""

    wall_s: float
    """From the beginning of the first phase of a worker to the end of the last."""
    held_s: float
    """While workers computed on it, or built what computes on it."""
    importing_s: float
    """While a worker was waited for that was still importing, and no other held the device."""

    @property
    def idle_s(self) -> float:
        """While no worker was asked for anything."""
        return max(0.0, self.wall_s - self.held_s - self.importing_s)

    @property
    def unused_pct(self) -> float:
        """Share of the time in which no worker held the device."""
        return 100.0 * max(0.0, 1.0 - self.held_s / self.wall_s) if self.wall_s else 0.0


class UsageMeter:
    """Adds up the phases of all workers on one device, which may overlap."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._running = {True: 0, False: 0}
        """Whether a phase is that of importing -> how many run now."""
        self._spent_s = {True: 0.0, False: 0.0}
        self._began: float | None = None
        self._looked = 0.0

    @property
    def usage(self) -> Usage | None:
        """Up to the end of the last phase; None before the first."""
        with self._lock:
            if self._began is None:
                return None
            return Usage(
                wall_s=self._looked - self._began,
                held_s=self._spent_s[False],
                importing_s=self._spent_s[True],
            )

    def on(self, watch: Watch) -> Watch:
        """`watch`, of which this meter sees all that it sees."""

        @contextmanager
        def metered(step: Step) -> Iterator[None]:
            imports = step.phase is Phase.IMPORT
            with watch(step):
                self._count(imports, 1)
                try:
                    yield
                finally:
                    self._count(imports, -1)

        return metered

    def _count(self, imports: bool, change: int) -> None:
        with self._lock:
            now = self._clock()
            self._began = now if self._began is None else self._began
            if any(self._running.values()):
                self._spent_s[not self._running[False]] += now - self._looked
            self._running[imports] += change
            self._looked = now
