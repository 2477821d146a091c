"""Earlier runs of the same cases: how a metric came to be what it is, and since when it is red."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from perf_tests.harness.page import charts
from perf_tests.harness.page.charts import Band, Chart
from perf_tests.harness.report.terminal import HEADLINES
from perf_tests.harness.report.wording import format_value
from perf_tests.harness.runs import environments
from perf_tests.harness.runs.record import FORMAT_VERSION, Run, RunRecord, Status
from perf_tests.harness.runs.record_file import RECORD
from perf_tests.protocol.errors import UsageError
from perf_tests.protocol.files import read_regular
from perf_tests.tables.metrics.rows import METRIC_BY_NAME

MAX_NIGHTS = 90
"""Earlier runs that a page shows."""
PACKAGES = ("torch", "triton", "torchao", "diffusers", "transformers")
"""What a trend marks where its version changed."""

GREEN = frozenset(status.value for status in Status if status.is_green)


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
    """Of a `RunRecord`, what a trend needs: to read all of sixty of them would take half a minute."""

    format_version: int
    created_at: str
    cases: tuple[PastCase, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Night:
    """An earlier run."""

    when: str
    cases: Mapping[tuple[str, str], PastCase]
    """By id and platform; without what was injected into."""


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
    table: tuple[tuple[str, str, str], ...]
    """When, value, what changed in the stack since the run before."""


def read(folder: Path, record: RunRecord) -> Nights:
    """The runs in `folder`, its run.json files however deep, that began before `record`; the newest of them.

    Raises UsageError where there is no such folder. A file that cannot be read is named, and left out.
    """
    if not folder.is_dir():
        raise UsageError(f"--history {folder} is not a folder; give the one that holds earlier runs")
    found: dict[str, Night] = {}
    unreadable: list[str] = []
    for path in sorted(folder.rglob(RECORD)):
        try:
            past = msgspec.json.decode(read_regular(path), type=PastRecord)
        except (OSError, msgspec.DecodeError) as error:
            unreadable.append(f"{path}: {error}")
            continue
        if past.format_version == FORMAT_VERSION and past.created_at < record.created_at:
            cases = {(case.id, case.platform): case for case in past.cases if not case.injected}
            found[past.created_at] = Night(when=past.created_at, cases=cases)
    newest = sorted(found)[-MAX_NIGHTS:]
    return Nights(nights=tuple(found[when] for when in newest), unreadable=tuple(unreadable))


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
    stacks = [*(_packages(case) for _, case in past), now]
    changed = {
        number: ", ".join(differences)
        for number in range(1, len(stacks))
        if (differences := environments.differences(stacks[number - 1], stacks[number]))
    }
    unit = METRIC_BY_NAME[metric].units
    values = [*(case.measured.get(metric) for _, case in past), run.measured[metric]]
    red = [*(_is_red(case, metric) for _, case in past), metric == red_metric]
    chart = charts.trend(values, red, changed, unit, band_of(metric), past[0][0][: len("2026-01-31")])
    if chart is None:
        return None
    whens = [*(when for when, _ in past), "this run"]
    table = tuple(
        (when, format_value(value, unit), changed.get(number, ""))
        for number, (when, value) in enumerate(zip(whens, values, strict=True))
    )
    return Trend(metric=metric, chart=chart, table=table)


def since(run: Run, metric: str, nights: Sequence[Night]) -> str:
    """Since when a red `metric` of the case is red, as a clause; empty where no earlier run says."""
    past = [(night.when[:10], _is_red(case, metric)) for night in nights if (case := _same(run, "", night))]
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


def _same(run: Run, metric: str, night: Night) -> PastCase | None:
    """What the night has of the very same case, for a time on the very same card."""
    case = night.cases.get((run.id, run.platform))
    if case is None or case.digest != run.digest or not case.processes:
        return None
    if not metric or not METRIC_BY_NAME[metric].per_unit:
        return case
    units = {process.environment.unit for process in run.processes}
    return case if {process.environment.unit for process in case.processes} == units else None


def _packages(case: PastCase) -> Mapping[str, str | None]:
    return {name: case.processes[0].environment.packages.get(name) for name in PACKAGES}


def _is_red(case: PastCase, metric: str) -> bool:
    return any(each.metric == metric and each.status not in GREEN for each in case.verdicts)
