"""Earlier runs of the same cases: how a metric came to be what it is, and since when it is red."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from perf_tests.harness.history import files
from perf_tests.harness.history.night import BUILD, METHODOLOGY, PACKAGES, NightRow, card_of, is_of_card
from perf_tests.harness.page import charts
from perf_tests.harness.page.charts import Band, Chart
from perf_tests.harness.report.terminal import HEADLINES, aligned
from perf_tests.harness.report.wording import format_value
from perf_tests.harness.runs import environments
from perf_tests.harness.runs.record import FORMAT_VERSION, Run, RunRecord, Status
from perf_tests.harness.runs.record_file import RECORD
from perf_tests.protocol.errors import RecordError, UsageError
from perf_tests.protocol.files import read_regular
from perf_tests.tables.metrics.rows import METRIC_BY_NAME

HISTORY = "*.jsonl.gz"
"""A night of `tools/history.py`."""
MAX_NIGHTS = 90
"""Earlier runs that a page shows."""

GREEN = frozenset(status.value for status in Status if status.is_green)


@dataclass(frozen=True, kw_only=True, slots=True)
class PastRun:
    """What an earlier run says of one case."""

    digest: str
    cards: frozenset[str]
    """Of its processes, as history names them."""
    packages: Mapping[str, str]
    values: Mapping[str, float]
    """Metric -> value."""
    red: frozenset[str]
    """Metrics."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Night:
    """An earlier run."""

    when: str
    """ISO 8601, at least the day."""
    cases: Mapping[tuple[str, str], PastRun]
    """By id and platform; without what was injected into, or was not measured."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Nights:
    """The earlier runs of a folder, oldest first."""

    nights: tuple[Night, ...] = ()
    unreadable: tuple[str, ...] = ()
    """One sentence for each file that was not read."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Trend:
    """A metric of one case over the runs."""

    metric: str
    chart: Chart
    lines: str
    """A line a run: when, value, what changed in the stack since the run before."""


def read(folder: Path, record: RunRecord) -> Nights:
    """The newest of the runs in `folder`, as `read_all` finds them, that are earlier than `record`.

    Raises UsageError where there is no such folder.
    """
    if not folder.is_dir():
        raise UsageError(f"--history {folder} is not a folder; give the one that holds earlier runs")
    return before(read_all(folder), record)


def before(found: Nights, record: RunRecord) -> Nights:
    """The newest of the runs `found` that are earlier than `record`; a night of history by its day."""
    nights = [night for night in found.nights if night.when < record.created_at[: len(night.when)]]
    return Nights(nights=tuple(nights[-MAX_NIGHTS:]), unreadable=found.unreadable)


def read_all(folder: Path) -> Nights:
    """All runs in `folder`: its run.json files however deep, and nights of history.

    A file that cannot be read is named, and left out.
    """
    found: list[Night] = []
    unreadable: list[str] = []
    for path in sorted((*folder.rglob(RECORD), *folder.rglob(HISTORY))):
        try:
            night = _of_record(path) if path.name == RECORD else _of_history(path)
        except (OSError, msgspec.DecodeError, RecursionError) as error:
            unreadable.append(f"{path}: {error}")
        except RecordError as error:
            unreadable.append(str(error))
        else:
            found += [night] if night is not None else []
    found.sort(key=lambda night: night.when)
    return Nights(nights=tuple(found), unreadable=tuple(unreadable))


def _of_record(path: Path) -> Night | None:
    """The run in a run.json; None for one of another format."""
    past = msgspec.json.decode(read_regular(path), type=PastRecord)
    if past.format_version != FORMAT_VERSION:
        return None
    cases = {
        (case.id, case.platform): PastRun(
            digest=case.digest,
            cards=frozenset(card_of(process.environment.unit) for process in case.processes),
            packages=case.processes[0].environment.packages,
            values=case.measured,
            red=frozenset(each.metric for each in case.verdicts if each.status not in GREEN),
        )
        for case in past.cases
        if case.processes and not case.injected
    }
    return Night(when=past.created_at, cases=cases)


def _of_history(path: Path) -> Night | None:
    """A night of history; None for one that does not compare."""
    stored = files.read(path)
    night = stored.night
    if not night.counts or night.methodology != METHODOLOGY:
        return None
    rows: dict[str, list[NightRow]] = {}
    for row in stored.rows:
        if row.metric != BUILD and row.value is not None:
            rows.setdefault(row.case, []).append(row)
    cases = {
        (case, night.platform): PastRun(
            digest=of_case[0].digest,
            cards=frozenset({of_case[0].card}),
            packages=night.packages,
            values={row.metric: row.value for row in of_case if row.value is not None},
            red=frozenset(row.metric for row in of_case if row.status not in GREEN),
        )
        for case, of_case in rows.items()
    }
    return Night(when=night.night, cases=cases)


# What is read of a record: all of it would take half a minute for sixty of them


class PastGpu(msgspec.Struct, frozen=True):
    """Of a `Gpu`, what tells cards apart."""

    uuid: str


class PastEnvironment(msgspec.Struct, frozen=True):
    """Of an `Environment`, what a trend needs."""

    packages: dict[str, str]
    gpu: PastGpu | None
    cpu_model: str

    @property
    def unit(self) -> str:
        """The piece of hardware, as `Environment.unit`."""
        return self.gpu.uuid if self.gpu else self.cpu_model


class PastProcess(msgspec.Struct, frozen=True):
    """Of a `Process`, where it ran."""

    environment: PastEnvironment


class PastVerdict(msgspec.Struct, frozen=True):
    """Of a `Verdict`, its outcome."""

    metric: str
    status: str


class PastCase(msgspec.Struct, frozen=True):
    """Of a `Run`, what a trend needs."""

    id: str
    digest: str
    platform: str
    verdicts: tuple[PastVerdict, ...] = ()
    measured: dict[str, float] = msgspec.field(default_factory=dict)
    processes: tuple[PastProcess, ...] = ()
    injected: tuple[str, ...] = ()


class PastRecord(msgspec.Struct, frozen=True):
    """Of a `RunRecord`, what a trend needs."""

    format_version: int
    created_at: str
    cases: tuple[PastCase, ...]


# Trends


def trend(
    run: Run, red_metric: str, nights: Sequence[Night], band_of: Callable[[str], Band | None]
) -> Trend | None:
    """How `red_metric` of the case came to its value, or for an empty one the metric that says most.

    `band_of` tells what a metric is held against. Runs of another case, and for a time those on another card,
    are left out. None where nothing is left.
    """
    metric = _metric_of(run, red_metric)
    past = [(night.when, case) for night in nights if (case := _same(run, metric, night)) is not None]
    if not metric or not past or not run.processes:
        return None
    now = {name: run.processes[0].environment.packages.get(name) for name in PACKAGES}
    stacks = [*({name: case.packages.get(name) for name in PACKAGES} for _, case in past), now]
    changed = {
        number: ", ".join(differences)
        for number in range(1, len(stacks))
        if (differences := environments.differences(stacks[number - 1], stacks[number]))
    }
    unit = METRIC_BY_NAME[metric].units
    values = [*(case.values.get(metric) for _, case in past), run.measured[metric]]
    red = [*(metric in case.red for _, case in past), metric == red_metric]
    chart = charts.trend(values, red, changed, unit, band_of(metric), past[0][0][: len("2026-01-31")])
    if chart is None:
        return None
    whens = [*(when for when, _ in past), "this run"]
    rows = [
        (when, format_value(value, unit), changed.get(number, ""))
        for number, (when, value) in enumerate(zip(whens, values, strict=True))
    ]
    lines = aligned([("run", metric, "changed in the stack"), *rows], right=(metric,))
    return Trend(metric=metric, chart=chart, lines="\n".join(lines))


def since(run: Run, metric: str, nights: Sequence[Night]) -> str:
    """Since when a red `metric` of the case is red, as a clause; empty where no earlier run says."""
    past = [(night.when[:10], metric in case.red) for night in nights if (case := _same(run, "", night))]
    if not past:
        return ""
    last_green = max((number for number, (_, red) in enumerate(past) if not red), default=None)
    if last_green is None:
        return f"red in all {len(past)} earlier runs, since {past[0][0]} at least"
    if last_green == len(past) - 1:
        return f"green as late as {past[-1][0]}"
    reds = len(past) - 1 - last_green
    return f"red since {past[last_green + 1][0]} ({reds + 1} runs), green as late as {past[last_green][0]}"


def _metric_of(run: Run, red_metric: str) -> str:
    if red_metric in METRIC_BY_NAME and red_metric in run.measured:
        return red_metric
    return next((name for name in HEADLINES if name in run.measured), "")


def _same(run: Run, metric: str, night: Night) -> PastRun | None:
    """What the night has of the very same case, for a time on the very same card."""
    case = night.cases.get((run.id, run.platform))
    if case is None or case.digest != run.digest:
        return None
    if not metric or not is_of_card(metric):
        return case
    return case if case.cards == {card_of(process.environment.unit) for process in run.processes} else None
