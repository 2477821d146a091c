"""Nights on record: add one, show them, follow one metric of a case over them.

    python tools/history.py append RUN --history DIR --run ID    one immutable file a platform
    python tools/history.py show --history DIR                   the nights, and which count
    python tools/history.py series CASE METRIC --history DIR     its numbers, since when it is red, a drift
    python tools/history.py emit RUN --for oss-v3                a line a metric, for PyTorch's database
    python tools/history.py emit RUN --for smaller | bigger      for github-action-benchmark (custom...)

Exit code: 0 done, 2 refused. Needs neither torch nor a GPU.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import msgspec

# The checkout's own package, even where it is not installed: `python tools/x.py` searches only tools/.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from perf_tests.harness.history import files, series
from perf_tests.harness.history.night import night_of
from perf_tests.harness.publishing import github_benchmark, oss_benchmark
from perf_tests.harness.publishing.measurements import emittable
from perf_tests.harness.publishing.oss_benchmark import OssOrigin
from perf_tests.harness.rebaseline.store import noise_in_force
from perf_tests.harness.runs.record_file import read_record
from perf_tests.protocol.errors import PerfError, UsageError
from perf_tests.tables.metrics.spec import Better
from perf_tests.tables.platforms import PLATFORM_BY_ID

OSS_V3 = "oss-v3"
DIRECTIONS = {"smaller": Better.LOWER, "bigger": Better.HIGHER}
DONE, REFUSED = 0, 2


def main(argv: Sequence[str] | None = None) -> int:
    """Exit code: 0 done, 2 refused."""
    options = _parser().parse_args(argv)
    try:
        for line in options.command(options):
            print(line)
    except PerfError as error:
        print(f"history: {error}", file=sys.stderr)
        return REFUSED
    return DONE


def append(options: argparse.Namespace) -> Iterator[str]:
    """Add the night of a run, a file for each of its platforms."""
    record = read_record(options.run_directory)
    wheels = _wheels(options.wheels) if options.wheels else {}
    platforms = dict.fromkeys(run.platform for run in record.cases)
    if not platforms:
        raise UsageError(f"{options.run_directory} holds no case: there is no night to add")
    for platform in platforms:
        night, rows = night_of(record, platform, options.run, wheels=wheels, why_not=options.does_not_count)
        path = files.append(options.history, night, rows)
        yield f"{path}: {len(rows)} rows{'' if night.counts else f', does not count: {night.why_not}'}"


def _wheels(path: Path) -> dict[str, str]:
    try:
        return msgspec.json.decode(path.read_bytes(), type=dict[str, str])
    except (OSError, msgspec.DecodeError) as error:
        raise UsageError(f"--wheels {path}: {error}; it holds a JSON object, package -> address") from None


def show(options: argparse.Namespace) -> Iterator[str]:
    """One line a night: what was measured with, how many rows, whether it counts."""
    for platform in _platforms(options):
        for stored in files.nights(options.history, platform):
            night = stored.night
            versions = " ".join(
                f"{name} {version.partition(' (')[0]}" for name, version in night.packages.items()
            )
            counts = "" if night.counts else f"; does not count: {night.why_not}"
            yield f"{night.night} {night.run} {platform}: {len(stored.rows)} rows; {versions}{counts}"


def follow(options: argparse.Namespace) -> Iterator[str]:
    """The numbers of one metric of one case, since when it is red, and whether it drifts."""
    is_known = False
    for platform in _platforms(options):
        nights = files.nights(options.history, platform)
        is_known |= any(
            (row.case, row.metric) == (options.case, options.metric) for each in nights for row in each.rows
        )
        found = series.series(nights, options.case, options.metric)
        if found.points:
            yield from _lines(found, platform, options)
    if not is_known:
        raise UsageError(
            f"no night has {options.metric} of {options.case} in {options.history}: give the id of a case "
            "and the name of a metric as run.json has them"
        )


def _lines(found: series.NightSeries, platform: str, options: argparse.Namespace) -> Iterator[str]:
    yield f"{options.metric} of {options.case} on {platform}"
    for point in found.points:
        value = "-" if point.row.value is None else f"{point.row.value:.6g}"
        yield f"  {point.night.night} {point.night.run}  {value}  {point.row.status}"
    for gap in found.gaps:
        yield f"  {gap.night.night} {gap.night.run}  left out: {gap.why}"
    if since := series.since_when(found):
        green = f"last green {since.last_green.night}" if since.last_green else "never green in this series"
        count = "1 night" if since.nights == 1 else f"{since.nights} nights"
        yield f"red since {since.first_red.night} ({count}), {green}"
    noise = noise_in_force(options.baselines, PLATFORM_BY_ID[platform]).get(options.metric)
    if noise is not None and (warning := series.drift(found, noise.sd_pct)):
        yield (
            f"drifts since about {warning.since.night}: {warning.change_pct:+.1f} % by now, noticed on "
            f"{warning.noticed.night}"
        )


def emit(options: argparse.Namespace) -> Iterator[str]:
    """Print the numbers of a run for other people's databases; never those of a fire drill."""
    record = read_record(options.run_directory)
    found = emittable(record)
    for why in found.left_out:
        print(f"history: left out: {why}", file=sys.stderr)
    if options.target == OSS_V3:
        wheels = _wheels(options.wheels) if options.wheels else {}
        rows = oss_benchmark.records(record, found.measurements, _origin(os.environ), wheels)
        yield oss_benchmark.dumps(rows).removesuffix("\n")
    else:
        made = github_benchmark.entries(found.measurements, DIRECTIONS[options.target])
        yield github_benchmark.dumps(made).removesuffix("\n")


def _origin(environment: Mapping[str, str]) -> OssOrigin:
    """The workflow's run that this is, by what GitHub puts into the environment."""
    number, attempt = (environment.get(name, "") for name in ("GITHUB_RUN_ID", "GITHUB_RUN_ATTEMPT"))
    return OssOrigin(
        repo=environment.get("GITHUB_REPOSITORY", ""),
        branch=environment.get("GITHUB_REF_NAME", ""),
        workflow_id=int(number) if number.isdigit() else 0,
        run_attempt=int(attempt) if attempt.isdigit() else 0,
    )


def _platforms(options: argparse.Namespace) -> tuple[str, ...]:
    if not options.history.is_dir():
        raise UsageError(f"--history {options.history}: there is no such folder")
    return tuple(each for each in PLATFORM_BY_ID if (options.history / each).is_dir())


def _parser() -> argparse.ArgumentParser:
    everywhere = argparse.ArgumentParser(add_help=False)
    everywhere.add_argument("--history", type=Path, default=Path("history"), metavar="DIR", help="the nights")
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    commands = parser.add_subparsers(required=True, metavar="{append,show,series,emit}")
    adding = commands.add_parser("append", help=append.__doc__, parents=[everywhere])
    adding.add_argument("run_directory", type=Path, metavar="RUN", help="a run.json, or its directory")
    adding.add_argument("--run", required=True, metavar="ID", help="tells two runs of one night apart")
    adding.add_argument("--wheels", type=Path, metavar="FILE", help="JSON: package -> address of its wheel")
    adding.add_argument(
        "--does-not-count", default="", metavar="WHY", help="a run by hand, or of another branch"
    )
    adding.set_defaults(command=append)
    commands.add_parser("show", help=show.__doc__, parents=[everywhere]).set_defaults(command=show)
    following = commands.add_parser("series", help=follow.__doc__, parents=[everywhere])
    following.add_argument("case")
    following.add_argument("metric")
    following.add_argument(
        "--baselines", type=Path, default=Path("baselines"), metavar="DIR", help="for the noise"
    )
    following.set_defaults(command=follow)
    _add_emit(commands.add_parser("emit", help=emit.__doc__))
    return parser


def _add_emit(emitting: argparse.ArgumentParser) -> None:
    emitting.add_argument("run_directory", type=Path, metavar="RUN", help="a run.json, or its directory")
    emitting.add_argument(
        "--for",
        dest="target",
        required=True,
        choices=(OSS_V3, *DIRECTIONS),
        help="PyTorch's OSS benchmark v3, or one of the files that github-action-benchmark takes",
    )
    emitting.add_argument("--wheels", type=Path, metavar="FILE", help="JSON: package -> address of its wheel")
    emitting.set_defaults(command=emit)


if __name__ == "__main__":
    sys.exit(main())
