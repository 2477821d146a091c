"""Which state of this suite measures: the commit that is checked out, and whether anything was changed."""

from __future__ import annotations

import hashlib
import os
import subprocess
from functools import cache
from pathlib import Path

GIT_TIMEOUT_S = 20.0


@cache
def commit(root: Path) -> str | None:
    """The 40 hex digits of the commit checked out in `root`, as they were at the first call.

    Changes that git tracks are told by a digest of them, `+` and 12 hex digits. None where `root` is no
    checkout, or git does not answer.
    """
    try:
        head = _git(root, "rev-parse", "HEAD").decode().strip()
        changes = _git(root, "diff", "HEAD", "--binary", "--no-ext-diff", "--no-textconv")
    except (OSError, subprocess.SubprocessError):
        return None
    return f"{head}+{hashlib.sha256(changes).hexdigest()[:12]}" if changes else head


def _git(root: Path, *arguments: str) -> bytes:
    return subprocess.run(
        ("git", "-C", str(root), *arguments),
        env={**os.environ, "GIT_OPTIONAL_LOCKS": "0"},  # it only reads, maybe next to others
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=GIT_TIMEOUT_S,
        check=True,
    ).stdout
