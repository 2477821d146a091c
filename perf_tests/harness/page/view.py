"""What a page shows, computed and in words: frozen values that the template only writes down."""

from __future__ import annotations

from dataclasses import dataclass

from perf_tests.harness.page.charts import Chart
from perf_tests.harness.page.marks import Kind, StatusMark


@dataclass(frozen=True, kw_only=True, slots=True)
class PageMetric:
    """One verdict."""

    name: str
    mark: StatusMark
    baseline: str
    now: str
    change: str
    interval: str
    """95 % of the change; empty without one."""
    limit: str
    reason: str
    is_red: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class PageMetrics:
    """Verdicts of one status that need no reading, each: they passed, or nothing was accepted yet."""

    title: str
    """How many, and which status."""
    metrics: tuple[PageMetric, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class FigureBeside:
    """A published figure beside ours."""

    what: str
    ours: str
    theirs: str
    ratio: str
    remark: str


@dataclass(frozen=True, kw_only=True, slots=True)
class PagePicture:
    """A picture or film inside the page."""

    caption: str
    url: str
    """A `data:` URL."""
    is_film: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class PageCase:
    """All about one case."""

    id: str
    anchor: str
    """Of the page: unique, and without anything that a URL would have to escape."""
    mark: StatusMark
    pipeline: str
    scheme: str
    group: str
    """Batch size and compile mode."""
    headline: str
    """The verdict that leads, or why it was not measured; empty where all passed."""
    is_open: bool
    """Whether it is unfolded from the beginning."""
    rank: int
    """Its place among all, the worst first."""
    change_pct: float
    """The largest change of a metric with noise, without its sign; 0 without one."""
    seconds: float
    """Of the device, all processes."""
    failure: str
    """The failure text; empty where nothing is red."""
    metrics: tuple[PageMetric, ...]
    """Those that somebody should read, the one that leads first."""
    folded: tuple[PageMetrics, ...]
    """All others."""
    shown: tuple[tuple[str, str], ...]
    """Metrics that were measured and that nothing judges, with their values."""
    steps: Chart | None
    trend: Chart | None
    trend_title: str
    trend_lines: str
    """The numbers of the trend, a line a run: when, value, what changed in the stack since the run before."""
    costs: Chart | None
    costs_title: str
    roofline: str
    """How far a step is from the least it can take; empty where that is not known."""
    figures: tuple[FigureBeside, ...]
    pictures: tuple[PagePicture, ...]
    pictures_note: str
    """Why there is none, or where the rest is; empty where nothing is missing."""
    facts: tuple[tuple[str, str], ...]
    """Card, stack, logs, how to repeat it."""
    files: tuple[tuple[str, str], ...] = ()
    """What was recorded of a red case: what a file is, and where, relative to run.json."""


@dataclass(frozen=True, kw_only=True, slots=True)
class MatrixCell:
    """One case of the matrix at a glance."""

    id: str
    mark: StatusMark
    says: str
    """Id, status and why, on one line."""
    anchor: str
    """Where the page has more about it; empty where it has not."""


@dataclass(frozen=True, kw_only=True, slots=True)
class MatrixRow:
    """The cases of one scheme; one tuple for each column."""

    scheme: str
    cells: tuple[tuple[MatrixCell, ...], ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class MatrixTable:
    """The cases of one pipeline on one platform."""

    pipeline: str
    platform: str
    columns: tuple[str, ...]
    rows: tuple[MatrixRow, ...]

    @property
    def title(self) -> str:
        """What it shows."""
        return f"{self.pipeline} on {self.platform}"

    @property
    def cells(self) -> tuple[MatrixCell, ...]:
        """All of them."""
        return tuple(cell for row in self.rows for cells in row.cells for cell in cells)

    @property
    def is_grey(self) -> bool:
        """Whether the run has none of its cases."""
        return all(cell.mark.kind is Kind.NEVER for cell in self.cells)


@dataclass(frozen=True, kw_only=True, slots=True)
class PageTable:
    """A plain table."""

    title: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Page:
    """A whole page."""

    title: str
    is_green: bool
    sentence: str
    """The one to act on."""
    counts: str
    """How many cases are green, and how many are not."""
    remarks: tuple[str, ...]
    """What must not go unsaid: verdicts that are missing, a session that was cut short, a fire drill."""
    causes: tuple[tuple[str, str], ...]
    """Why it is red, the worst first: in words, and the anchor of the worst case."""
    matrix: tuple[MatrixTable, ...]
    """Of pipelines that the run has a case of."""
    left_out: str
    """The other pipelines of the matrix, in words; empty where there is none."""
    unrecorded: tuple[tuple[str, str], ...]
    """Why rows of the matrix are grey: the reason, and how many rows it is true of."""
    legend: tuple[tuple[StatusMark, int], ...]
    """Each kind that the page shows, and how often."""
    pipelines: tuple[str, ...]
    """What the filter offers."""
    schemes: tuple[str, ...]
    cases: tuple[PageCase, ...]
    """The worst first."""
    tables: tuple[PageTable, ...]
    """Cards, versions, A/B, the session itself."""
