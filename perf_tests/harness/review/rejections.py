"""What was rejected in a review, so that a later one does not ask again: `review.json` beside the run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import msgspec

from perf_tests.harness.review.items import ReviewItem
from perf_tests.protocol.base import Struct
from perf_tests.protocol.errors import PerfError
from perf_tests.protocol.files import read_regular, replace_atomically

REVIEW = "review.json"


class Rejections(Struct):
    """The content of the file."""

    rejected: dict[str, tuple[str, ...]]
    """Case id -> the digests of the records whose numbers were rejected."""


def read(folder: Path) -> Mapping[str, tuple[str, ...]]:
    """What was rejected of the run in `folder`. Raises PerfError for a file that cannot be read."""
    path = folder / REVIEW
    try:
        return msgspec.json.decode(read_regular(path), type=Rejections).rejected
    except FileNotFoundError:
        return {}
    except (OSError, msgspec.DecodeError) as error:
        raise PerfError(f"cannot read what was rejected before, {path}: {error}; remove it") from error


def add(folder: Path, item: ReviewItem) -> None:
    """Keep in mind that `item` was rejected. Raises PerfError where the disk refuses."""
    path = folder / REVIEW
    content = Rejections(rejected={**read(folder), item.case: item.fingerprint})
    try:
        replace_atomically(path, msgspec.json.format(msgspec.json.encode(content), indent=1) + b"\n")
    except OSError as error:
        raise PerfError(
            f"cannot write {path}: {error.strerror}; what was accepted is kept, what was rejected will be "
            "asked again"
        ) from error
