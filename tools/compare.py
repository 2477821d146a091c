"""Compare two runs by the suite's own rules, or one run with the published tables of diffusers-torchao.

    python tools/compare.py BASE.json CANDIDATE.json [--html FILE]
                                                         exit 0 same or better, 1 regressed, 2 cannot tell
    python tools/compare.py --published RUN              exit 0 within the limits, 1 beyond, 2 refused

Neither needs torch or a GPU.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

# The checkout's own package, even where it is not installed: `python tools/x.py` searches only tools/.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from perf_tests.harness.compare import published, published_page, run_pairs
from perf_tests.harness.execution.sampling import MAX_PROCESSES
from perf_tests.harness.page import compared
from perf_tests.harness.rebaseline import candidates, store
from perf_tests.harness.report import terminal
from perf_tests.harness.report.published import lines, page_lines
from perf_tests.harness.runs.record_file import read_record
from perf_tests.protocol.errors import PerfError
from perf_tests.tables.metrics.rows import UNITS
from perf_tests.tables.platforms import PLATFORMS
from perf_tests.tables.published_page import PAGE

WITHIN, BEYOND, REFUSED = 0, 1, 2


def main(argv: Sequence[str] | None = None) -> int:
    """Exit code: 0 good, 1 bad, 2 refused, nothing to compare, or undecided."""
    options = _parse(argv)
    try:
        return against_published(options) if options.published else against_base(options)
    except PerfError as exc:
        print(f"compare: {exc}", file=sys.stderr)
        return REFUSED


def against_base(options: argparse.Namespace) -> int:
    """Print the verdicts on the candidate, with the base as its baseline."""
    base, candidate = options.records
    noise = {platform.id: store.noise_in_force(options.baselines, platform) for platform in PLATFORMS}
    before, now = candidates.read_run(base), candidates.read_run(candidate)
    comparison = run_pairs.compare(before, now.record, noise, options.max_processes)
    print("\n".join((*terminal.table(comparison.runs, UNITS), *run_pairs.explained(comparison))))
    if comparison.noisy_metrics:
        print(terminal.error_rates(comparison.noisy_metrics, comparison.level))
    if not comparison.runs:
        print("compare: nothing was compared: the two runs have no measured case in common", file=sys.stderr)
    if options.html is not None:
        compared.write(before, now, comparison, options.html)
        print(f"page: {options.html}")
    return comparison.code


def against_published(options: argparse.Namespace) -> int:
    """Print our numbers next to those of the published tables, and to the figures beside them."""
    rows = published.read(options.published_dir)
    record = read_record(options.published)
    comparison = published.compare(record, rows)
    page = published_page.compare(record, PAGE)
    print("\n".join((*lines(comparison, every_row=options.every_row), "", *page_lines(page))))
    if not comparison.matches:
        print("compare: nothing was compared: no measured case has a published row", file=sys.stderr)
        return REFUSED
    return BEYOND if comparison.unexplained else WITHIN


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = _parser()
    options = parser.parse_args(argv)
    if options.every_row and not options.published:
        parser.error("--every-row lists published rows: give --published RUN with it")
    if options.html is not None and options.published:
        parser.error("--html is the page about two runs; tools/report.py writes that of one")
    if len(options.records) != (0 if options.published else 2):
        parser.error("give two runs, BASE and CANDIDATE, or one with --published RUN")
    return options


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument(
        "records",
        type=Path,
        nargs="*",
        metavar="RUN",
        help="BASE and CANDIDATE: run.json, or the folder that contains it",
    )
    parser.add_argument(
        "--published", type=Path, metavar="RUN", help="one run, to compare with the published tables"
    )
    parser.add_argument(
        "--html", type=Path, metavar="FILE", help="write the comparison as a page to look at, too"
    )
    parser.add_argument(
        "--every-row",
        action="store_true",
        help="with --published: list the published rows that the run holds no case of, too",
    )
    parser.add_argument(
        "--baselines",
        type=Path,
        default=Path("baselines"),
        metavar="DIR",
        help="where the noise of each platform is read from (default: baselines)",
    )
    parser.add_argument(
        "--max-processes",
        type=int,
        default=MAX_PROCESSES,
        metavar="N",
        help="--perf-max-processes of the candidate's session (default: %(default)s)",
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
