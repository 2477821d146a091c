"""Which package moved what is exact: from four run records, one of each stack, measured with --perf-python.

    python tools/attribute.py --good RUN --new-torch RUN --new-torchao RUN --new RUN [--metric NAME]

A line for each metric that one process tells and that differs between new and good; with --metric, for that
one in any case. A stack whose run failed, or built something else, is reported. Times need pairs, which
`pytest --perf-stacks` measures.
Exit code: 0 done, 2 refused. Needs neither torch nor a GPU.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

# The checkout's own package, even where it is not installed: `python tools/x.py` searches only tools/.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from perf_tests.harness.attribution.from_records import RecordedBench, attributions
from perf_tests.harness.rebaseline.candidates import CASES
from perf_tests.harness.records.attributions import Attribution, Corner
from perf_tests.harness.runs.record_file import read_record
from perf_tests.protocol.errors import PerfError, UsageError
from perf_tests.tables.metrics.rows import METRIC_BY_NAME

DONE, REFUSED = 0, 2


def main(argv: Sequence[str] | None = None) -> int:
    """Exit code: 0 done, 2 refused."""
    options = _parser().parse_args(argv)
    try:
        if options.metric is not None and options.metric not in METRIC_BY_NAME:
            raise UsageError(f"--metric {options.metric}: there is no such metric")
        records = {corner: read_record(getattr(options, corner.value)) for corner in Corner}
        cases = {name: known.case for name, known in CASES.items()}
        unknown = next((run.id for run in records[Corner.NEW].cases if run.id not in cases), None)
        if unknown is not None:
            raise UsageError(f"{options.new}: the matrix has no case {unknown}")
        for found in attributions(RecordedBench(records=records), cases, options.metric):
            print(_said(found))
    except PerfError as error:
        print(f"attribute: {error}", file=sys.stderr)
        return REFUSED
    return DONE


def _said(found: Attribution) -> str:
    cells = ", ".join(
        f"{cell.corner} {cell.status if cell.value is None else f'{cell.value:g}'}" for cell in found.cells
    )
    return f"{found.case} {found.metric}: {found.sentence} ({cells})"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    for corner in Corner:
        flag = f"--{corner.value.replace('_', '-')}"
        parser.add_argument(
            flag, type=Path, required=True, metavar="RUN", help="a run.json, or its directory"
        )
    parser.add_argument("--metric", metavar="NAME", help="this one alone, whether it moved or not")
    return parser


if __name__ == "__main__":
    sys.exit(main())
