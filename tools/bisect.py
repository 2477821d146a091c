"""Which version changed a number: over commits of a clone, or releases or nights of a package.

    python tools/bisect.py commits CLONE --good COMMIT --bad COMMIT [--build COMMAND] MEASURED
    python tools/bisect.py releases PACKAGE --versions 1.0,1.1 [--pins FILE] MEASURED [-- UV ARGUMENTS]
    python tools/bisect.py releases PACKAGE --index PAGE --good 1.0 --bad 1.4 ...
    python tools/bisect.py nights PACKAGE --index PAGE --history DIR --good 2026-11-02 --bad 2026-11-20 ...

MEASURED is --probe COMMAND, whose last line is a number, or JSON such as `{"value": 34.75}` (or another
--key), with "half" (half the 95 % interval) where it is noisy; or --case ID --metric NAME of this suite.
A probe finds VERSION, PYTHON (the version's interpreter) and TREE (of a commit); what fails is skipped.
The search is kept in --state and goes on from there. Exit code: 0 answered, 1 not yet, 2 refused.
"""

import sys

if __name__ == "bisect":
    # `python tools/x.py` searches tools/ before the standard library, parts of which (`random`, `statistics`)
    # import its module of this name. This is what that holds.
    from _bisect import bisect_left as bisect_left
    from _bisect import bisect_right as bisect_right
    from _bisect import insort_left as insort_left
    from _bisect import insort_right as insort_right

    bisect, insort = bisect_right, insort_right
else:
    from pathlib import Path

    # The checkout's own package, even where it is not installed: `python tools/x.py` searches only tools/.
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

    from perf_tests.harness.bisecting.cli import main

    if __name__ == "__main__":
        sys.exit(main(description=__doc__))
