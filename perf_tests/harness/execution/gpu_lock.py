"""One suite per GPU: a lock file for each card, which the kernel releases however its holder dies."""

from __future__ import annotations

import fcntl
import os
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Self

from perf_tests.protocol.errors import UsageError

FOLDER = Path("/tmp")
"""Not TMPDIR, which may differ between the very jobs that must not share a GPU."""
HOLDER_BYTES = 200


class GpuLock:
    """An exclusive lock, held from construction until `release`. Workers do not inherit it."""

    def __init__(self, uuid: str, folder: Path | None = None) -> None:
        """Lock the GPU `uuid`; the lock file is in `folder`, by default in `FOLDER`.

        Raises UsageError where another process holds the lock, whoever its user is, naming that process, and
        where the file cannot be created.
        """
        self.path = (folder or FOLDER) / f"perf-tests-{uuid}.lock"
        self._descriptor: int | None = _open(self.path)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = _holder(self._descriptor)
            self.release()
            raise UsageError(
                f"the GPU {uuid} was asked for, but {holder} is measuring on it: "
                "wait until it has ended, or end it"
            ) from error
        _sign(self._descriptor)

    def release(self) -> None:
        """Let others have the GPU. Idempotent.

        The file stays, because removing it would let two processes each hold a lock of that name.
        """
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.release()


def _open(path: Path) -> int:
    flags = os.O_CLOEXEC | os.O_NOFOLLOW
    try:
        # First without O_CREAT: in a sticky folder the kernel refuses it for another user's file.
        with suppress(FileNotFoundError):
            return os.open(path, os.O_RDWR | flags)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | flags, 0o666)
        os.fchmod(descriptor, 0o666)  # despite the umask: other users must be able to open and sign it
    except OSError as error:
        raise UsageError(
            f"cannot open the lock {path}, which keeps two suites off one GPU: {error.strerror}; "
            "make the folder writable, or remove the file if nobody is measuring"
        ) from error
    return descriptor


def _sign(descriptor: int) -> None:
    now = datetime.now(UTC).isoformat(timespec="seconds")
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, f"process {os.getpid()} (since {now})".encode(), 0)


def _holder(descriptor: int) -> str:
    return os.pread(descriptor, HOLDER_BYTES, 0).decode(errors="replace") or "another process"
