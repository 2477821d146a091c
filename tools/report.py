"""A run as one page to look at: report.html, which needs no other file, no network and no script.

    python tools/report.py RUN [--history DIR] [--out FILE]
    python tools/report.py RUN --csv | --markdown        one line a metric; what is red, for a pull request
    python tools/report.py --json-schema                 of run.json

A session writes the page at its end; this writes it again, also for a run that was killed, from another
machine, or merged. Exit code: 0 written, 2 refused. Needs neither torch nor a GPU.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

# The checkout's own package, even where it is not installed: `python tools/x.py` searches only tools/.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from perf_tests.harness.page import export, report_file, sources
from perf_tests.harness.runs.directory import PAGE
from perf_tests.harness.runs.record_file import read_record
from perf_tests.protocol.errors import PerfError

WRITTEN, REFUSED = 0, 2


def main(argv: Sequence[str] | None = None) -> int:
    """Exit code: 0 written, 2 refused."""
    options = _parse(argv)
    try:
        print(_written(options), end="")
    except PerfError as exc:
        print(f"report: {exc}", file=sys.stderr)
        return REFUSED
    return WRITTEN


def _written(options: argparse.Namespace) -> str:
    """What is printed."""
    if options.json_schema:
        return export.schema()
    record = read_record(options.run)
    folder = options.run if options.run.is_dir() else options.run.parent
    if options.export is not None:
        text: str = options.export(sources.read(folder, record, options.baselines, options.history))
        return text
    path = options.out or folder / PAGE
    report_file.write(folder, record, options.baselines, path, options.history)
    return f"{path}\n"


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = _parser()
    options = parser.parse_args(argv)
    if options.run is None and not options.json_schema:
        parser.error("give a RUN; only --json-schema needs none")
    if options.out is not None and (options.json_schema or options.export is not None):
        parser.error("--out is the file of the page; what else is asked for is printed")
    return options


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument(
        "run", type=Path, nargs="?", metavar="RUN", help="run.json, or the folder that contains it"
    )
    parser.add_argument("--out", type=Path, metavar="FILE", help="default: report.html in the folder of RUN")
    parser.add_argument(
        "--history",
        type=Path,
        metavar="DIR",
        help="earlier runs, however deep in DIR, or nights of tools/history.py: trends, since when it is red",
    )
    parser.add_argument(
        "--baselines", type=Path, default=Path("baselines"), metavar="DIR", help="default: baselines"
    )
    printed = parser.add_mutually_exclusive_group()
    for name, write, said in (
        ("--csv", export.as_csv, "print one line for each metric of each case"),
        ("--markdown", export.as_markdown, "print what is red, for the text of a pull request"),
    ):
        printed.add_argument(name, dest="export", action="store_const", const=write, help=said)
    printed.add_argument("--json-schema", action="store_true", help="print the JSON schema of run.json")
    return parser


if __name__ == "__main__":
    sys.exit(main())
