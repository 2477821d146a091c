"""A file of evidence, which is kept if it is small enough and there is room for it."""

from __future__ import annotations

from pathlib import Path

from perf_tests.protocol.files import replace_atomically

MB = 1e6


def keep(what: str, packed: bytes, file: Path, limit_mb: float) -> str:
    """Write `packed` to `file`; why it was not kept, empty where it was. `what` names it there."""
    if is_too_large(packed, limit_mb):
        return f"the {what} takes {len(packed) / MB:.1f} MB, and {limit_mb:g} MB are kept"
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        replace_atomically(file, packed)
    except OSError as error:
        return f"the {what} cannot be written: {error.strerror}"
    return ""


def is_too_large(packed: bytes, limit_mb: float) -> bool:
    """Whether it would not be kept."""
    return len(packed) > limit_mb * MB
