"""From options to what is searched: which versions, how each is made and measured, under which conditions."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from packaging.version import Version

from perf_tests.harness.bisecting import listing
from perf_tests.harness.bisecting.commands import Commands
from perf_tests.harness.bisecting.running import Candidates
from perf_tests.harness.bisecting.suite_rows import SuiteRow
from perf_tests.harness.bisecting.versions import Commits, Measure, Releases, ShellProbe
from perf_tests.harness.environments.uv import require_uv
from perf_tests.protocol.errors import UsageError
from perf_tests.protocol.files import read_regular
from perf_tests.tables.metrics.rows import METRIC_BY_NAME

ADDRESS = re.compile(r"(?<=//)[^/@\s]+@")
"""User and password in an address, which belong in no file."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Axis:
    """Versions in order, and how they are made and measured."""

    candidates: Candidates
    items: tuple[str, ...]
    probe: str
    """What is measured, in words that tell it from everything else."""
    conditions: tuple[str, ...]
    """What else decides about the value."""


def path(text: str) -> Path:
    """A path that stays the same wherever a command is run."""
    return Path(text).absolute()


def commits(options: argparse.Namespace) -> Axis:
    """Commits of a clone."""
    if options.uv:
        raise UsageError(f"-- {' '.join(options.uv)}: nothing is installed by uv here, --build does that")
    measure, probe = _measure(options)
    clone = Commits(
        clone=options.clone,
        folder=options.state.with_suffix(".trees"),
        build=options.build,
        python=options.python,
        measuring=measure,
        commands=measure.commands,
    )
    conditions = (f"clone {options.clone}", f"build {options.build}")
    return Axis(
        candidates=clone, items=clone.between(options.good, options.bad), probe=probe, conditions=conditions
    )


def releases(options: argparse.Namespace) -> Axis:
    """Releases of a package, as they are listed on the command line or on a page of an index."""
    if options.versions is None:
        wheels = _on_page(options) if options.index else {}
        return _installed(options, _between(options, wheels, listing.is_release), {})
    items = tuple(each.strip() for each in options.versions.split(",") if each.strip())
    if len(set(items)) < max(2, len(items)):
        raise UsageError(
            f"--versions {options.versions}: give two or more different ones, the good end first"
        )
    for each in items:
        listing.parsed(each)
    if options.index or options.good or options.bad:
        raise UsageError("--versions names the versions: leave out --index, --good and --bad")
    return _installed(options, items, {})


def nights(options: argparse.Namespace) -> Axis:
    """Nights of a package, those that a page of an index still has, or whose wheels history knows."""
    found = listing.in_history(options.history, options.package) if options.history else {}
    wheels = {**found, **(_on_page(options) if options.index else {})}
    items = _between(options, wheels, listing.is_night)
    return _installed(options, items, {item: wheels[item] for item in items if wheels.get(item)})


def _on_page(options: argparse.Namespace) -> dict[str, str]:
    return listing.on_page(options.index, options.package)


def _between(
    options: argparse.Namespace, wheels: Mapping[str, str], wanted: Callable[[Version], bool]
) -> tuple[str, ...]:
    if not (wheels and options.good and options.bad):
        sources = "--history or --index" if hasattr(options, "history") else "--versions or --index"
        raise UsageError(f"give {sources}, and with it both ends, --good and --bad")
    local = options.local
    known = [each for each in wheels if local is None or Version(each).local == local]
    return listing.between(known, options.good, options.bad, wanted)


def _installed(options: argparse.Namespace, items: tuple[str, ...], wheels: Mapping[str, str]) -> Axis:
    require_uv()
    measure, probe = _measure(options)
    made = Releases(
        package=options.package,
        folder=options.state.with_suffix(".environments"),
        pins=options.pins,
        arguments=tuple(options.uv),
        measuring=measure,
        commands=measure.commands,
        wheels=wheels,
    )
    conditions = (
        f"package {options.package}",
        f"pins {_content(options.pins)}",
        f"uv {ADDRESS.sub('', ' '.join(options.uv))}",
    )
    return Axis(candidates=made, items=items, probe=probe, conditions=conditions)


def _content(pins: Path | None) -> str:
    try:
        return "" if pins is None else read_regular(pins).decode()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"--pins {pins}: {error}") from error


def _measure(options: argparse.Namespace) -> tuple[Measure, str]:
    """How a version is measured, and in words."""
    commands = Commands(timeout_s=options.timeout_min * 60)
    if options.case is None:
        if options.metric is not None:
            raise UsageError("--metric is that of a --case: leave it out with --probe")
        words = options.probe if options.key == "value" else f"{options.probe} ({options.key})"
        return ShellProbe(command=options.probe, key=options.key, commands=commands), words
    if options.metric not in METRIC_BY_NAME:
        raise UsageError(
            f"--metric {options.metric}: name one of the metrics that tools/report.py --csv lists"
        )
    row = SuiteRow(
        case=options.case,
        metric=options.metric,
        processes=options.processes,
        out=options.state.with_suffix(".runs"),
        commands=commands,
        options=tuple(options.perf_option),
    )
    return row, " ".join((row.case, row.metric, str(row.processes), *row.options))
