"""List the defects of the stack that are watched, and warn of those that nobody has looked at in time.

    python tools/known_issues.py            exit 0: what a pull request is checked with
    python tools/known_issues.py --strict   exit 1 where a row has expired: what a night does

Whether they still exist is what `perf_tests/test_known_issues.py` finds out. Needs neither torch nor a GPU.
"""

from __future__ import annotations

import argparse
import datetime
import os
import sys
from collections.abc import Sequence
from pathlib import Path

# The checkout's own package, even where it is not installed: `python tools/x.py` searches only tools/.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from perf_tests.harness.plugin.known_issues import expired
from perf_tests.tables.known_issues import KNOWN_ISSUES, KnownIssue

IN_TIME, EXPIRED = 0, 1


def main(argv: Sequence[str] | None = None, today: datetime.date | None = None) -> int:
    """Exit code: 1 where a row has expired and `--strict` is given, else 0."""
    strict = _parse(argv).strict
    late = expired(KNOWN_ISSUES, today or datetime.date.today())
    for issue in KNOWN_ISSUES:
        print(_line(issue))
    for issue in late:
        # Hosted runners show lines of this form at the top of a job.
        level = "error" if strict else "warning"
        mark = f"::{level}::" if os.environ.get("GITHUB_ACTIONS") == "true" else f"{level}: "
        print(f"{mark}{_overdue(issue)}")
    return EXPIRED if strict and late else IN_TIME


def _line(issue: KnownIssue) -> str:
    platforms = ", ".join(platform.id for platform in issue.platforms)
    return f"{issue.id} on {platforms}, until {issue.expires}: {issue.link}"


def _overdue(issue: KnownIssue) -> str:
    return (
        f"{issue.id}: nobody has looked again since it expired on {issue.expires}. Owner: {issue.owner}. "
        f"Run {issue.script} and read {issue.link}, then move `expires` in perf_tests/tables/known_issues.py"
    )


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--strict", action="store_true", help="an expired row is an error")
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(main())
