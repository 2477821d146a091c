"""Several files of a folder replaced in one step: whatever happens, readers find all of them old or all new.

The new contents are first written to one file, the journal. Once it has its name, they count; then they are
copied to where they belong. Who is killed meanwhile leaves the journal, which the next writer copies again.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import msgspec

from perf_tests.harness.runs.file_lock import FileLock
from perf_tests.protocol.errors import BaselineError
from perf_tests.protocol.files import read_regular, replace_atomically

LOCK = ".lock"
JOURNAL = ".journal.json"


@contextmanager
def exclusive(root: Path) -> Iterator[None]:
    """Let no other process replace files under `root` meanwhile; waits for one that does.

    What another was killed in is finished first. Raises BaselineError where `root` cannot be written.
    """
    with _writing(root):
        root.mkdir(parents=True, exist_ok=True)
        lock = FileLock(root / LOCK, wait=True)
    with lock:
        _finish(root)
        yield


def replace_all(root: Path, contents: Mapping[Path, str | None]) -> None:
    """Replace files under `root`: path -> new content, None where it goes; to be called within `exclusive`.

    Raises BaselineError where the disk refuses: either nothing is replaced then, or the message says that the
    new contents count and that only copying them is left to be done.
    """
    if not contents:
        return
    journal = {path.relative_to(root).as_posix(): text for path, text in contents.items()}
    with _writing(root):
        replace_atomically(root / JOURNAL, msgspec.json.encode(journal))
    _finish(root)


def unfinished(root: Path) -> Mapping[Path, str | None]:
    """Path -> content of the files under `root` that a killed process had still to replace or remove (None).

    Raises BaselineError for a journal that cannot be read.
    """
    path = root / JOURNAL
    try:
        journal = msgspec.json.decode(path.read_bytes(), type=dict[str, str | None])
    except FileNotFoundError:
        return {}
    except (OSError, msgspec.DecodeError) as error:
        raise BaselineError(f"the journal {path} of an interrupted change cannot be read: {error}") from error
    return {root / name: text for name, text in journal.items()}


def read(root: Path, path: Path) -> str | None:
    """The content of a file under `root`, or what a killed process had still to write; None without either.

    Raises BaselineError where it cannot be read.
    """
    waiting = unfinished(root)
    if path in waiting:
        return waiting[path]
    try:
        return read_regular(path).decode()
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise BaselineError(f"{path} cannot be read: {error}") from error


def read_existing(root: Path, path: Path) -> str:
    """As `read`. Raises BaselineError where there is no such file, too."""
    text = read(root, path)
    if text is None:
        raise BaselineError(f"the baseline file {path} is gone: restore it from the last commit")
    return text


def listed(root: Path, pattern: str) -> tuple[Path, ...]:
    """The files under `root` that match the glob `pattern` of their path, sorted: as they are once all that
    a killed process had to write is written."""
    waiting = unfinished(root)
    present = {path for path in root.glob(pattern) if path not in waiting}
    depth = len(Path(pattern).parts)
    for path, text in waiting.items():
        relative = path.relative_to(root)
        if text is not None and len(relative.parts) == depth and relative.match(pattern):
            present.add(path)
    return tuple(sorted(present))


def _finish(root: Path) -> None:
    try:
        for path, text in unfinished(root).items():
            if text is None:
                path.unlink(missing_ok=True)
                continue
            path.parent.mkdir(parents=True, exist_ok=True)
            replace_atomically(path, text.encode())
        (root / JOURNAL).unlink(missing_ok=True)
    except OSError as error:
        raise BaselineError(
            f"the new baselines count, but {root / JOURNAL} cannot be copied to their files: {error}; make "
            "room, then run `python tools/rebaseline.py rewrite`"
        ) from error


@contextmanager
def _writing(root: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        message = f"the baselines under {root} cannot be written: {error}; nothing is changed"
        raise BaselineError(message) from error
