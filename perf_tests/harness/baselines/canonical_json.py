"""The JSON of baseline files: how it is written, and what any reader must refuse."""

from __future__ import annotations

import json
from collections import Counter
from contextlib import suppress
from pathlib import Path

import msgspec

from perf_tests.protocol.errors import BaselineError


def indented(value: object, indent: str) -> str:
    """Canonical JSON of a value: keys sorted, one a line, and everything else on the line of its key."""
    if not isinstance(value, dict) or not value:
        return json.dumps(value, ensure_ascii=False, allow_nan=False)
    deeper = indent + "  "
    lines = (f"{deeper}{json.dumps(key)}: {indented(value[key], deeper)}" for key in sorted(value))
    return "{\n" + ",\n".join(lines) + f"\n{indent}}}"


def require_unique_keys(text: str, path: Path) -> None:
    """Raise BaselineError where an object names a key twice: readers differ in which of the values counts.

    Text that is not JSON is left to the reader that follows.
    """
    doubled: list[str] = []

    def note(pairs: list[tuple[str, object]]) -> None:
        names = [name for name, _ in pairs]
        if len(set(names)) < len(names):
            doubled.extend(name for name, count in Counter(names).items() if count > 1)

    with suppress(ValueError, RecursionError):
        json.loads(text, object_pairs_hook=note)
    if doubled:
        raise BaselineError(f"the baseline file {path} is broken: it names the key {doubled[0]!r} twice")


class _Format(msgspec.Struct):
    # Read on its own, so that the error for another format names it, not the first field that differs.
    format_version: int


def require_format(text: str, path: Path, version: int) -> None:
    """Raise BaselineError where `text`, the content of `path`, is not of the format `version`."""
    try:
        found = msgspec.json.decode(text, type=_Format).format_version
    except msgspec.ValidationError as exc:
        raise BaselineError(f"the baseline file {path} does not hold baselines: {exc}") from exc
    except msgspec.DecodeError as exc:
        raise BaselineError(f"the baseline file {path} is not JSON: {exc}") from exc
    if found != version:
        raise BaselineError(
            f"the baseline file {path} has format {found}, and this checkout reads only {version}: "
            "use the checkout that wrote it, or record its cases again"
        )
