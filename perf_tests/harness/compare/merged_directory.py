"""The directory of a merged run: its record, and copies of the files of the shards that it refers to."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from perf_tests.harness.compare.merge import PartialRun, shard_of
from perf_tests.harness.rebaseline.candidates import read_run
from perf_tests.harness.runs.directory import CAPTURES, LOGS, PLANS, PROFILES, REPRO
from perf_tests.harness.runs.record import RunRecord
from perf_tests.harness.runs.record_file import RECORD, write_record
from perf_tests.protocol.errors import PerfError, UsageError
from perf_tests.protocol.files import TEMPORARY_SUFFIX

COPIED = (LOGS, CAPTURES, PLANS, REPRO, PROFILES)
"""What records and failure texts refer to; a compile cache is of no use elsewhere."""


def read(paths: Sequence[Path]) -> tuple[PartialRun, ...]:
    """The shards in the run directories `paths`.

    Raises RecordError for a record that cannot be read, UsageError for a run that is no shard.
    """
    runs = [(path.parent if path.is_file() else path, read_run(path)) for path in paths]
    return tuple(shard_of(path, run.record, run.sha256) for path, run in runs)


def write(record: RunRecord, shards: Sequence[PartialRun], out: Path) -> None:
    """Write `record` and copies of the files of `shards` to the new directory `out`, in one step.

    Raises UsageError where `out` holds anything, and PerfError where the disk refuses: then there is no
    `out`, and the shards are as they were.
    """
    out = out.absolute()
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UsageError(f"--out {out} is there already: give a directory that does not exist yet")
    unfinished = out.with_name(f"{out.name}.{os.getpid()}{TEMPORARY_SUFFIX}")
    try:
        unfinished.mkdir(parents=True)
        for shard in shards:
            for kind in COPIED:
                _copy(shard.path / kind, unfinished / kind / shard.folder)
        write_record(unfinished / RECORD, record)
        unfinished.rename(out)
    except (OSError, shutil.Error) as error:
        raise PerfError(
            f"cannot write {out}: {_reason(error)}; the parts are as they were: make room, or choose another "
            "--out"
        ) from error
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)  # gone already where all went well


def _copy(source: Path, target: Path) -> None:
    if source.is_dir():
        shutil.copytree(source, target, ignore=_irregular)


def _irregular(folder: str, names: list[str]) -> list[str]:
    """What no worker leaves: links, whose targets may lie anywhere, pipes and devices."""
    paths = {name: Path(folder, name) for name in names}
    return [
        name for name, path in paths.items() if path.is_symlink() or not (path.is_file() or path.is_dir())
    ]


def _reason(error: OSError) -> str:
    if isinstance(error, shutil.Error) and error.args and error.args[0]:
        source, _, why = error.args[0][0]
        return f"{source}: {why}"
    return error.strerror or str(error)
