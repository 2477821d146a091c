"""The command line of `tools/bisect.py`."""

from __future__ import annotations

import argparse
import math
import signal
import sys
from collections.abc import Sequence

from perf_tests.harness.bisecting import answers, axes, search, state
from perf_tests.harness.bisecting.answers import FIELDS, CompareUrl
from perf_tests.harness.bisecting.running import Bisection
from perf_tests.harness.bisecting.search import MAX_SKIPS, BisectQuestion
from perf_tests.protocol.errors import PerfError

ANSWERED, NOT_YET, REFUSED = 0, 1, 2


def main(argv: Sequence[str] | None = None, description: str | None = None) -> int:
    """Exit code: 0 answered, 1 the budget is spent or it was stopped, 2 refused.

    `description` is what `--help` begins with.
    """
    own, further = _divided(sys.argv[1:] if argv is None else argv)
    options = _parser(description).parse_args(own, argparse.Namespace(uv=further))
    handler = signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that nothing runs on without us
    try:
        with state.held(options.state):
            return _searched(options)
    except PerfError as error:
        print(f"bisect: {error}", file=sys.stderr)
        return REFUSED
    except KeyboardInterrupt:
        print(f"bisect: stopped; what was measured is in {options.state}: run it again to go on")
        return NOT_YET
    finally:
        signal.signal(signal.SIGTERM, handler)


def _searched(options: argparse.Namespace) -> int:
    url = CompareUrl(template=options.compare_url)
    axis = options.axis(options)
    question = BisectQuestion(
        items=axis.items,
        probe=axis.probe,
        conditions=axis.conditions,
        max_skips=options.max_skips,
        step=options.step,
        bad_value=options.bad_value,
    )
    bisection = Bisection(
        candidates=axis.candidates,
        path=options.state,
        budget_s=math.inf if options.budget_min is None else options.budget_min * 60,
        say=lambda line: print(line, flush=True),
    )
    found = bisection.run(state.resume(options.state, question, retry_skipped=options.retry_skipped))
    print("\n".join(answers.lines(found, url)))
    return NOT_YET if search.next_item(found.question, found.points) is not None else ANSWERED


def _divided(argv: Sequence[str]) -> tuple[Sequence[str], Sequence[str]]:
    """What stands before `--`, and what after it, which argparse gives to no second positional argument."""
    at = argv.index("--") if "--" in argv else len(argv)
    return argv[:at], argv[at + 1 :]


def _number(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise argparse.ArgumentTypeError(f"{text} is no finite number")
    return value


def _at_least_zero(text: str) -> float:
    if (value := _number(text)) < 0:
        raise argparse.ArgumentTypeError(f"{text} is less than 0")
    return value


def _at_least_one(text: str) -> int:
    if (value := int(text)) < 1:
        raise argparse.ArgumentTypeError(f"{text} is less than 1")
    return value


def _measuring() -> argparse.ArgumentParser:
    """What every axis has: how a version is measured, and what of it matters."""
    parser = argparse.ArgumentParser(add_help=False)
    add = parser.add_argument
    how = parser.add_mutually_exclusive_group(required=True)
    how.add_argument("--probe", metavar="COMMAND", help="prints the value of a version as its last line")
    how.add_argument("--case", metavar="ID", help="measure a row of this suite, with --metric")
    add("--metric", metavar="NAME", help="of --case")
    add("--processes", type=_at_least_one, default=1, metavar="N", help="of --case (default: %(default)s)")
    add("--perf-option", action="append", default=[], metavar="OPTION", help="of pytest, for --case")
    add("--key", default="value", metavar="KEY", help="of the value in JSON (default: %(default)s)")
    add(
        "--step",
        type=_at_least_zero,
        metavar="VALUE",
        help="least change that matters (default: a quarter of all)",
    )
    add("--bad-value", type=_number, metavar="VALUE", help="what the bad end is known for")
    add("--budget-min", type=_at_least_zero, metavar="MINUTES", help="of measuring; run it again to go on")
    add(
        "--timeout-min",
        type=_at_least_zero,
        default=60.0,
        metavar="MINUTES",
        help="of one command (default: %(default)g)",
    )
    add(
        "--max-skips",
        type=_at_least_one,
        default=MAX_SKIPS,
        metavar="N",
        help="tried in vain between two measured versions (default: %(default)s)",
    )
    add("--retry-skipped", action="store_true", help="try again what could not be measured")
    add("--state", type=axes.path, default="bisect.json", metavar="FILE", help="default: %(default)s")
    add("--compare-url", default="", metavar="URL", help=f"printed of each step; with {FIELDS}")
    return parser


def _installing() -> argparse.ArgumentParser:
    """What the axes have that uv installs."""
    parser = argparse.ArgumentParser(add_help=False)
    add = parser.add_argument
    add("package", metavar="PACKAGE")
    add(
        "--index",
        metavar="PAGE",
        help="address or file of the page of PACKAGE in a simple index: what there is",
    )
    add("--good", metavar="VERSION", help="the good end, on PAGE")
    add("--bad", metavar="VERSION", help="the bad end, on PAGE")
    add("--local", metavar="TAG", help="of versions on PAGE, such as cu130")
    add("--pins", type=axes.path, metavar="FILE", help="requirements that all of them share")
    return parser


def _parser(description: str | None) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    kinds = parser.add_subparsers(required=True, metavar="{commits,releases,nights}")
    measuring, installing = _measuring(), _installing()
    commits = kinds.add_parser("commits", help="of a local clone, first parents only", parents=[measuring])
    commits.add_argument("clone", type=axes.path, metavar="CLONE")
    for end in ("good", "bad"):
        commits.add_argument(f"--{end}", required=True, metavar="COMMIT", help=f"the {end} end")
    commits.add_argument("--build", default="", metavar="COMMAND", help="builds the work tree it is run in")
    commits.add_argument(
        "--python",
        default=".venv/bin/python",
        metavar="PATH",
        help="that --build made in the tree (default: %(default)s)",
    )
    commits.set_defaults(axis=axes.commits)
    releases = kinds.add_parser(
        "releases", help="of a package, installed by uv", parents=[measuring, installing]
    )
    releases.add_argument(
        "--versions", metavar="A,B,...", help="instead of --index: in order, the good end first"
    )
    releases.set_defaults(axis=axes.releases)
    nights = kinds.add_parser("nights", help="of a package, installed by uv", parents=[measuring, installing])
    nights.add_argument(
        "--history", type=axes.path, metavar="DIR", help="of tools/history.py: nights that PAGE has no more"
    )
    nights.set_defaults(axis=axes.nights)
    return parser
