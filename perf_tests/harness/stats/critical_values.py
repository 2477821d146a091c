"""Critical values of a group-sequential test against a baseline mean, and bounds of simulated rates; numeric
integration, nothing random.

The change after k candidate processes, D_k = mean of k values - mean of the n values of the baseline, is
normal with variance sd^2 (1/k + 1/n), and Cov(D_j, D_k) = Var(D_max(j,k)): the baseline's error is common to
all looks. So S_k = I_k D_k / sd with the information I_k = k n / (k + n) has independent increments of
variance I_k - I_(k-1), and the probability of staying within bounds follows by one integral a look (Armitage,
McPherson and Rowe 1969; Jennison and Turnbull, Group Sequential Methods, chapter 19). The standard deviation
is an estimate with `dof` degrees of freedom: its error is integrated over, which for a single look gives
Student's t.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import cache
from itertools import pairwise

import numpy as np
from numpy.polynomial.legendre import leggauss
from numpy.typing import NDArray

Floats = NDArray[np.float64]

MIN_DOF = 4
"""Fewer degrees of freedom leave tails too long for the integration (and for any use)."""
LOWEST, HIGHEST = 4.0, 8.0
"""Standard deviations within which a path may still cross, of those that have not."""
LEAST_NODES, NODES_PER_STEP = 24, 0.8
"""Of the integral over one look."""
SD_NODES = 32
"""Twice as many of all nodes change no critical value by 1e-5 of it, from 20 degrees of freedom up."""
SD_REACH = 8.5
"""Standard deviations of the estimated one over which is integrated."""

ERFC = np.vectorize(math.erfc, otypes=[np.float64])


@cache
def change_limit(level: float, baseline_processes: float, looks: tuple[int, ...], dof: int) -> float:
    """How many estimated standard errors an unchanged mean exceeds at any of `looks` with probability
    `level`, on one given side.

    `looks` are numbers of candidate processes, ascending. `baseline_processes` need not be whole: 1 / it is
    the variance common to all looks, in units of the variance between processes.
    """
    information = tuple(k * baseline_processes / (k + baseline_processes) for k in looks)
    sds, weights = _sd_nodes(dof)
    return _solve(lambda limit: float(weights @ _crossing(limit * sds, information)), level)


@cache
def spread_limit(level: float, values: int, dof: int) -> float:
    """The ratio (variance of `values` processes / pooled variance) that is exceeded with probability
    `level` where both are of one kind: the upper quantile of F with `values - 1` and `dof` degrees."""
    sds, weights = _sd_nodes(dof)
    freedom = values - 1
    tail = np.vectorize(lambda chi2: _chi2_tail(chi2, freedom))
    return _solve(lambda ratio: float(weights @ tail(freedom * ratio * sds**2)), level)


def _sd_nodes(dof: int) -> tuple[Floats, Floats]:
    """Estimated / true standard deviation (sqrt of chi^2 / dof), and the probability of each node."""
    assert dof >= MIN_DOF, f"{dof} degrees of freedom"
    spread = SD_REACH / math.sqrt(2 * dof)
    nodes, weights = _scaled_nodes(SD_NODES, max(0.0, 1 - spread), np.array([1 + spread]))
    log_density = (dof - 1) * np.log(nodes[0]) - dof * nodes[0] ** 2 / 2
    mass = weights[0] * np.exp(log_density - log_density.max())
    return nodes[0], mass / mass.sum()


def _crossing(limits: Floats, information: Sequence[float]) -> Floats:
    """For each of `limits`: the probability that S_k / sqrt(I_k) exceeds it at any look k."""
    before, mass, reached = np.zeros((len(limits), 1)), np.ones((len(limits), 1)), 0.0
    crossed, count = np.zeros(len(limits)), _look_nodes(information)
    for now in information:
        sd, step_sd = math.sqrt(now), math.sqrt(now - reached)
        crossed += (mass * _tail((limits[:, None] * sd - before) / step_sd)).sum(axis=1)
        nodes, weights = _scaled_nodes(count, -LOWEST * sd, np.minimum(limits, HIGHEST) * sd)
        steps = (nodes[:, :, None] - before[:, None, :]) / step_sd
        mass = weights * (_density(steps, step_sd) @ mass[:, :, None])[:, :, 0]
        before, reached = nodes, now
    return crossed


def _look_nodes(information: Sequence[float]) -> int:
    """Enough nodes for the smallest step between two looks, whose density is the narrowest."""
    steps = (math.sqrt((now - before) / now) for before, now in pairwise(information))
    return max(LEAST_NODES, math.ceil(NODES_PER_STEP * (LOWEST + HIGHEST) / min(steps, default=1.0)))


def _density(steps: Floats, sd: float) -> Floats:
    """Of normal values with this standard deviation, `steps` of which they lie off; overwrites `steps`, since
    making further arrays of that size takes longer than filling them."""
    np.square(steps, out=steps)
    steps *= -0.5
    np.exp(steps, out=steps)
    steps /= sd * math.sqrt(2 * math.pi)
    return steps


def _tail(x: Floats) -> Floats:
    """The probability that a standard normal value exceeds `x`."""
    tails: Floats = 0.5 * ERFC(x / math.sqrt(2))
    return tails


def _scaled_nodes(count: int, low: float, highs: Floats) -> tuple[Floats, Floats]:
    """Gauss-Legendre nodes and weights on [low, high], a row for each of `highs`."""
    nodes, weights = _unit_nodes(count)
    halves = (highs[:, None] - low) / 2
    return low + halves * (nodes + 1), halves * weights


@cache
def _unit_nodes(count: int) -> tuple[Floats, Floats]:
    """Gauss-Legendre nodes and weights on [-1, 1]: eigenvalues, which take longer than one integration."""
    return leggauss(count)


def _chi2_tail(chi2: float, freedom: int) -> float:
    """The probability of more than `chi2` with `freedom` degrees: closed form, by steps of two degrees."""
    half = chi2 / 2
    first = freedom % 2
    tail = math.erfc(math.sqrt(half)) if first else 0.0
    for degrees in range(first, freedom, 2):
        shape = degrees / 2
        tail += half**shape * math.exp(-half) / math.gamma(shape + 1)
    return tail


def _solve(probability: Callable[[float], float], level: float) -> float:
    """Where a falling `probability` equals `level`, to 1e-6 of it: false position on logarithms, which are
    nearly straight, with Illinois' halving of an end that stays twice in a row."""
    low, high = 2.0, 4.0  # where most of them are
    at_low = _excess(probability(low), level)
    if at_low < 0:
        low, high, at_low = 0.0, 1.0, _excess(probability(0.0), level)
    at_high = _excess(probability(high), level)
    while at_high > 0:
        low, high = high, 2 * high
        at_low, at_high = at_high, _excess(probability(high), level)
    previous = 0.0
    for _ in range(100):
        middle = (low * at_high - high * at_low) / (at_high - at_low)
        at = _excess(probability(middle), level)
        if abs(at) < 1e-6:
            return middle
        if at > 0:
            low, at_low = middle, at
            at_high /= 2 if previous > 0 else 1
        else:
            high, at_high = middle, at
            at_low /= 2 if previous < 0 else 1
        previous = at
    raise AssertionError(f"no critical value for the level {level}")


def _excess(probability: float, level: float) -> float:
    return math.log(max(probability, 1e-30) / level)


# Rates of events


def at_most(count: int, trials: int, level: float = 0.05) -> float:
    """Upper bound of the rate behind `count` of `trials`, wrong with the probability `level` (Clopper and
    Pearson 1934): the rate with which so few or fewer have that probability."""
    if count >= trials:
        return 1.0
    # Terms further down than 12 standard deviations add nothing.
    lowest = max(0, count - 6 * math.isqrt(trials) - 100)
    seen = np.arange(lowest, count + 1)
    lost = trials - seen
    ways = np.array([_log_ways(int(each), trials) for each in seen])
    low, high = count / trials, 1.0
    while high - low > 1e-6 * high:
        rate = (low + high) / 2
        probability = np.exp(ways + seen * math.log(rate) + lost * math.log1p(-rate)).sum()
        low, high = (rate, high) if probability > level else (low, rate)
    return high


def at_least(count: int, trials: int, level: float = 0.05) -> float:
    """Lower bound of the rate behind `count` of `trials`, wrong with the probability `level`."""
    return 1.0 - at_most(trials - count, trials, level)


def _log_ways(count: int, trials: int) -> float:
    return math.lgamma(trials + 1) - math.lgamma(count + 1) - math.lgamma(trials - count + 1)
