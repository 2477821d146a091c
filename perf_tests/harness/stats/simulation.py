"""Seeded noise models and the rates of the gates on them; vectorised over many metrics, for tests and tables.

A process is simulated step by step once, with its stalls and drift, for a library of processes; a metric
draws its processes from the library and adds what is the process's own: its effect, its mode, its throttling.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import reduce

import numpy as np
from numpy.typing import NDArray

from perf_tests.harness.runs.record import Status
from perf_tests.harness.stats.location import TRIMMED
from perf_tests.harness.stats.sequential_bounds import SequentialTest, baseline_spread_limit

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]

CHUNK = 100_000
"""Metrics at a time: what bounds the memory."""
STATUSES = (Status.PASS, Status.IMPROVED, Status.SURPRISE, Status.REGRESSED, Status.INCONCLUSIVE)
RED = (Status.SURPRISE, Status.REGRESSED, Status.INCONCLUSIVE)
MEAN_PCT, SINGLE_PCT = 5.0, 25.0
"""The gates of others: `--benchmark-compare-fail=mean:5%`, and one request against one stored one."""


@dataclass(frozen=True, kw_only=True, slots=True)
class NoiseModel:
    """How times vary. The first four as measured on an H100; what is 0 does not happen."""

    process_sd_pct: float = 0.36
    step_sd_pct: float = 2.0
    stalled_share: float = 0.04
    """Of the images."""
    stall_pct: tuple[float, float] = (10.0, 30.0)
    """Least and most that a stall costs, in percent of an image, in one step or in two."""
    steps: int = 25
    """Steady steps of an image."""
    images: int = 7
    """Images of a process."""
    drift_pct: float = 0.0
    """From the first to the last step of every process."""
    modes_pct: float = 0.0
    """Between the two equally frequent kinds of process: kernels which autotuning chose differently."""
    throttled_share: float = 0.0
    """Of the processes."""
    throttled_pct: float = 0.0
    card_sd_pct: float = 0.0
    """Between cards: 0 where the baseline is of the same one."""


NOISE_MODELS = {
    "clean": NoiseModel(process_sd_pct=0.0, stalled_share=0.0),
    "process effects": NoiseModel(stalled_share=0.0),
    "stalls": NoiseModel(),
    "drift": NoiseModel(drift_pct=2.0),
    "bimodal": NoiseModel(modes_pct=2.0),
    "throttled": NoiseModel(throttled_share=0.02, throttled_pct=10.0),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Library:
    """Processes without their own effects, each in units of an undisturbed step or image."""

    log_step: Floats
    """log of the trimmed mean of the steps, which is the statistic of a process."""
    mean_image: Floats
    """Mean over the images of a process."""
    image: Floats
    """One image of each process."""


def library(model: NoiseModel, processes: int, rng: np.random.Generator) -> Library:
    """So many processes of `model`, simulated step by step."""
    steps = 1 + model.step_sd_pct / 100 * rng.standard_normal((processes, model.images, model.steps))
    ramp = np.linspace(0.0, model.drift_pct / 100, model.images * model.steps)
    steps += ramp.reshape(1, model.images, model.steps) + _stalls(model, steps.shape, rng)
    images = steps.mean(axis=2)
    flat = np.sort(steps.reshape(processes, -1), axis=1)
    return Library(
        log_step=np.log(_trimmed(flat).mean(axis=1)), mean_image=images.mean(axis=1), image=images[:, 0]
    )


def _trimmed(ordered: Floats) -> Floats:
    count = ordered.shape[1]
    left_out = min(math.ceil(TRIMMED * count), (count - 1) // 2)
    return ordered[:, left_out : count - left_out]


def _stalls(model: NoiseModel, shape: tuple[int, ...], rng: np.random.Generator) -> Floats:
    """What the stalls add, in steps: all of a stall to one step, or parts of it to two."""
    processes, images, steps = shape
    low, high = model.stall_pct
    stalled = rng.random((processes, images)) < model.stalled_share
    cost = stalled * rng.uniform(low, high, (processes, images)) / 100 * steps
    part = np.where(rng.random((processes, images)) < 0.5, 1.0, rng.random((processes, images)))
    added = np.zeros((processes * images, steps))
    rows = np.arange(processes * images)
    for share in (part, 1 - part):
        np.add.at(added, (rows, rng.integers(steps, size=rows.size)), (cost * share).ravel())
    return added.reshape(shape)


def statistic_sd_pct(model: NoiseModel, of: Library) -> float:
    """The true standard deviation between processes of their statistic: what a platform's pooled one
    estimates."""
    throttled = model.throttled_share * (1 - model.throttled_share) * model.throttled_pct**2
    own = model.process_sd_pct**2 + (model.modes_pct / 2) ** 2 + throttled
    return math.sqrt(own + (100 * float(of.log_step.std())) ** 2)


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcomes:
    """One entry a metric."""

    status: NDArray[np.int8]
    """Index into `STATUSES`."""
    processes: NDArray[np.int8]
    """Candidate processes that were asked for."""

    def are(self, *statuses: Status) -> Flags:
        """Which metrics ended as one of `statuses`."""
        return np.isin(self.status, [STATUSES.index(each) for each in statuses])


def outcomes(
    test: SequentialTest,
    scale: Floats,
    baseline: Floats,
    candidates: Floats,
    card_scale: Floats | None = None,
) -> Outcomes:
    """`decide` on many metrics at once, look by look: rows are metrics, columns the log times of processes.

    `scale` is what each metric's platform believes its noise is, over `test.noise.sd_pct`; `card_scale` the
    same of `test.between`, 1 where it is left out.
    """
    of_cards = np.ones(len(candidates)) if card_scale is None else card_scale
    undecided = -1
    status = np.full(len(candidates), undecided, dtype=np.int8)
    processes = np.zeros(len(candidates), dtype=np.int8)
    for look in range(1, test.max_processes + 1):
        rows = np.flatnonzero(status == undecided)
        seen = candidates[rows, :look]
        change = seen.mean(axis=1) - baseline[rows].mean(axis=1)
        spread = seen.var(axis=1, ddof=1) if look > 1 else np.zeros(len(rows))
        kinds = _kinds(test, look, (scale[rows], of_cards[rows]), change, spread)
        indexes = [STATUSES.index(status) for status in kinds]
        status[rows] = np.select(list(kinds.values()), indexes, undecided)
        processes[rows] = look
    return Outcomes(status=status, processes=processes)


def _kinds(
    test: SequentialTest, look: int, scales: tuple[Floats, Floats], change: Floats, spread: Floats
) -> dict[Status, Flags]:
    """Which metrics are what after `look` processes: the first that applies counts, none is one more."""
    last, confirmed = test.max_processes, look >= test.confirmed
    scale, of_cards = scales
    error, last_error = (
        np.hypot(scale * test.process_error(each), of_cards * test.card_error) for each in (look, last)
    )
    tolerance, explained = _log(test.tolerance_pct), _log(test.surprise_pct)
    limit = np.maximum(tolerance, test.regressed_limit * error)
    surprise = np.maximum(explained, test.surprise_limit * error)
    theta = np.maximum(tolerance, test.regressed_limit * last_error) + test.missed_limit * last_error
    passed = (change < theta - test.missed_limit * error) | (look == last)
    return {
        Status.INCONCLUSIVE: spread > test.spread_limit(look) * (scale * test.noise.sd_pct / 100) ** 2,
        Status.REGRESSED: confirmed & (change > limit),
        Status.SURPRISE: confirmed & (change < -np.maximum(limit, surprise)),
        Status.IMPROVED: confirmed & (change < -limit),
        Status.PASS: (np.abs(change) <= limit) & passed,
    }


def _log(pct: float | None) -> float:
    return math.inf if pct is None else math.log1p(pct / 100)


@dataclass(frozen=True, kw_only=True, slots=True)
class Tally:
    """What the gates said of some simulated metrics."""

    metrics: int
    """Metrics whose baseline was accepted."""
    refused: int
    """Baselines whose processes scatter too much."""
    statuses: dict[Status, int]
    """How many metrics this suite gave each status."""
    red_runs: int
    """Runs with any red metric, of all runs."""
    regressed_by_look: tuple[int, ...]
    """Metrics that were REGRESSED with so many processes or fewer, from 1."""
    processes: int
    """Candidate processes of all metrics together."""
    mean_gate: int
    """Failures of `--benchmark-compare-fail=mean:5%`: the mean image of a process against another one's."""
    single_gate: int
    """Images that took 25 % longer than another one."""

    @property
    def red(self) -> int:
        """Metrics that would have turned the run red."""
        return sum(self.statuses[status] for status in RED)


def tally(
    model: NoiseModel,
    test: SequentialTest,
    *,
    effect_pct: float,
    runs: int,
    metrics: int,
    processes: int,
    seed: int,
) -> Tally:
    """So many runs of so many metrics of `model`, each `effect_pct` slower than its baseline.

    The metrics of a run share the estimate of the noise between processes: `test.noise.sd_pct` in the mean of
    squares, with the test's degrees of freedom. `processes` is the size of the library they are drawn from.
    """
    rng = np.random.default_rng(seed)
    of = library(model, processes, rng)
    step = max(1, CHUNK // metrics)
    sizes = [min(step, runs - start) for start in range(0, runs, step)]
    return reduce(_added, (_tally(model, test, of, effect_pct, (size, metrics), rng) for size in sizes))


def _tally(
    model: NoiseModel,
    test: SequentialTest,
    of: Library,
    effect_pct: float,
    shape: tuple[int, int],
    rng: np.random.Generator,
) -> Tally:
    (runs, metrics), before = shape, test.baseline_processes
    rows = (runs * metrics, before + test.max_processes)
    drawn, own = rng.integers(len(of.log_step), size=rows), _own(model, rows, rng)
    own[:, before:] += math.log1p(effect_pct / 100)
    card_scale = None
    if test.between is not None:
        # All metrics of a run are measured on the same two cards, and judged by the same estimate.
        shift = math.sqrt(2) * model.card_sd_pct / 100 * rng.standard_normal(runs)
        own[:, before:] += np.repeat(shift, metrics)[:, None]
        card_dof = test.between.dof
        card_scale = np.repeat(np.sqrt(rng.chisquare(card_dof, runs) / card_dof), metrics)
    times = own + of.log_step[drawn]
    scale = np.repeat(np.sqrt(rng.chisquare(test.noise.dof, runs) / test.noise.dof), metrics)
    accepted = _accepted(test, scale, times[:, :before])
    ours = outcomes(test, scale, times[:, :before], times[:, before:], card_scale)
    mean_image, image = (each[drawn[:, [0, before]]] for each in (of.mean_image, of.image))
    slower = np.exp(own[:, before] - own[:, 0])
    regressed = ours.processes[accepted & ours.are(Status.REGRESSED)]
    return Tally(
        metrics=int(accepted.sum()),
        refused=int((~accepted).sum()),
        statuses={status: int((accepted & ours.are(status)).sum()) for status in STATUSES},
        red_runs=int((accepted & ours.are(*RED)).reshape(shape).any(axis=1).sum()),
        regressed_by_look=tuple(int((regressed <= k + 1).sum()) for k in range(test.max_processes)),
        processes=int(ours.processes[accepted].sum()),
        mean_gate=int((accepted & (slower * _ratio(mean_image) > 1 + MEAN_PCT / 100)).sum()),
        single_gate=int((accepted & (slower * _ratio(image) > 1 + SINGLE_PCT / 100)).sum()),
    )


def _ratio(pairs: Floats) -> Floats:
    return pairs[:, 1] / pairs[:, 0]


def _accepted(test: SequentialTest, scale: Floats, baseline: Floats) -> Flags:
    """Which baselines `excess_spread` would accept."""
    processes = baseline.shape[1]
    if processes == 1:
        return np.ones(len(baseline), dtype=np.bool_)
    limit = baseline_spread_limit(test.noise, processes)
    variance: Floats = baseline.var(axis=1, ddof=1)
    return variance <= limit * (scale * test.noise.sd_pct / 100) ** 2


def _own(model: NoiseModel, shape: tuple[int, int], rng: np.random.Generator) -> Floats:
    """Log of the factor by which a process is slower as a whole."""
    own = model.process_sd_pct / 100 * rng.standard_normal(shape)
    if model.modes_pct:
        own += math.log1p(model.modes_pct / 100) * (rng.integers(2, size=shape) - 0.5)
    if model.throttled_share:
        own += math.log1p(model.throttled_pct / 100) * (rng.random(shape) < model.throttled_share)
    return own


def _added(one: Tally, other: Tally) -> Tally:
    return Tally(
        metrics=one.metrics + other.metrics,
        refused=one.refused + other.refused,
        statuses={status: count + other.statuses[status] for status, count in one.statuses.items()},
        red_runs=one.red_runs + other.red_runs,
        regressed_by_look=tuple(
            a + b for a, b in zip(one.regressed_by_look, other.regressed_by_look, strict=True)
        ),
        processes=one.processes + other.processes,
        mean_gate=one.mean_gate + other.mean_gate,
        single_gate=one.single_gate + other.single_gate,
    )
