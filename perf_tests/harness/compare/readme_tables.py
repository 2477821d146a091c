"""The tables in baselines/README.md: the accepted rows of each GPU platform, beside what was published."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from perf_tests.harness.baselines import files, transaction
from perf_tests.harness.baselines.entry import Entry
from perf_tests.harness.compare import published
from perf_tests.harness.rebaseline import store
from perf_tests.harness.rebaseline.candidates import CASES
from perf_tests.protocol.errors import BaselineError, UsageError
from perf_tests.protocol.files import read_regular
from perf_tests.tables.pipelines.rows import MODELS
from perf_tests.tables.platforms import PLATFORM_BY_ID
from perf_tests.tables.published import PLATFORM_OF_GPU

README = "README.md"
TABLE_PLATFORMS = tuple(platform.id for platform in PLATFORM_BY_ID.values() if platform.gpu is not None)
"""Ids of the platforms that have a table: times on a CPU say nothing about another one."""
COMMAND = "python tools/rebaseline.py show --markdown --platform {platform}"
BEGIN = f"<!-- {COMMAND} -->"
END = "<!-- end of {platform} -->"
SIGNIFICANT_DIGITS = 4
POSITIONS = {
    case: (MODELS.index(each.case.build.pipeline), each.case.workload.batch_size, position)
    for position, (case, each) in enumerate(CASES.items())
}
"""Case id -> where its row stands: by pipeline, then by batch size, then as in the matrix."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TableRow:
    """One accepted case, and what the cells of its row are made of."""

    case: str
    entry: Entry
    published_s: float | None
    """On a GPU of the same model; None where nothing was published for it."""

    @property
    def projected(self) -> bool:
        """Whether its latency is composed from the stages of a shorter generation."""
        return CASES[self.case].case.workload.measured_steps is not None

    def median(self, metric: str) -> float | None:
        """The median of `metric` over the processes; None where none was accepted."""
        values = self.entry.metrics.get(metric)
        return statistics.median(values) if values else None

    def lowest(self, metric: str) -> float | None:
        """The lowest accepted value of `metric`; None where none was accepted."""
        return min(self.entry.metrics.get(metric, ()), default=None)


def show(root: Path, pattern: str = "*", platform: str | None = None) -> str:
    """The tables of the accepted cases whose ids match `pattern`, of every GPU platform or of one.

    Each stands between the two comments that enclose it in the README. Raises UsageError where there is
    nothing to show, BaselineError for a file that cannot be trusted.
    """
    if platform is not None and platform not in TABLE_PLATFORMS:
        raise UsageError(f"--markdown shows no {platform}, only {' and '.join(TABLE_PLATFORMS)}")
    wanted = TABLE_PLATFORMS if platform is None else (platform,)
    blocks = _blocks(root, wanted, pattern)
    if not blocks:
        raise UsageError(f"no baseline of {' or '.join(wanted)} under {root} matches {pattern!r}")
    return "\n\n".join(blocks.values())


def problems(root: Path) -> tuple[str, ...]:
    """The tables that the README under `root` does not hold as they are now, one sentence each.

    None where there is no README. Raises BaselineError for a file that cannot be trusted.
    """
    text = _readme(root)
    return tuple(
        f"{root / README} does not hold the table of what was accepted on {platform}: {store.REWRITE}; where "
        f"it has no such table yet, insert what `{COMMAND.format(platform=platform)}` prints"
        for platform, block in _blocks(root).items()
        if text is not None and block not in text
    )


def refresh(root: Path) -> tuple[Path, ...]:
    """Bring the tables of the README under `root` up to date; returns the files that changed.

    To be called within `transaction.exclusive`. A table that the README does not have yet is left to
    `problems`. Raises BaselineError for a file that cannot be trusted or written.
    """
    before = _readme(root)
    if before is None:
        return ()
    after = before
    for platform, block in _blocks(root).items():
        head, _, rest = after.partition(BEGIN.format(platform=platform))
        _, end, tail = rest.partition(END.format(platform=platform))
        if end:
            after = f"{head}{block}{tail}"
    if after == before:
        return ()
    transaction.replace_all(root, {root / README: after})
    return (root / README,)


def _readme(root: Path) -> str | None:
    try:
        return read_regular(root / README).decode()
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise BaselineError(f"{root / README} cannot be read: {error}") from error


# From the store to lines


def _blocks(root: Path, platforms: Sequence[str] = TABLE_PLATFORMS, pattern: str = "*") -> Mapping[str, str]:
    """Platform id -> its table and the comments around it, for those with an accepted case that matches."""
    rows = {platform: tuple(_rows(root, platform, pattern)) for platform in platforms}
    return {
        platform: "\n".join((BEGIN.format(platform=platform), *lines(each), END.format(platform=platform)))
        for platform, each in rows.items()
        if each
    }


def _rows(root: Path, platform: str, pattern: str) -> Iterator[TableRow]:
    """In the order of POSITIONS. A case that the matrix does not have is left to `store.problems`."""
    entries = {
        case: entry
        for of_pipeline in files.load(root, platform).values()
        for case, entry in of_pipeline.cases.items()
        if case in POSITIONS and fnmatchcase(case, pattern)
    }
    latencies_s = published.latencies_s(root / "published")
    for case in sorted(entries, key=POSITIONS.__getitem__):
        published_id = published.PUBLISHED_IDS[case]
        theirs_s = {PLATFORM_OF_GPU.get(gpu): s for gpu, s in latencies_s.get(published_id, {}).items()}
        yield TableRow(case=case, entry=entries[case], published_s=theirs_s.get(platform))


def lines(rows: Sequence[TableRow]) -> tuple[str, ...]:
    """The lines of the table of `rows`, without the columns that are empty in each."""
    columns = {title: [cell(row) for row in rows] for title, cell in CELLS.items()}
    filled = {title: cells for title, cells in columns.items() if any(cells)}
    body = zip(*filled.values(), strict=True)
    return (_line(filled), "|" + "---|" * len(filled), *map(_line, body))


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _seconds(row: TableRow) -> str:
    latency_s = _significant(row.median("latency_s"))
    return f"{latency_s} p" if latency_s and row.projected else latency_s


def _gib(metric: str) -> Callable[[TableRow], str]:
    def cell(row: TableRow) -> str:
        mib = row.median(metric)
        return "" if mib is None else f"{mib / published.MIB_PER_GIB:.2f}"

    return cell


def _compile(row: TableRow) -> str:
    return _pair(row.median("compile_cold_s"), row.median("compile_warm_s"), (1, 1))


def _fidelity(row: TableRow) -> str:
    return _pair(row.lowest("psnr_db"), row.lowest("ssim"), (1, 4))


def _pair(first: float | None, second: float | None, decimals: tuple[int, int]) -> str:
    """`first / second`, or `first` where there is no second."""
    if second is None:
        return _fixed(first, decimals[0])
    return f"{_fixed(first, decimals[0]) or '-'} / {_fixed(second, decimals[1])}"


def _fixed(value: float | None, decimals: int) -> str:
    return "" if value is None else f"{value:.{decimals}f}"


def _significant(value: float | None) -> str:
    """With SIGNIFICANT_DIGITS, zeros at the end included."""
    if value is None:
        return ""
    # Of the rounded number: 99.996 is 100.0.
    exponent = int(f"{value:.{SIGNIFICANT_DIGITS - 1}e}".partition("e")[2])
    return _fixed(value, max(SIGNIFICANT_DIGITS - 1 - exponent, 0))


CELLS: Mapping[str, Callable[[TableRow], str]] = {
    "case": lambda row: f"`{row.case}`",
    "processes": lambda row: str(row.entry.processes),
    "s": _seconds,
    "step ms": lambda row: _significant(row.median("denoise_step_ms")),
    "x bf16": lambda row: _fixed(row.median("speedup_vs_bf16"), 3),
    "model GiB": _gib("model_memory_mib"),
    "peak GiB": _gib("peak_allocated_mib"),
    "compile s, cold / warm": _compile,
    "PSNR dB / SSIM": _fidelity,
    "published s": lambda row: _fixed(row.published_s, 3),
}
"""Title of a column -> its cell in a row, empty where nothing was accepted or published."""
