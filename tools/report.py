"""A run as one page to look at: report.html, which needs no other file, no network and no script.

    python tools/report.py RUN [--history DIR] [--out FILE]      exit 0 written, 2 refused

A session writes it at its end; this writes it again, also for a run that was killed, from another machine, or
merged. Needs neither torch nor a GPU.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

# The checkout's own package, even where it is not installed: `python tools/x.py` searches only tools/.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from perf_tests.harness.page import report_file
from perf_tests.harness.runs.directory import PAGE
from perf_tests.harness.runs.record_file import read_record
from perf_tests.protocol.errors import PerfError

WRITTEN, REFUSED = 0, 2


def main(argv: Sequence[str] | None = None) -> int:
    """Exit code: 0 written, 2 refused."""
    options = _parser().parse_args(argv)
    folder = options.run if options.run.is_dir() else options.run.parent
    try:
        path = options.out or folder / PAGE
        report_file.write(folder, read_record(options.run), options.baselines, path, options.history)
    except PerfError as exc:
        print(f"report: {exc}", file=sys.stderr)
        return REFUSED
    print(path)
    return WRITTEN


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("run", type=Path, metavar="RUN", help="run.json, or the folder that contains it")
    parser.add_argument("--out", type=Path, metavar="FILE", help="default: report.html in the folder of RUN")
    parser.add_argument(
        "--history",
        type=Path,
        metavar="DIR",
        help="earlier runs, each a run.json however deep in DIR: trends, and since when something is red",
    )
    parser.add_argument(
        "--baselines", type=Path, default=Path("baselines"), metavar="DIR", help="default: baselines"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
