"""What inductor chose by timing, in a folder: what one process tuned, another need not tune again.

Inductor keeps the milliseconds of every kernel that it tried for a product in JSON files of its own cache,
each named by a hash of device, triton and CUDA: unlike compile-cache artifacts they survive a new torch, and
another case with the same shapes finds them too. A kernel whose code has changed is another kernel, and is
timed again.
"""

from __future__ import annotations

import fcntl
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

from perf_tests.protocol.errors import WorkerError
from perf_tests.protocol.files import TEMPORARY_SUFFIX, replace_atomically
from perf_tests.protocol.messages import Failure, FailureKind, Phase
from perf_tests.protocol.reports import TunedChoices

Lookup = tuple[str, str]
"""A product that inductor asked for: the operator, and the shapes, strides and dtypes of its operands."""


@dataclass(slots=True)
class Lookups:
    """What inductor asked its own cache for while it compiled."""

    found: dict[Lookup, bool] = field(default_factory=dict)
    """Whether all kernels had been timed when a product was first asked for."""

    def report(self) -> TunedChoices | None:
        """How many were found; None where nothing was to be tuned."""
        hits = sum(self.found.values())
        return TunedChoices(hits=hits, misses=len(self.found) - hits) if self.found else None


@contextmanager
def shared(folder: Path | None, *, compiles: bool) -> Iterator[Lookups]:
    """Compile with what `folder` holds, and add to it what is tuned; None: with this process's cache alone.

    Each product is added as soon as it was tuned, so that a compilation that is given up does not start anew
    in the next process. Nothing is done where nothing `compiles`: importing inductor takes seconds. Raises
    WorkerError(load) where the folder cannot be read or written, or a file is broken.
    """
    if not compiles:
        yield Lookups()
        return
    from torch._inductor.runtime.cache_dir_utils import cache_dir

    own = Path(cache_dir()) / "cache"
    if folder is not None:
        with _reported(folder):
            merge(folder, own)

    def keep() -> None:
        # Reported at the end: inductor would hide what is raised here in an error of its own.
        if folder is not None:
            with suppress(OSError, ValueError):
                merge(own, folder)

    with _counted(keep) as lookups:
        yield lookups
    if folder is not None and lookups.found:
        with _reported(folder):
            merge(own, folder)


def merge(source: Path, target: Path) -> None:
    """Add the timings in the files of the folder `source` to those of `target`, where the same are replaced.

    Processes that do so at once wait for each other. Raises OSError where the disk refuses, and ValueError
    for a file that holds something else.
    """
    if not source.is_dir():
        return
    target.mkdir(parents=True, exist_ok=True)
    with (target / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for file in sorted(source.iterdir()):
            if file.is_file() and not file.name.startswith(".") and file.suffix != TEMPORARY_SUFFIX:
                there = target / file.name
                known = _read(there) if there.exists() else {}
                content = json.dumps(_merged(known, _read(file)), indent=4)
                replace_atomically(there, content.encode())


def _read(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_bytes())
    except ValueError as error:
        raise ValueError(f"{file} is broken ({error}); delete it, and the next run tunes again") from error
    if not isinstance(content, dict) or not isinstance(content.get("cache"), dict):
        raise ValueError(f"{file} holds no tuned kernels; delete it, and the next run tunes again")
    return content


def _merged(known: Mapping[str, Any], added: Mapping[str, Any]) -> dict[str, Any]:
    """`known` with everything that is `added`, at every depth."""
    result = dict(known)
    for key, value in added.items():
        before = known.get(key)
        nested = isinstance(before, Mapping) and isinstance(value, Mapping)
        result[key] = _merged(before, value) if nested and before is not None else value
    return result


@contextmanager
def _counted(keep: Callable[[], None]) -> Iterator[Lookups]:
    """Note for each product whether it was found when inductor first asked its cache for it, and `keep` what
    was not; nothing for a torch that keeps its cache elsewhere, which compiles all the same."""
    from torch._inductor import codecache

    if not hasattr(codecache, "PersistentCache"):
        yield Lookups()
        return
    cache = codecache.PersistentCache
    lookups, lookup = Lookups(), cache.lookup

    def noting(
        self: Any, choices: Any, op: str, inputs: str, benchmark: Callable[[Any], Any] | None, **others: Any
    ) -> Any:
        if benchmark is None:  # it only looks, before it compiles what it may have to time
            return lookup(self, choices, op, inputs, benchmark, **others)
        timed = False

        def noted(asked: Any) -> Any:
            nonlocal timed
            timed = True
            return benchmark(asked)

        found = lookup(self, choices, op, inputs, noted, **others)
        lookups.found.setdefault((op, inputs), not timed)
        if timed:
            keep()
        return found

    cache.lookup = noting  # type: ignore[assignment, method-assign]  # it has no hook
    try:
        yield lookups
    finally:
        cache.lookup = lookup  # type: ignore[method-assign]  # as it was


@contextmanager
def _reported(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        _refuse(
            f"cannot share tuned kernels in {folder}: {error.strerror}; make room, or choose another folder",
            error,
        )
    except ValueError as error:
        _refuse(str(error), error)


def _refuse(message: str, cause: Exception) -> NoReturn:
    raise WorkerError(Failure(kind=FailureKind.LOAD, phase=Phase.COMPILE, message=message)) from cause
