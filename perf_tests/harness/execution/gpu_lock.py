"""One suite on one GPU: a lock file per card, which the kernel frees however its holder dies."""

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
"""Not TMPDIR, which differs between the jobs that are to be kept apart."""
HOLDER_BYTES = 200


class GpuLock:
    """Held from its making to `release`; workers do not inherit it."""

    def __init__(self, uuid: str, folder: Path | None = None) -> None:
        """Lock the GPU `uuid`, in `FOLDER` unless told otherwise.

        Raises UsageError, naming the holder, where another process of whatever user holds it, and where the
        file cannot be made.
        """
        self.path = (folder or FOLDER) / f"perf-tests-{uuid}.lock"
        self._descriptor: int | None = _open(self.path)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = _holder(self._descriptor)
            self.release()
            raise UsageError(
                f"the GPU {uuid} was asked for, and {holder} measures on it: "
                "wait until it has ended, or end it"
            ) from error
        _sign(self._descriptor)

    def release(self) -> None:
        """Let others have the GPU. Idempotent. The file stays: to remove it would let two hold "the" lock."""
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
        # First without creating: in a sticky folder the kernel refuses O_CREAT on a file of another user.
        with suppress(FileNotFoundError):
            return os.open(path, os.O_RDWR | flags)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | flags, 0o666)
        os.fchmod(descriptor, 0o666)  # whatever the umask: other users must open and sign it, too
    except OSError as error:
        raise UsageError(
            f"cannot open the lock {path}, which keeps two suites off one GPU: {error.strerror}; "
            "make the folder writable, or remove the file if nobody measures"
        ) from error
    return descriptor


def _sign(descriptor: int) -> None:
    now = datetime.now(UTC).isoformat(timespec="seconds")
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, f"process {os.getpid()} (since {now})".encode(), 0)


def _holder(descriptor: int) -> str:
    return os.pread(descriptor, HOLDER_BYTES, 0).decode(errors="replace") or "another process"
