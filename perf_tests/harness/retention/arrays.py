"""Which arrays of a run directory are still needed, and the removal of the others.

The arrays of a case take 60 to 800 MB, those of a night 99 GB. All that is asked of them is asked once the
case is complete: how far it is from its reference, and for a red or a new one a drawing of where. Numbers
stay in the record, and what a person looks at in the directory: pictures, heat maps, films. So arrays go at
once, but those of a reference only when no case is left to be compared with it, in this session or in one
that resumes it; and those that could not be compared stay as the evidence.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from perf_tests.harness.runs.directory import CAPTURES
from perf_tests.harness.runs.record import Progress, Run, Status
from perf_tests.harness.runs.store import RunStore

Dependants = Mapping[str, Collection[str]]
"""Id of a reference -> ids of the selected cases that are compared with it."""


def array_files(run: Run) -> Iterator[str]:
    """The arrays that the record names of `run`, as files of the run directory."""
    for process in run.processes:
        yield from (capture.array for capture in process.captures)
        if process.arrays is not None:
            yield process.arrays.file
        if process.recorded is not None:
            yield process.recorded.arrays.file
            if process.recorded.picture is not None:
                yield process.recorded.picture.array


class ArrayFiles:
    """The arrays in the run directory of one session."""

    def __init__(self, out: Path, dependants: Dependants, store: RunStore) -> None:
        """In the run directory `out`, of the runs in `store`."""
        self._out = out
        self._dependants = dependants
        self._store = store
        self._removed: set[str] = set()
        self._in_use: set[str] = set()
        self.missed: set[str] = set()
        """Ids of references that are measured again, because a case is to be compared with their arrays."""

    def has(self, run: Run) -> bool:
        """Whether all arrays that the record names of `run` are there."""
        return all((self._out / file).is_file() for file in array_files(run))

    @contextmanager
    def in_use(self, *case_ids: str) -> Iterator[None]:
        """While it lasts no thread removes the arrays of these cases, nor those of their references."""
        with self._store.lock:
            self._in_use.update(case_ids)
        try:
            yield
        finally:
            with self._store.lock:
                self._in_use.difference_update(case_ids)

    def remove_unneeded(self) -> None:
        """Remove the arrays of every run that nothing will be compared with any more.

        A file that cannot be removed stays: it costs room, and no result.
        """
        with self._store.lock:
            for run in self._store.runs():
                files = set(array_files(run)) - self._removed
                if files and not self._is_needed(run):
                    self._remove(files)

    def _is_needed(self, run: Run) -> bool:
        if run.progress is Progress.INTERRUPTED or run.status is Status.NUMERICS:
            return True
        dependants = self._dependants.get(run.id, ())
        if not self._in_use.isdisjoint((run.id, *dependants)):
            return True
        return not all(map(self._store.is_settled, dependants))

    def _remove(self, files: Collection[str]) -> None:
        folder = (self._out / CAPTURES).resolve()
        for file in files:
            path = (self._out / file).resolve()
            if path.is_relative_to(folder):  # a record that somebody edited may name any file
                with suppress(OSError):
                    path.unlink(missing_ok=True)
        self._removed.update(files)
