"""Which state of this suite measures: the commit that is checked out, and whether anything was changed."""

from __future__ import annotations

import hashlib
import os
import subprocess
from functools import cache
from pathlib import Path

GIT_TIMEOUT_S = 20.0
THEN = ", then "
"""Between the commits of a session and of one that resumes it."""


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


def commits(before: str | None, root: Path) -> str | None:
    """`commit(root)`, after the commits `before` of the session that is resumed, unless it is their last.

    `before` is None where no session is resumed, or it does not say.
    """
    now = commit(root)
    if now is None or before is None:
        return now
    return before if before.split(THEN)[-1] == now else f"{before}{THEN}{now}"


def _git(root: Path, *arguments: str) -> bytes:
    return subprocess.run(
        ("git", "-C", str(root), *arguments),
        env={**os.environ, "GIT_OPTIONAL_LOCKS": "0"},  # it only reads, maybe next to others
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=GIT_TIMEOUT_S,
        check=True,
    ).stdout
