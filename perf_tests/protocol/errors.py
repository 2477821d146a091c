"""What can go wrong, as types:

* PerfError             anything that this suite reports to its user in one sentence
  + UsageError          options, names or files that contradict each other
  + BaselineError       a baseline file that is missing, broken or of another format
  + RecordError         a run record that is missing, broken or of another format
  + WorkerError         a worker that did not do what it was asked to do; carries the Failure
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from perf_tests.protocol.messages import Failure


class PerfError(Exception):
    """A sentence that names what was asked, what was found and what to do."""


class UsageError(PerfError):
    """Options, names or files that contradict each other."""


class BaselineError(PerfError):
    """A baseline file that is missing, broken or of another format."""


class RecordError(PerfError):
    """A run record that is missing, broken or of another format."""


class WorkerError(PerfError):
    """A worker that did not do what it was asked to do."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.message)
        self.failure = failure


class StackChangedError(WorkerError):
    """A worker with other packages than those before it: it says nothing of the case."""
