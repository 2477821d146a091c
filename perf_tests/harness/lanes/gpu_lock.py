"""One suite per GPU: a lock file for each card."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Self

from perf_tests.harness.runs.file_lock import FileLock, HeldError
from perf_tests.protocol.errors import UsageError

FOLDER = Path("/tmp")
"""Not TMPDIR, which may differ between the very jobs that must not share a GPU."""


class GpuLock:
    """An exclusive lock, held from construction until `release`. Workers do not inherit it."""

    def __init__(self, uuid: str, folder: Path | None = None) -> None:
        """Lock the GPU `uuid`; the lock file is in `folder`, by default in `FOLDER`.

        Raises UsageError where another process holds the lock, whoever its user is, naming that process, and
        where the file cannot be created.
        """
        self.path = (folder or FOLDER) / f"perf-tests-{uuid}.lock"
        try:
            self._lock = FileLock(self.path, of_all_users=True)
        except HeldError as error:
            raise UsageError(
                f"the GPU {uuid} was asked for, but {error.holder} is measuring on it: "
                "wait until it has ended, or end it"
            ) from error
        except OSError as error:
            raise UsageError(
                f"cannot open the lock {self.path}, which keeps two suites off one GPU: {error.strerror}; "
                "make the folder writable, or remove the file if nobody is measuring"
            ) from error

    def release(self) -> None:
        """Let others have the GPU. Idempotent."""
        self._lock.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.release()
