"""An exclusive lock that is a file, which the kernel releases however its holder dies."""

from __future__ import annotations

import fcntl
import os
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Self

HOLDER_BYTES = 200


class HeldError(Exception):
    """Another process holds the lock; `holder` names it."""

    def __init__(self, holder: str) -> None:
        super().__init__(f"{holder} holds the lock")
        self.holder = holder


class FileLock:
    """Held from construction until `release`. Child processes do not inherit it."""

    def __init__(self, path: Path, *, wait: bool = False, of_all_users: bool = False) -> None:
        """Lock the file `path`, which is made where it does not exist; a link is not followed.

        `of_all_users` lets other users hold the lock, too. Raises HeldError where another process holds it,
        or waits for that process with `wait`, and OSError where the file cannot be opened or locked.
        """
        self.path = path
        self._descriptor: int | None = None
        try:
            while not self._is_held():
                self.release()
                self._descriptor = _open(path, 0o666 if of_all_users else 0o644)
                self._lock(wait)
            self._sign()
        except BaseException:  # else nobody could release it: a full disk, or Ctrl-C
            self.release()
            raise

    @property
    def descriptor(self) -> int:
        """For a child that is to hold the lock as well, until both have ended."""
        assert self._descriptor is not None, "it is locked"
        return self._descriptor

    def release(self) -> None:
        """Let others have the lock. Idempotent.

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

    def _lock(self, wait: bool) -> None:
        assert self._descriptor is not None, "it was opened just now"
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError as error:
            holder = _holder(self._descriptor)
            self.release()
            raise HeldError(holder) from error

    def _is_held(self) -> bool:
        """Whether it holds the file of that name: its folder may have been renamed before it was locked."""
        if self._descriptor is None:
            return False
        try:
            return os.path.samestat(os.fstat(self._descriptor), self.path.lstat())
        except FileNotFoundError:
            return False

    def _sign(self) -> None:
        assert self._descriptor is not None, "it is locked"
        now = datetime.now(UTC).isoformat(timespec="seconds")
        os.ftruncate(self._descriptor, 0)
        os.pwrite(self._descriptor, f"process {os.getpid()} (since {now})".encode(), 0)


def _open(path: Path, mode: int) -> int:
    flags = os.O_CLOEXEC | os.O_NOFOLLOW
    # First without O_CREAT: in a sticky folder the kernel refuses it for another user's file.
    with suppress(FileNotFoundError):
        return os.open(path, os.O_RDWR | flags)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | flags, mode)
    if mode & 0o002:
        os.fchmod(descriptor, mode)  # despite the umask: other users must be able to open and sign it
    return descriptor


def _holder(descriptor: int) -> str:
    return os.pread(descriptor, HOLDER_BYTES, 0).decode(errors="replace") or "another process"
