"""Tell people of a night: one issue a cause, from the findings of a run and the issues that there are.

    python tools/tell.py FINDINGS --issues FILE     prints what would be done; changes nothing

FILE holds the issues with the label perf-nightly as GitHub's API lists them, open and closed:
`gh api --paginate '/repos/OWNER/NAME/issues?labels=perf-nightly&state=all'`. Exit code: 0 planned, 2 the
findings cannot be trusted, and nothing may be told. Needs neither torch nor a GPU.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import msgspec

# The checkout's own package, even where it is not installed: `python tools/x.py` searches only tools/.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from perf_tests.harness.telling import findings
from perf_tests.harness.telling.actions import Action, plan
from perf_tests.harness.telling.issues import ApiIssue
from perf_tests.protocol.errors import PerfError, UsageError

DONE, REFUSED = 0, 2


def main(argv: Sequence[str] | None = None) -> int:
    """Exit code: 0 planned, 2 nothing may be told."""
    options = _parser().parse_args(argv)
    try:
        actions = plan(findings.read(options.findings), _issues(options.issues))
    except PerfError as error:
        print(f"tell: {error}", file=sys.stderr)
        return REFUSED
    if options.json:
        print(msgspec.json.format(msgspec.json.encode(actions), indent=1).decode())
    else:
        print("\n\n".join(map(_said, actions)) or "nothing to tell")
    return DONE


def _issues(path: Path) -> list[ApiIssue]:
    try:
        return msgspec.json.decode(path.read_bytes(), type=list[ApiIssue])
    except (OSError, msgspec.DecodeError) as error:
        raise UsageError(f"--issues {path}: {error}; it holds issues as GitHub's API lists them") from None


def _said(action: Action) -> str:
    which = f"#{action.number}" if action.number else f'"{action.title}"'
    return "\n".join(filter(None, (f"{action.kind} {which}", action.text)))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("findings", type=Path, metavar="FINDINGS", help="findings.json of a run")
    parser.add_argument(
        "--issues", type=Path, required=True, metavar="FILE", help="the issues that there are"
    )
    parser.add_argument("--dry-run", action="store_true", help="print what would be done: all that it does")
    parser.add_argument("--json", action="store_true", help="print the actions as JSON, for what sends them")
    return parser


if __name__ == "__main__":
    sys.exit(main())
