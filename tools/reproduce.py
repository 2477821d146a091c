"""The denoise steps of a case as a script for those who know nothing of this suite.

    python tools/reproduce.py RUN CASE [--out FILE]     exit 0 written, 2 refused

The script needs neither pytest nor this package: random weights, the config of torchao as code, what is
compiled, and milliseconds per step; with `--profile` also what a step consists of. A session writes it for
each red time that was confirmed, as `repro/CASE.py` of its run directory. Needs neither torch nor a GPU.
"""

from __future__ import annotations

import argparse
import difflib
import sys
from collections.abc import Sequence
from pathlib import Path

# The checkout's own package, even where it is not installed: `python tools/x.py` searches only tools/.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from perf_tests.harness.rebaseline.candidates import CASES
from perf_tests.harness.reproducing import measured
from perf_tests.harness.runs.record_file import read_record
from perf_tests.protocol.errors import PerfError, UsageError

WRITTEN, REFUSED = 0, 2


def main(argv: Sequence[str] | None = None) -> int:
    """Exit code: 0 written, 2 refused."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("run", type=Path, metavar="RUN", help="a run.json, or its directory")
    parser.add_argument("case", metavar="CASE", help="id of a case that it has measured")
    parser.add_argument("--out", type=Path, metavar="FILE", help="default: CASE.py in the current directory")
    options = parser.parse_args(argv)
    path = options.out or Path(f"{options.case}.py")
    try:
        _write(options.run, options.case, path)
    except PerfError as error:
        print(f"reproduce: {error}", file=sys.stderr)
        return REFUSED
    print(path)
    return WRITTEN


def _write(folder: Path, case_id: str, path: Path) -> None:
    record = read_record(folder)
    runs = {run.id: run for run in (*record.references, *record.cases)}
    if case_id not in runs:
        near = ", ".join(difflib.get_close_matches(case_id, runs, n=3)) or "none is near"
        raise UsageError(f"{folder} has no case {case_id} among its {len(runs)}; nearest: {near}")
    if case_id not in CASES:
        raise UsageError(
            f"{case_id} is in the record, and no longer in the matrix: use the commit of the run"
        )
    measured.write(CASES[case_id].case, runs[case_id], path)


if __name__ == "__main__":
    sys.exit(main())
