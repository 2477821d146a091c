"""Files that are replaced in one step, so that no reader ever sees half of one, and read without waiting."""

from __future__ import annotations

import errno
import os
from contextlib import suppress
from pathlib import Path

TEMPORARY_SUFFIX = ".tmp"


def read_regular(path: Path) -> bytes:
    """The content of the file `path`.

    Raises OSError where it cannot be read, and for a pipe, a device or a socket, on which reading would wait
    for ever.
    """
    if path.exists() and not (path.is_file() or path.is_dir()):
        raise OSError(errno.EINVAL, "it is a pipe or a device, not a file")
    return path.read_bytes()


def replace_atomically(path: Path, content: bytes) -> None:
    """Write `content` to `path`: whoever reads it, even after a crash, finds the old content or the new.

    Raises OSError where the disk refuses or the folder does not exist; the previous file is then intact, and
    the temporary one next to it is removed if at all possible.
    """
    # The process id, because two processes may write the same file.
    temporary = path.with_name(f"{path.name}.{os.getpid()}{TEMPORARY_SUFFIX}")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        with suppress(OSError):  # the error that led here says more
            temporary.unlink(missing_ok=True)
        raise
