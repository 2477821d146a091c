"""Anchors, the outputs that bf16 pipelines must come close to: compute and write them, or check them.

    python tools/anchor.py write [--only GLOB]
    python tools/anchor.py check [--only GLOB]

`write` computes every anchor, or those of the pipelines that match GLOB, on the CPU, and writes them to
baselines/anchors/. `check` computes those of the miniatures, or of the pipelines that match, and compares
them with the committed ones; it writes nothing. flux1-dev-slim takes minutes and 9 GiB of memory.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import Path

# The checkout's own package, even where it is not installed: `python tools/x.py` only looks in tools/.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from perf_tests.protocol.errors import PerfError, UsageError
from perf_tests.tables.cases import Build
from perf_tests.tables.pipelines.rows import MINIATURES, PIPELINES
from perf_tests.tables.pipelines.spec import PipelineSpec
from perf_tests.tables.recipes import Recipe
from perf_tests.tables.schemes.rows import BF16

SAME, DIFFERS, REFUSED = 0, 1, 2

SAME_DB = 100.0
"""SQNR of two computations of one anchor, at least: they differ only where the stack itself uses float32,
and even float64 and float32 are 126 dB apart. The best bf16 pipeline has 50 dB."""

SCHEDULE = "anchor_schedule"
"""The one metric that counts."""


def main(argv: Sequence[str] | None = None) -> int:
    """Exit code: 0 written or unchanged, 1 an anchor differs from what is computed now, 2 refused."""
    options = _parser().parse_args(argv)
    try:
        same = [options.command(spec, options.folder) for spec in _asked(options)]
    except PerfError as exc:
        print(f"anchor: {exc}", file=sys.stderr)
        return REFUSED
    return SAME if all(same) else DIFFERS


def write(spec: PipelineSpec, folder: Path) -> bool:
    """Compute and write the anchor of `spec`."""
    # The stack is imported here, so that --help needs none.
    from perf_tests.worker.fidelity import anchor, anchor_files

    for path in anchor_files.write(anchor.compute(spec), folder):
        print(f"{path}: {path.stat().st_size} bytes", flush=True)
    return True


def check(spec: PipelineSpec, folder: Path) -> bool:
    """Whether the anchor of `spec` equals what is computed now."""
    from perf_tests.worker.fidelity import anchor, anchor_files

    now = anchor.compute(spec)
    stored = anchor_files.load(Build(pipeline=spec, recipe=Recipe(scheme=BF16)), now.weights, folder)
    if stored is None:
        raise UsageError(f"{spec.id} has no anchor yet: add anchor=AnchorFloors(...) to its row")
    found = anchor.values(stored, now.recording)
    mismatches = found.pop(SCHEDULE)
    lowest_db = min(found.values())
    same = lowest_db >= SAME_DB and not mismatches
    says = "" if same else f", less than {SAME_DB:g} or another schedule: what has changed in the stack?"
    print(f"{spec.id}: {lowest_db:.1f} dB, schedule: {mismatches:.0f} mismatches{says}", flush=True)
    return same


def _asked(options: argparse.Namespace) -> list[PipelineSpec]:
    # A new miniature gets its anchor before its row can say how close bf16 comes to it.
    small = [spec for spec in PIPELINES if spec.anchor is not None or spec in MINIATURES]
    every = small if options.command is write else MINIATURES
    asked = [spec for spec in small if fnmatchcase(spec.id, options.only)] if options.only else [*every]
    if not asked:
        known = ", ".join(spec.id for spec in small)
        raise UsageError(f"no pipeline with an anchor matches {options.only!r}; there are: {known}")
    return asked


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for command in (write, check):
        one = commands.add_parser(command.__name__, help=command.__doc__, allow_abbrev=False)
        default = "every pipeline with an anchor" if command is write else "the miniatures"
        one.add_argument("--only", metavar="GLOB", help=f"pipeline ids; default: {default}")
        one.add_argument(
            "--folder",
            type=Path,
            default=Path(__file__).resolve().parents[1] / "baselines" / "anchors",
            metavar="DIR",
            help="default: baselines/anchors",
        )
        one.set_defaults(command=command)
    return parser


if __name__ == "__main__":
    sys.exit(main())
