"""Commands of the real git, for repositories that tests make."""

from __future__ import annotations

import subprocess
from pathlib import Path


def git(folder: Path, *arguments: str) -> str:
    """What git prints when it is run in `folder`, whatever the settings of whoever runs the tests."""
    settings = ("-c", "user.name=a", "-c", "user.email=a@b.c", "-c", "commit.gpgsign=false")
    command = ("git", "-C", str(folder), *settings, *arguments)
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
