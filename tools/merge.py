"""Join the runs of all shards of one selection (--perf-shard=1/n to n/n) into one, which every tool takes.

    python tools/merge.py RUN... --out DIR      exit 0 green, 1 red, 2 refused

Verdicts stay as the shards gave them. The summary of the whole is printed, and added to the page of the job
where GitHub runs it. Needs neither torch nor a GPU.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

# The checkout's own package, even where it is not installed: `python tools/x.py` searches only tools/.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from perf_tests.harness.compare import merge, merged_directory
from perf_tests.harness.page import report_file
from perf_tests.harness.plugin import options, summary
from perf_tests.harness.plugin.session import PerfSession
from perf_tests.harness.runs.directory import PAGE
from perf_tests.harness.runs.record import RunRecord
from perf_tests.harness.telling import night as findings
from perf_tests.protocol.errors import PerfError, UsageError

GREEN, RED, REFUSED = 0, 1, 2
LOG_WIDTH = 120


def main(argv: Sequence[str] | None = None) -> int:
    """Exit code: 0 all parts are green and nothing is missing, 1 red, 2 refused."""
    arguments = _parser().parse_args(argv)
    try:
        if not arguments.baselines.is_dir():
            raise UsageError(
                f"--baselines {arguments.baselines}: there is no such folder; give the one that the parts "
                "were judged by"
            )
        chosen = options.of_record(arguments.out, arguments.baselines)
        shards = merged_directory.read(arguments.runs)
        merge.check(shards)
        record = merge.merged(shards)
        session = summary.past_session(record, chosen)
        merged_directory.write(record, shards, arguments.out)
        findings.write(arguments.out, record, session.baselines.recorded_at(session.selection))
        session.without_page = report_file.problem_of_writing(
            arguments.out, record, arguments.baselines, arguments.out / PAGE
        )
        return report(session, record)
    except PerfError as exc:
        print(f"merge: {exc}", file=sys.stderr)
        return REFUSED


def report(session: PerfSession, record: RunRecord) -> int:
    """Print the summary that a session of the whole selection ends with, and return the exit code."""
    is_told = "COLUMNS" in os.environ or sys.stdout.isatty()
    width = shutil.get_terminal_size().columns if is_told else LOG_WIDTH
    brief = summary.brief(session, record, session.selection, width)
    if record.missing:
        missing = ["planned, but no verdict was given", *summary.missing(record.missing, width)]
        brief = dataclasses.replace(brief, causes=[*brief.causes, missing])
    summary.write_page(brief)
    print("\n".join(brief.as_lines()))
    print(summary.where(session))
    return GREEN if session.judging.is_all_green(record) and not record.missing else RED


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument(
        "runs", type=Path, nargs="+", metavar="RUN", help="the directories of all parts (--perf-out)"
    )
    parser.add_argument(
        "--out", type=Path, required=True, metavar="DIR", help="the directory of the whole, made by this tool"
    )
    parser.add_argument(
        "--baselines",
        type=Path,
        default=Path("baselines"),
        metavar="DIR",
        help="what the parts were judged by (default: baselines)",
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
