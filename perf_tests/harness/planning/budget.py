"""How long a session may measure, and what is no longer begun."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping


class Budget:
    """Seconds from the moment it is made; no case is begun that is expected to need more than is left."""

    def __init__(
        self,
        seconds: float,
        expected_s: Mapping[str, float],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`expected_s`: case id -> seconds; a case that is not in it is begun while any time is left."""
        self._seconds = seconds
        self._expected_s = expected_s
        self._clock = clock
        self._began = clock()

    def refusal(self, case_id: str) -> str | None:
        """Why the case is not begun now; None where it is."""
        left_s = self._seconds - (self._clock() - self._began)
        if left_s <= 0:
            return f"the budget of {self._seconds:g} s is spent; --perf-resume runs the rest"
        needed_s = self._expected_s.get(case_id, 0.0)
        if needed_s > left_s:
            return (
                f"expected to take {needed_s:.0f} s, and {left_s:.0f} s of the budget of {self._seconds:g} s "
                "are left; --perf-resume runs the rest"
            )
        return None
