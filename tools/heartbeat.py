"""Say so where no night has come on record for 48 hours, and of rows that no night judges: an issue for each.

    python tools/heartbeat.py --history DIR --platform ID            prints what would be done
    python tools/heartbeat.py --history DIR --platform ID --write    does it

DIR is what `tools/history.py append` fills; a folder that is not there holds no night. Only nights that count
and measured something are on record. Whose issues, and by which token, is taken from the environment, as
`tools/tell.py` does. Exit code: 0 done, 2 refused. Needs neither torch nor a GPU.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator, Sequence
from datetime import date, timedelta
from pathlib import Path

# The checkout's own package, even where it is not installed: `python tools/x.py` searches only tools/.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from perf_tests.harness.history import files
from perf_tests.harness.history.files import StoredNight
from perf_tests.harness.history.unjudged import NIGHTS, unjudged
from perf_tests.harness.telling import silence
from perf_tests.harness.telling.actions import REOPENED_DAYS, by_fingerprint
from perf_tests.harness.telling.job import HostedJob
from perf_tests.harness.telling.sending import said, send
from perf_tests.protocol.errors import PerfError, RecordError
from perf_tests.tables.platforms import PLATFORM_BY_ID

DONE, REFUSED = 0, 2


def main(argv: Sequence[str] | None = None, job: HostedJob | None = None) -> int:
    """Exit code: 0 done, 2 history cannot be read, or GitHub refuses."""
    options = _parser().parse_args(argv)
    try:
        for line in _beat(options, job or HostedJob(environ=os.environ)):
            print(line, flush=True)
    except PerfError as error:
        print(f"heartbeat: {error}", file=sys.stderr)
        return REFUSED
    return DONE


def _beat(options: argparse.Namespace, job: HostedJob) -> Iterator[str]:
    nights = _last_nights(options.history, options.platform, job.today)
    newest = _day(nights[-1]) if nights else None
    yield f"the last night on record: {newest or 'none'}"
    github = job.github(writes=options.write)
    ours = by_fingerprint(github.issues(job.today - timedelta(days=2 * REOPENED_DAYS)))
    actions = silence.heartbeat(options.platform, newest, job.now(), ours)
    if (found := unjudged(nights)) is not None:
        actions += silence.unjudged(options.platform, found, NIGHTS, job.today, ours)
    if options.write:
        yield from send(actions, github, job.today)
    else:
        yield from map(said, actions)


def _last_nights(history: Path, platform: str, today: date) -> list[StoredNight]:
    """The last nights that count, measured something, and are not dated in days to come; the oldest first,
    each with all of its attempts."""
    found: list[StoredNight] = []
    for path in sorted((history / platform).glob("*.jsonl.gz"), reverse=True):
        stored = files.read(path)
        days = {each.night.night for each in found}
        if len(days) == NIGHTS and stored.night.night not in days:
            break
        if stored.night.counts and any(row.processes for row in stored.rows) and _day(stored) <= today:
            found.append(stored)
    return found[::-1]


def _day(stored: StoredNight) -> date:
    try:
        return date.fromisoformat(stored.night.night)
    except ValueError:
        raise RecordError(f"a night on record is of {stored.night.night!r}, which is no day") from None


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--history", type=Path, required=True, metavar="DIR", help="the nights on record")
    parser.add_argument("--platform", required=True, choices=sorted(PLATFORM_BY_ID), help="whose nights")
    parser.add_argument("--write", action="store_true", help="open, close and reopen the issue")
    return parser


if __name__ == "__main__":
    sys.exit(main())
