"""Tell people of a night: one issue a cause, from the findings of a run and the issues that there are.

    python tools/tell.py FINDINGS            prints what would be done; changes nothing
    python tools/tell.py FINDINGS --write    does it

The issues are those with the label perf-nightly of the repository GITHUB_REPOSITORY, asked of GITHUB_API_URL
with the token GITHUB_TOKEN, as a job of GitHub's sets them. --issues FILE names a file with them instead:
`gh api --paginate '/repos/OWNER/NAME/issues?labels=perf-nightly&state=all'`. Exit code: 0 told, 2 the
findings cannot be trusted, or GitHub refuses; what was told before a refusal stands, and the same command
tells the rest. Needs neither torch nor a GPU.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator, Sequence
from datetime import date, timedelta
from pathlib import Path

import msgspec

# The checkout's own package, even where it is not installed: `python tools/x.py` searches only tools/.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from perf_tests.harness.telling.actions import REOPENED_DAYS
from perf_tests.harness.telling.issues import ApiIssue
from perf_tests.harness.telling.job import HostedJob
from perf_tests.harness.telling.plan import plan
from perf_tests.harness.telling.sending import said, send
from perf_tests.protocol.errors import PerfError, UsageError

DONE, REFUSED = 0, 2


def main(argv: Sequence[str] | None = None, job: HostedJob | None = None) -> int:
    """Exit code: 0 told, 2 nothing may be told, or not all of it could be."""
    options = _parser().parse_args(argv)
    try:
        for line in _told(options, job or HostedJob(environ=os.environ)):
            print(line, flush=True)
    except PerfError as error:
        print(f"tell: {error}", file=sys.stderr)
        return REFUSED
    return DONE


def _told(options: argparse.Namespace, job: HostedJob) -> Iterator[str]:
    night = job.night(options.findings, tuple(options.control), options.platform)
    if options.write:
        job.check_is_own(night)
    github = None if options.issues else job.github(writes=options.write)
    day = date.fromisoformat(night.findings.night)
    known = github.issues(day - timedelta(days=2 * REOPENED_DAYS)) if github else _issues(options.issues)
    actions = plan(night, known)
    if not night.findings.counts:
        yield "a fire drill: it is told to nobody"
    elif not actions:
        yield "nothing to tell"
    elif options.write and github:
        yield from send(actions, github, day)
    else:
        yield "\n\n".join(map(said, actions))


def _issues(path: Path) -> list[ApiIssue]:
    try:
        return msgspec.json.decode(path.read_bytes(), type=list[ApiIssue])
    except (OSError, msgspec.DecodeError) as error:
        raise UsageError(f"--issues {path}: {error}; it holds issues as GitHub's API lists them") from None


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("findings", type=Path, metavar="FINDINGS", help="findings.json of a run")
    parser.add_argument(
        "--control",
        type=Path,
        action="append",
        default=[],
        metavar="FILE",
        help="findings.json of bf16 rows measured on the same machine with the stack of the baselines",
    )
    parser.add_argument(
        "--platform",
        metavar="ID",
        help="whose night it should be: without FINDINGS, an issue says that it did not measure",
    )
    how = parser.add_mutually_exclusive_group()
    how.add_argument(
        "--issues", type=Path, metavar="FILE", help="the issues that there are; none is asked for"
    )
    how.add_argument("--write", action="store_true", help="open, update, close and reopen the issues")
    return parser


if __name__ == "__main__":
    sys.exit(main())
