"""Copy what of a run is worth uploading, under a limit, into a folder of its own.

    python tools/pack.py RUN --out DIR [--limit-mb 95]     exit 0; 2 where it cannot be copied

The record is always among it; what did not fit is counted, and stays in RUN. Needs neither torch nor a GPU.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

# The checkout's own package, even where it is not installed: `python tools/x.py` searches only tools/.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from perf_tests.harness.retention import parcel
from perf_tests.harness.runs.record import RunRecord
from perf_tests.harness.runs.record_file import read_record
from perf_tests.protocol.errors import PerfError, RecordError

DONE, REFUSED = 0, 2


def main(argv: Sequence[str] | None = None) -> int:
    """Exit code: 0 copied, 2 refused."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("run", type=Path, metavar="RUN", help="the directory of a run")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="a new folder")
    parser.add_argument(
        "--limit-mb",
        type=float,
        default=parcel.LIMIT_MB,
        help="of all files, compressed (default %(default)s)",
    )
    options = parser.parse_args(argv)
    try:
        print(_packed(options.run, options.out, options.limit_mb))
    except PerfError as error:
        print(f"pack: {error}", file=sys.stderr)
        return REFUSED
    return DONE


def _packed(run: Path, out: Path, limit_mb: float) -> str:
    if not run.is_dir():
        raise PerfError(f"{run} is not a directory; give that of a run")
    chosen = parcel.choose(run, _record(run), limit_mb)
    if not chosen.files:
        raise PerfError(f"{run} holds nothing to upload; give the directory of a run")
    parcel.copy(chosen, run, out)
    left_out = f"; {len(chosen.left_out)} did not fit, and are only in {run}" if chosen.left_out else ""
    return f"{len(chosen.files)} files of {run}, {chosen.megabytes:.1f} MB compressed, are in {out}{left_out}"


def _record(run: Path) -> RunRecord | None:
    """The record; None where the session kept none that can be read, which its logs may explain."""
    try:
        return read_record(run)
    except RecordError as error:
        print(f"pack: {error}", file=sys.stderr)
        return None


if __name__ == "__main__":
    sys.exit(main())
