"""Whether processes have ended."""

from __future__ import annotations

import time
from pathlib import Path


def is_gone(pid: int) -> bool:
    """A zombie whose new parent does not wait for it is gone as well."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):  # it may go between two system calls
        return True


def is_gone_within_5_s(pid: int) -> bool:
    """What is killed is gone a little later."""
    deadline = time.monotonic() + 5.0
    while not is_gone(pid) and time.monotonic() < deadline:
        time.sleep(0.02)
    return is_gone(pid)
