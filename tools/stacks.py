"""The four stacks of an attribution: torch and torchao, each as it last was good and as it is new.

    python tools/stacks.py build FOLDER --pins requirements/h100.txt --new-torch VERSION --new-torchao VERSION
    python tools/stacks.py prune FOLDER

Builds four environments with uv, which differ in torch (with what its wheel pins) and torchao only, and
writes FOLDER/stacks.json for `pytest --perf-stacks`. What is built already is kept; a stack that does not
resolve, install or import is named in that file with the reason, and the others stay. A torchao is a release,
or @COMMIT of --torchao-clone. Indexes, credentials and certificates are uv's own settings (UV_INDEX, ...).
Exit code: 0 done, 1 a mixed stack is missing, 2 refused, or without a good or a new stack. Needs uv, no GPU.
"""

from __future__ import annotations

import sys
from pathlib import Path

# The checkout's own package, even where it is not installed: `python tools/x.py` searches only tools/.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from perf_tests.harness.environments.cli import main

if __name__ == "__main__":
    sys.exit(main(description=__doc__))
