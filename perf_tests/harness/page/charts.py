"""Numbers in, the geometry of a chart out: positions in a view box, which the template only writes down."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from perf_tests.harness.report.wording import format_value

WIDTH = 720
LEFT, RIGHT, TOP, BOTTOM = 84, 12, 14, 24
STEPS_HEIGHT, TREND_HEIGHT, BAR_HEIGHT = 170, 150, 26
MAX_DOTS = 1_500
"""Of one chart; of more steps than that, every second or third is drawn."""
LEAST_SPAN = 0.02
"""Of the values: a chart never makes less than 2 % fill its height, which would look like a change."""


@dataclass(frozen=True, slots=True)
class ChartBox:
    """A rectangle; its class names its colour."""

    x: float
    y: float
    width: float
    height: float
    style: str
    fill: str = ""
    """A colour, where the class names none."""


@dataclass(frozen=True, slots=True)
class ChartPath:
    """A stroke; of dots, each is a stroke of no length with a round end."""

    d: str
    style: str


@dataclass(frozen=True, slots=True)
class ChartLabel:
    """A short text."""

    x: float
    y: float
    text: str
    anchor: str = "start"


@dataclass(frozen=True, slots=True)
class ChartKey:
    """What a colour of the chart means."""

    fill: str
    text: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Chart:
    """A chart with a title that says in words what it shows."""

    title: str
    height: int
    boxes: tuple[ChartBox, ...] = ()
    paths: tuple[ChartPath, ...] = ()
    labels: tuple[ChartLabel, ...] = ()
    keys: tuple[ChartKey, ...] = ()
    width: int = WIDTH


@dataclass(frozen=True, kw_only=True, slots=True)
class Band:
    """What the values of a chart are held against."""

    low: float
    """Of the baseline's processes."""
    high: float
    limit: float | None
    """Beyond it the metric is red; None where it has no limit."""


@dataclass(frozen=True, slots=True)
class _Scale:
    """Maps values to heights, larger ones higher up."""

    low: float
    high: float
    height: int

    def y(self, value: float) -> float:
        share = (value - self.low) / (self.high - self.low)
        return round(TOP + (1 - share) * (self.height - TOP - BOTTOM), 1)


def steps(
    processes: Sequence[Sequence[float]], unit: str, band: Band | None, names: Sequence[str] = ()
) -> Chart | None:
    """Every timed step of each process as a dot, processes side by side; None without any step.

    `names` are those of the processes; without any, they are numbered.
    """
    every = [value for values in processes for value in values if math.isfinite(value)]
    if not every:
        return None
    scale = _scale([*every, *_marks_of(band)], STEPS_HEIGHT)
    stride = math.ceil(len(every) / MAX_DOTS)
    column = (WIDTH - LEFT - RIGHT) / len(processes)
    dots, labels, edges = [], [], []
    for number, values in enumerate(processes):
        name = names[number] if names else f"process {number + 1}"
        begins = LEFT + number * column
        shown = [value for value in values[::stride] if math.isfinite(value)]
        pitch = (column - 8) / max(1, len(shown))
        dots += [
            _dot(begins + 4 + (place + 0.5) * pitch, scale.y(value)) for place, value in enumerate(shown)
        ]
        labels.append(ChartLabel(round(begins + column / 2, 1), STEPS_HEIGHT - 6, name, "middle"))
        edges += [f"M{begins:.1f} {TOP}V{STEPS_HEIGHT - BOTTOM}"] if number else []
    left_out = f"; of {len(every)} steps, one in {stride} is drawn" if stride > 1 else ""
    title = (
        f"{len(every)} steps of {_counted(len(processes), 'process', 'processes')}: "
        f"{format_value(min(every), unit)} to {format_value(max(every), unit)}"
        f"{_held_against(band, unit)}{left_out}"
    )
    return Chart(
        title=title,
        height=STEPS_HEIGHT,
        boxes=_band_box(band, scale),
        paths=(
            *([ChartPath("".join(edges), "edge")] if edges else []),
            *_band_lines(band, scale),
            ChartPath("".join(dots), "dots"),
        ),
        labels=(*_axis(scale, unit), *labels, *_line_names(band, scale)),
    )


def trend(
    values: Sequence[float | None],
    red: Sequence[bool],
    changes: Mapping[int, str],
    unit: str,
    band: Band | None,
    first: str,
) -> Chart | None:
    """The value of each run in turn, oldest first; None where fewer than two runs have one.

    `red` says which runs were red; `changes` maps the number of a run to what changed in its stack since the
    run before; `first` is when the first was.
    """
    known = [value for value in values if value is not None and math.isfinite(value)]
    if len(known) < 2:
        return None
    scale = _scale([*known, *_marks_of(band)], TREND_HEIGHT)
    pitch = (WIDTH - LEFT - RIGHT) / len(values)
    xs = [LEFT + (place + 0.5) * pitch for place in range(len(values))]
    at = [(x, scale.y(v), bad) for x, v, bad in zip(xs, values, red, strict=True) if v is not None]
    ticks = "".join(f"M{xs[number]:.1f} {TOP}V{TREND_HEIGHT - BOTTOM}" for number in changes)
    moved = f"; the stack changed {_counted(len(changes), 'time', 'times')}" if changes else ""
    return Chart(
        title=f"{len(known)} runs: {format_value(known[0], unit)} at first, {format_value(known[-1], unit)} "
        f"now{_held_against(band, unit)}; {sum(red)} red{moved}",
        height=TREND_HEIGHT,
        boxes=_band_box(band, scale),
        paths=(
            *([ChartPath(ticks, "tick")] if ticks else []),
            *_band_lines(band, scale),
            ChartPath("".join(_dot(x, y) for x, y, bad in at if not bad), "dots"),
            ChartPath("".join(_triangle(x, y) for x, y, bad in at if bad), "triangles"),
        ),
        labels=(
            *_axis(scale, unit),
            *_line_names(band, scale),
            ChartLabel(LEFT, TREND_HEIGHT - 6, first),
            ChartLabel(WIDTH - RIGHT, TREND_HEIGHT - 6, "this run", "end"),
        ),
    )


def bar(parts: Mapping[str, float], unit: str, colours: Sequence[str]) -> Chart | None:
    """One bar of `parts` that add up to a whole; None where there is nothing to add."""
    total = math.fsum(parts.values())
    if total <= 0:
        return None
    boxes, keys, x = [], [], 0.0
    for number, (name, value) in enumerate(parts.items()):
        width, colour = WIDTH * value / total, colours[number % len(colours)]
        boxes.append(ChartBox(round(x, 1), 0, round(width, 1), BAR_HEIGHT, "part", colour))
        keys.append(ChartKey(colour, f"{name} {format_value(value, unit)}"))
        x += width
    named = ", ".join(f"{name} {format_value(value, unit)}" for name, value in parts.items())
    return Chart(
        title=f"{format_value(total, unit)}: {named}",
        height=BAR_HEIGHT,
        boxes=tuple(boxes),
        keys=tuple(keys),
    )


# Parts


def _scale(values: Sequence[float], height: int) -> _Scale:
    low, high = min(values), max(values)
    middle, span = (low + high) / 2, high - low
    half = max(span * 0.55, abs(middle) * LEAST_SPAN / 2, 1e-9)
    return _Scale(middle - half, middle + half, height)


def _marks_of(band: Band | None) -> list[float]:
    if band is None:
        return []
    return [each for each in (band.low, band.high, band.limit) if each is not None and math.isfinite(each)]


def _band_box(band: Band | None, scale: _Scale) -> tuple[ChartBox, ...]:
    if band is None:
        return ()
    top, bottom = scale.y(band.high), scale.y(band.low)
    return (ChartBox(LEFT, top, WIDTH - LEFT - RIGHT, max(2.0, round(bottom - top, 1)), "band"),)


def _band_lines(band: Band | None, scale: _Scale) -> tuple[ChartPath, ...]:
    if band is None:
        return ()
    middle = scale.y((band.low + band.high) / 2)
    lines = [ChartPath(f"M{LEFT} {middle}H{WIDTH - RIGHT}", "baseline")]
    if band.limit is not None and math.isfinite(band.limit):
        lines.append(ChartPath(f"M{LEFT} {scale.y(band.limit)}H{WIDTH - RIGHT}", "limit"))
    return tuple(lines)


def _line_names(band: Band | None, scale: _Scale) -> tuple[ChartLabel, ...]:
    """The names of the lines, each on the side where the other line is not."""
    if band is None:
        return ()
    middle = scale.y((band.low + band.high) / 2)
    if band.limit is None or not math.isfinite(band.limit):
        return (ChartLabel(WIDTH - RIGHT, middle - 4, "baseline", "end"),)
    limit = scale.y(band.limit)
    above, below = -4, 12
    return (
        ChartLabel(WIDTH - RIGHT, limit + (above if limit <= middle else below), "limit", "end"),
        ChartLabel(WIDTH - RIGHT, middle + (below if limit <= middle else above), "baseline", "end"),
    )


def _axis(scale: _Scale, unit: str) -> tuple[ChartLabel, ...]:
    return tuple(
        ChartLabel(LEFT - 6, scale.y(value) + 4, format_value(value, unit), "end")
        for value in (scale.high, (scale.low + scale.high) / 2, scale.low)
    )


def _held_against(band: Band | None, unit: str) -> str:
    if band is None:
        return "; there is no baseline"
    same = band.low == band.high
    said = (
        format_value(band.low, unit)
        if same
        else f"{format_value(band.low, unit)} to {format_value(band.high, unit)}"
    )
    limit = "" if band.limit is None else f", limit {format_value(band.limit, unit)}"
    return f"; baseline {said}{limit}"


def _dot(x: float, y: float) -> str:
    return f"M{x:.1f} {y:g}h0"


def _triangle(x: float, y: float) -> str:
    return f"M{x - 4:.1f} {y - 4:g}h8l-4 8z"


def _counted(number: int, one: str, many: str) -> str:
    return f"{number} {one if number == 1 else many}"
