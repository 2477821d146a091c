"""What of a run directory is uploaded: the record, and as much of what explains it as fits."""

from __future__ import annotations

import shutil
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, partial
from itertools import chain, zip_longest
from pathlib import Path

from perf_tests.harness.runs.directory import LOCK, LOGS, PAGE, is_evidence
from perf_tests.harness.runs.record import Run, RunRecord
from perf_tests.protocol.errors import PerfError
from perf_tests.protocol.files import TEMPORARY_SUFFIX

LIMIT_MB = 95.0
"""Of one upload, compressed: what is not counted, an archive's own bytes, leaves it under 100."""
MB = 1e6
COMPRESSED = frozenset({".png", ".mp4", ".gz"})
DRAWN = ("reference.png", "candidate.png", "heatmap.png", "frames.png", "mp4")
"""What is appended to the stem of a capture that was drawn."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Parcel:
    """Files of a run directory, relative to it."""

    files: tuple[Path, ...]
    megabytes: float
    """Of the files, compressed."""
    left_out: tuple[Path, ...]
    """Files that were worth it and did not fit."""


def choose(out: Path, record: RunRecord | None, limit_mb: float) -> Parcel:
    """What is uploaded of the run directory `out`; `record` is None where the session kept none.

    The record and the other files beside it always are. Then, as far as they fit, the page, and of what is
    red or new the logs, what was recorded of it (scripts, traces, memory), the heat maps and films, and the
    pictures, causes by turns; then all other logs.
    Arrays, caches and pictures of green cases are not.
    """
    beside = [path.relative_to(out) for path in sorted(out.iterdir()) if _is_of_use(path)]
    files, left_out, packed_mb = list(beside), [], sum(_packed_mb(out / file) for file in beside)
    for file in _worth_it(out, record):
        size_mb = _packed_mb(out / file)
        if packed_mb + size_mb <= limit_mb:
            files.append(file)
            packed_mb += size_mb
        else:
            left_out.append(file)
    return Parcel(files=tuple(files), megabytes=packed_mb, left_out=tuple(left_out))


def copy(parcel: Parcel, out: Path, folder: Path) -> None:
    """Copy the files of `parcel` from the run directory `out` into `folder`, which must be new or empty.

    Raises PerfError for another one, and where the disk refuses.
    """
    if folder.exists() and not folder.is_dir():
        raise PerfError(f"{folder} is not a folder: choose another --out")
    if folder.exists() and any(folder.iterdir()):
        raise PerfError(f"{folder} is not empty, and all of it would be uploaded: choose another --out")
    try:
        for file in parcel.files:
            (folder / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(out / file, folder / file)
    except OSError as error:
        raise PerfError(f"cannot copy the run to {folder}: {error.strerror}; make room for it") from error


def _is_of_use(path: Path) -> bool:
    return path.is_file() and path.name not in (LOCK, PAGE) and not path.name.endswith(TEMPORARY_SUFFIX)


def _worth_it(out: Path, record: RunRecord | None) -> Iterator[Path]:
    """The files that are worth uploading, the most telling first, each once and only if it is there."""
    told = _causes_by_turns([run for run in record.cases if not run.status.is_green] if record else [])
    found = chain(
        (PAGE,),
        (process.log for run in told for process in run.processes),
        filter(is_evidence, (file for each in record.evidence for file in each.files)) if record else (),
        chain.from_iterable(map(_drawings, told)),
        chain.from_iterable(map(_pictures, told)),
        sorted(str(path.relative_to(out)) for path in (out / LOGS).rglob("*.log")),
    )
    is_inside = cache(partial(_is_inside, out.resolve()))
    for file in map(Path, dict.fromkeys(filter(None, found))):
        path = out / file  # of an edited record, which may name any
        if path.is_file() and is_inside(path if path.is_symlink() else path.parent):
            yield file


def _is_inside(root: Path, path: Path) -> bool:
    return path.resolve().is_relative_to(root)


def _causes_by_turns(runs: Sequence[Run]) -> list[Run]:
    """`runs`, so that the first ones are red for different reasons."""
    by_cause: dict[tuple[str, str], list[Run]] = {}
    for run in runs:
        metric = "" if run.failure else run.reason.partition(":")[0]
        by_cause.setdefault((run.status.value, metric), []).append(run)
    return [run for turn in zip_longest(*by_cause.values()) for run in turn if run is not None]


def _drawings(run: Run) -> Iterable[str]:
    for process in run.processes:
        for capture in process.captures:
            yield from (f"{capture.array.removesuffix('.npy')}.{name}" for name in DRAWN)


def _pictures(run: Run) -> Iterable[str]:
    return (capture.image for process in run.processes for capture in process.captures)


def _packed_mb(path: Path) -> float:
    if path.suffix in COMPRESSED:
        return path.stat().st_size / MB
    return len(zlib.compress(path.read_bytes())) / MB
