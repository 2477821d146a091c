"""How long a session may measure, and which cases it no longer starts."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping


class Budget:
    """A number of seconds from now on; a case that is expected to need more than is left is not started.

    A case needs what it is compared with as well, unless that was started before it. Safe to use from several
    threads: two that ask at once may both count on the same reference.
    """

    def __init__(
        self,
        seconds: float,
        expected_s: Mapping[str, float],
        clock: Callable[[], float] = time.monotonic,
        reference_of: Mapping[str, str] | None = None,
    ) -> None:
        """`expected_s` is case id -> seconds, also of cases that are only compared with; a case without them
        is started while any time is left. `reference_of` is case id -> that of its reference."""
        self._seconds = seconds
        self._expected_s = expected_s
        self._clock = clock
        self._started = clock()
        self._reference_of = reference_of or {}
        self._begun: set[str] = set()

    def lacks(self, seconds: float) -> str | None:
        """Why nothing that takes so many seconds is begun beside the cases; None where it may be."""
        left_s = max(0.0, self._seconds - (self._clock() - self._started))
        if seconds <= left_s:
            return None
        return (
            f"it takes about {seconds:.0f} s, and {left_s:.0f} s are left of the budget of "
            f"{self._seconds:g} s"
        )

    def refusal(self, case_id: str) -> str | None:
        """Why the case may not start now; None where it may."""
        left_s = self._seconds - (self._clock() - self._started)
        if left_s <= 0:
            return f"the budget of {self._seconds:g} s is spent; --perf-resume runs the rest"
        reference = self._reference_of.get(case_id)
        needed = (case_id,) if reference is None or reference in self._begun else (case_id, reference)
        needed_s = sum(self._expected_s.get(each, 0.0) for each in needed if each not in self._begun)
        if needed_s > left_s:
            with_it = " with its reference" if len(needed) > 1 else ""
            return (
                f"expected to take {needed_s:.0f} s{with_it}, but only {left_s:.0f} s of the budget of "
                f"{self._seconds:g} s are left; --perf-resume runs the rest"
            )
        self._begun.update(needed)
        return None
