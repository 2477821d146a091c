"""How long a session may measure, and which cases it no longer starts."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping


class Budget:
    """A number of seconds from now on; a case that is expected to need more than is left is not started."""

    def __init__(
        self,
        seconds: float,
        expected_s: Mapping[str, float],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`expected_s` is case id -> seconds; a case without them is started while any time is left."""
        self._seconds = seconds
        self._expected_s = expected_s
        self._clock = clock
        self._started = clock()

    def refusal(self, case_id: str) -> str | None:
        """Why the case may not start now; None where it may."""
        left_s = self._seconds - (self._clock() - self._started)
        if left_s <= 0:
            return f"the budget of {self._seconds:g} s is spent; --perf-resume runs the rest"
        needed_s = self._expected_s.get(case_id, 0.0)
        if needed_s > left_s:
            return (
                f"expected to take {needed_s:.0f} s, but only {left_s:.0f} s of the budget of "
                f"{self._seconds:g} s are left; --perf-resume runs the rest"
            )
        return None
