"""baselines/<platform>/recorded.txt: the cases that have ever been recorded on a platform, one id a line.

A missing baseline is a failure, unless there never was one and `tables/tiers.py` says why. This file tells
the two apart: accepting a run adds to it, and nothing takes from it. Without it, each missing one is one.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from perf_tests.harness.baselines import transaction
from perf_tests.tables.tiers import UNRECORDED

REGISTER = "recorded.txt"
REGISTERED = frozenset(each.platform.id for each in UNRECORDED)
"""Ids of the platforms that need a register, because some of their rows have never been recorded."""


def path_of(root: Path, platform_id: str) -> Path:
    """The register of a platform."""
    return root / platform_id / REGISTER


def read(root: Path, platform_id: str) -> frozenset[str] | None:
    """The cases that have ever been recorded on the platform; None where it has no register.

    Raises BaselineError for a register that cannot be read.
    """
    text = transaction.read(root, path_of(root, platform_id))
    return None if text is None else frozenset(text.split())


def with_entries(root: Path, platform_id: str, case_ids: Iterable[str]) -> str | None:
    """The text of the register once `case_ids` have baselines; None where it stays as it is, and for a
    platform that needs none. Raises BaselineError for a register that cannot be read."""
    if platform_id not in REGISTERED:
        return None
    before = read(root, platform_id)
    after = (before or frozenset()) | frozenset(case_ids)
    return None if after == before else dumps(after)


def dumps(case_ids: Iterable[str]) -> str:
    """The text of a register of `case_ids`."""
    return "".join(f"{case_id}\n" for case_id in sorted(case_ids))
