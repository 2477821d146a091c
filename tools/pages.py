"""Nights as a static site: a page each, and an index, the newest first. Publishes nothing by itself.

    python tools/pages.py NIGHTS --out DIR      NIGHTS holds a run directory, or an unpacked artifact, a night

Pages are written anew from run.json and the pictures beside it. A night that cannot be read is listed in the
index. Exit code: 0 written, 2 refused. Needs neither torch nor a GPU.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

# The checkout's own package, even where it is not installed: `python tools/x.py` searches only tools/.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from perf_tests.harness.publishing import site
from perf_tests.protocol.errors import PerfError

WRITTEN, REFUSED = 0, 2


def main(argv: Sequence[str] | None = None) -> int:
    """Exit code: 0 written, 2 refused."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument(
        "nights", type=Path, metavar="NIGHTS", help="a folder of folders with a run.json each"
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="a new folder, for the site")
    parser.add_argument(
        "--baselines", type=Path, default=Path("baselines"), metavar="DIR", help="default: baselines"
    )
    options = parser.parse_args(argv)
    try:
        written = site.write(options.nights, options.out, options.baselines)
    except PerfError as error:
        print(f"pages: {error}", file=sys.stderr)
        return REFUSED
    print("\n".join((*site.described(written), str(options.out / site.INDEX))))
    return WRITTEN


if __name__ == "__main__":
    sys.exit(main())
