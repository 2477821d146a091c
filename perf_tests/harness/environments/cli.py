"""The command line of `tools/stacks.py`."""

from __future__ import annotations

import argparse
import sys
import tomllib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from perf_tests.harness.attribution.stacks import Stacks
from perf_tests.harness.environments import disk, wanted
from perf_tests.harness.environments.cells import CellBuilder
from perf_tests.harness.environments.locks import Resolver
from perf_tests.harness.environments.square import SquareBuilder
from perf_tests.harness.environments.torchao_clone import BUILDS_WITH, TorchaoClone
from perf_tests.harness.environments.uv import Uv, check_links, output_of
from perf_tests.harness.environments.wanted import SquareWanted, TorchaoWanted, TorchWanted
from perf_tests.harness.records.attributions import Corner
from perf_tests.harness.runs.file_lock import FileLock, HeldError
from perf_tests.protocol.errors import PerfError, UsageError
from perf_tests.protocol.files import replace_atomically

DONE, INCOMPLETE, REFUSED = 0, 1, 2
PROJECT = Path(__file__).parents[3] / "pyproject.toml"
ENVIRONMENTS, LOCKS = "environments", "locks"
UNPACKED_LATELY_DAYS = 1.0
"""An archive of uv's that is younger may be on its way into an environment."""


def main(argv: Sequence[str] | None = None, description: str | None = None) -> int:
    """Exit code, as `tools/stacks.py` lists them. `description` is what `--help` begins with."""
    options = _parser(description).parse_args(argv)
    try:
        with _alone(options.folder):
            code: int = options.does(options)
    except (PerfError, OSError) as error:  # such as a disk that is full by now: what is half-built is found
        print(f"stacks: {error}", file=sys.stderr)
        return REFUSED
    return code


def _build(options: argparse.Namespace) -> int:
    pins = _text(options.pins)
    clone = TorchaoClone(path=options.torchao_clone.absolute()) if options.torchao_clone else None
    square = SquareWanted(
        good_torch=_torch(options.good_torch or wanted.pinned(pins, "torch"), options.good_torch_index),
        new_torch=_torch(options.new_torch, options.new_torch_index),
        good_torchao=_torchao(options.good_torchao or wanted.pinned(pins, "torchao"), clone),
        new_torchao=_torchao(options.new_torchao, clone),
    )
    wanted.check(square)
    cache = options.cache or options.folder / "cache"
    check_links(cache, options.folder / ENVIRONMENTS)
    stacks = _builder(options, Uv(cache=cache), pins, clone, square).build(square)
    _write(options.out or options.folder / "stacks.json", stacks)
    if options.wheels and not stacks.problem(Corner.NEW):
        _write(options.wheels, stacks.wheels[Corner.NEW])
    if stacks.problem(Corner.GOOD) or stacks.problem(Corner.NEW):
        return REFUSED
    return INCOMPLETE if any(stacks.problem(corner) for corner in Corner) else DONE


def _builder(
    options: argparse.Namespace, uv: Uv, pins: str, clone: TorchaoClone | None, square: SquareWanted
) -> SquareBuilder:
    project = tomllib.loads(_text(PROJECT))
    commits = square.good_torchao.commit or square.new_torchao.commit
    resolver = Resolver(
        uv=uv,
        folder=options.folder / LOCKS,
        python=options.python,
        python_version=_version_of(options.python),
        pins=pins,
        dependencies=(*project["project"]["dependencies"], *(BUILDS_WITH if commits else ())),
    )
    builder = CellBuilder(uv=uv, folder=options.folder / ENVIRONMENTS, python=options.python, clone=clone)
    return SquareBuilder(resolver=resolver, builder=builder, say=lambda line: print(line, flush=True))


def _prune(options: argparse.Namespace) -> int:
    homes = options.folder / ENVIRONMENTS
    kept = frozenset(Path(python).parents[1].resolve() for path in options.keep for python in _pythons(path))
    unused = list(disk.unused(homes, options.unused_days, kept))
    freed = disk.remove_all(unused)
    cache = options.cache or options.folder / "cache"
    freed += disk.remove_all(disk.unlinked(cache, UNPACKED_LATELY_DAYS))
    print(f"removed {len(unused)} environments, {freed / 1e9:.1f} GB with what uv kept for them")
    return DONE


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Let no other process build or prune in `folder` meanwhile; waits for one that does."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        try:
            lock = FileLock(folder / ".lock")
        except HeldError as error:
            print(f"stacks: {error.holder} works in {folder}: waiting for it", file=sys.stderr, flush=True)
            lock = FileLock(folder / ".lock", wait=True)
    except OSError as error:
        raise UsageError(f"{folder}: {error.strerror}") from error
    with lock:
        yield


def _torch(text: str, index: str) -> TorchWanted:
    return TorchWanted(version=wanted.version(text), index=index)


def _torchao(text: str, clone: TorchaoClone | None) -> TorchaoWanted:
    if not wanted.is_commit(text):
        return TorchaoWanted(release=wanted.version(text))
    if clone is None:
        raise UsageError(f"torchao {text} is a commit: name a --torchao-clone that has it")
    return clone.commit(text[1:])


def _pythons(path: Path) -> Iterator[str]:
    try:
        stacks = msgspec.json.decode(path.read_bytes(), type=Stacks)
    except (OSError, msgspec.DecodeError) as error:
        raise UsageError(f"--keep {path}: cannot be read: {error}") from error
    return (python for corner in Corner if (python := stacks.python(corner)))


def _version_of(python: str) -> str:
    """Version and machine of an interpreter, for which wheels are chosen."""
    asked = "import platform, sys; print(sys.version, platform.machine())"
    return output_of((python, "-I", "-c", asked)).strip()


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}") from error


def _write(path: Path, content: object) -> None:
    try:
        replace_atomically(path, msgspec.json.format(msgspec.json.encode(content), indent=1) + b"\n")
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}; the environments are built: run it again") from error


def _parser(description: str | None) -> argparse.ArgumentParser:
    everywhere = argparse.ArgumentParser(add_help=False)
    everywhere.add_argument("folder", type=Path, metavar="FOLDER", help="for the environments; it is kept")
    everywhere.add_argument(
        "--cache", type=Path, metavar="DIR", help="of uv, on the same file system (default: FOLDER/cache)"
    )
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    kinds = parser.add_subparsers(required=True, metavar="{build,prune}")
    _add_build(kinds.add_parser("build", help="the four stacks", parents=[everywhere]))
    prune = kinds.add_parser("prune", help="what is no longer used", parents=[everywhere])
    prune.add_argument(
        "--unused-days", type=float, default=14.0, metavar="DAYS", help="not asked for (default: %(default)g)"
    )
    prune.add_argument(
        "--keep", type=Path, action="append", default=[], metavar="FILE", help="whose stacks stay"
    )
    prune.set_defaults(does=_prune)
    return parser


def _add_build(build: argparse.ArgumentParser) -> None:
    def add(flag: str, metavar: str, text: str, **settings: Any) -> None:
        build.add_argument(flag, metavar=metavar, help=text, **settings)

    add("--pins", "FILE", "requirements that all of them share", type=Path, required=True)
    for end, settings in (("good", {"default": ""}), ("new", {"required": True})):
        pinned = " (default: that of the pins)" if end == "good" else ""
        add(f"--{end}-torch", "VERSION", f"the {end} torch{pinned}", **settings)
        add(f"--{end}-torch-index", "URL", "package index for it and its Triton alone", default="")
        add(f"--{end}-torchao", "VERSION|@COMMIT", f"the {end} torchao{pinned}", **settings)
    add("--torchao-clone", "DIR", "has the commits of torchao", type=Path)
    add("--python", "PYTHON", "of the environments (default: this one)", default=sys.executable)
    add("--out", "FILE", "for --perf-stacks (default: FOLDER/stacks.json)", type=Path)
    add("--wheels", "FILE", "addresses of the wheels of the new stack, for `history.py append`", type=Path)
    build.set_defaults(does=_build)
