"""Compare a run with the published tables of diffusers-torchao, worst latency ratio first."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

# The checkout's own package, also where it is not installed: `python tools/x.py` looks in tools/ only.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from perf_tests.harness import published
from perf_tests.harness.errors import PerfError
from perf_tests.harness.records import read_record
from perf_tests.harness.report.published import lines

WITHIN, BEYOND, REFUSED = 0, 1, 2


def main(argv: Sequence[str] | None = None) -> int:
    """Exit code: 0 within the limits or explained, 1 unexplained, 2 refused or nothing to compare."""
    options = _parser().parse_args(argv)
    try:
        return against_published(options)
    except PerfError as exc:
        print(f"compare: {exc}", file=sys.stderr)
        return REFUSED


def against_published(options: argparse.Namespace) -> int:
    """Print ours beside theirs."""
    rows = published.read(options.published_dir)
    outcome = published.compare(read_record(options.published), rows)
    print("\n".join(lines(outcome)))
    if not outcome.compared:
        print("compare: nothing was compared: no measured case has a published row", file=sys.stderr)
        return REFUSED
    return BEYOND if outcome.unexplained else WITHIN


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument(
        "--published",
        type=Path,
        required=True,
        metavar="RUN",
        help="run.json, or the folder that holds it",
    )
    parser.add_argument(
        "--published-dir",
        type=Path,
        default=Path("baselines/published"),
        metavar="DIR",
        help="default: baselines/published",
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
