"""The command line of `tools/bisect.py`."""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from perf_tests.harness.bisecting import search, state
from perf_tests.harness.bisecting.running import Bisection, Candidates
from perf_tests.harness.bisecting.search import BisectAnswer, BisectQuestion
from perf_tests.harness.bisecting.state import BisectState
from perf_tests.harness.bisecting.versions import Commits, Releases
from perf_tests.protocol.errors import PerfError, UsageError

ANSWERED, NOT_YET, REFUSED = 0, 1, 2


def main(argv: Sequence[str] | None = None, description: str | None = None) -> int:
    """Exit code: 0 answered, 1 the budget is spent, 2 refused. `description` is what `--help` begins with."""
    options = _parser(description).parse_args(argv)
    try:
        candidates, items = options.versions_of(options)
        question = BisectQuestion(
            items=items,
            probe="\n".join(filter(None, (options.build, options.probe))),
            step=options.step,
            bad_value=options.bad_value,
        )
        bisection = Bisection(
            candidates=candidates,
            path=options.state,
            budget_s=math.inf if options.budget_min is None else options.budget_min * 60,
            say=lambda line: print(line, flush=True),
        )
        found = bisection.run(state.resume(options.state, question))
    except PerfError as error:
        print(f"bisect: {error}", file=sys.stderr)
        return REFUSED
    print("\n".join(_said(found, options.compare_url)))
    return NOT_YET if search.next_item(found.question, found.points) is not None else ANSWERED


def _commits(options: argparse.Namespace) -> tuple[Candidates, tuple[str, ...]]:
    folder = options.state.with_suffix(".trees")
    clone = Commits(clone=options.clone, folder=folder, build=options.build, probe=options.probe)
    return clone, clone.between(options.good, options.bad)


def _releases(options: argparse.Namespace) -> tuple[Candidates, tuple[str, ...]]:
    items = tuple(each.strip() for each in options.versions.split(",") if each.strip())
    if len(set(items)) < max(2, len(items)):
        raise UsageError(
            f"--versions {options.versions}: give two or more different ones, the good end first"
        )
    releases = Releases(
        package=options.package,
        folder=options.state.with_suffix(".environments"),
        pins=options.pins and options.pins.absolute(),
        arguments=tuple(options.uv),
        probe=options.probe,
    )
    return releases, items


def _said(found: BisectState, compare_url: str) -> Iterator[str]:
    question, points = found.question, found.points
    good, bad = question.items[0], question.items[-1]
    if not {good, bad} <= points.keys():
        return
    match search.answer(question, points):
        case BisectAnswer.NO_GOOD_END:
            yield f"no good end: {good} {_as(found, good)}"
        case BisectAnswer.NOT_REPRODUCED:
            yield f"does not reproduce: {bad} {_as(found, bad)}, {good} {_as(found, good)}"
        case BisectAnswer.STEPS:
            for each in search.brackets(question, points):
                skipped = f"; skipped between them: {', '.join(each.skipped)}" if each.skipped else ""
                link = f" {compare_url.format(before=each.before, after=each.after)}" if compare_url else ""
                yield f"{each.before} -> {each.after}: {each.change:+g}{skipped}{link}"


def _as(found: BisectState, item: str) -> str:
    point = found.points[item]
    return f"cannot be measured: {point.reason}" if point.value is None else f"is {point.value:g}"


def _compare_url(url: str) -> str:
    try:
        url.format(before="", after="")
    except (LookupError, ValueError, AttributeError):
        raise argparse.ArgumentTypeError(f"{url!r}: use no fields but {{before}} and {{after}}") from None
    return url


def _parser(description: str | None) -> argparse.ArgumentParser:
    everywhere = argparse.ArgumentParser(add_help=False)
    everywhere.add_argument("--probe", required=True, metavar="COMMAND", help="prints the value of a version")
    everywhere.add_argument(
        "--step", type=float, metavar="VALUE", help="least change that matters (default: a quarter of all)"
    )
    everywhere.add_argument("--bad-value", type=float, metavar="VALUE", help="what the bad end is known for")
    everywhere.add_argument(
        "--budget-min", type=float, metavar="MINUTES", help="of measuring; run it again to go on"
    )
    everywhere.add_argument(
        "--state", type=Path, default=Path("bisect.json"), metavar="FILE", help="default: %(default)s"
    )
    everywhere.add_argument(
        "--compare-url",
        type=_compare_url,
        default="",
        metavar="URL",
        help="with {before} and {after}, printed of each step",
    )
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    kinds = parser.add_subparsers(required=True, metavar="{commits,releases}")
    commits = kinds.add_parser("commits", help="of a local clone, first parents only", parents=[everywhere])
    commits.add_argument("clone", type=Path, metavar="CLONE")
    for end in ("good", "bad"):
        commits.add_argument(f"--{end}", required=True, metavar="COMMIT", help=f"the {end} end")
    commits.add_argument("--build", default="", metavar="COMMAND", help="builds the work tree it is run in")
    commits.set_defaults(versions_of=_commits)
    releases = kinds.add_parser("releases", help="of a package, installed by uv", parents=[everywhere])
    releases.add_argument("package", metavar="PACKAGE")
    releases.add_argument("--versions", required=True, metavar="A,B,...", help="in order, the good end first")
    releases.add_argument("--pins", type=Path, metavar="FILE", help="requirements that all of them share")
    releases.add_argument("uv", nargs="*", metavar="UV ARGUMENTS", help="after --, for uv pip install")
    releases.set_defaults(versions_of=_releases, build="")
    return parser
