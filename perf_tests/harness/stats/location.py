"""Location and spread of positive values: what stands for a process, how far processes lie apart; pure."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence

from perf_tests.tables.platforms import Noise

TRIMMED = 0.1
"""The share of the values that a trimmed mean leaves out at each end."""
TRIMMED_ERROR = 1.03
"""Standard error of a trimmed mean over that of a mean, of normal values."""
MAD_TO_SD = 1.4826
"""Standard deviations in a median absolute deviation of normal values."""


def trimmed_mean(values: Sequence[float]) -> float:
    """The mean without the tenth of the values at each end, rounded up, as long as one or two remain.

    The statistic of a process: as a median it withstands host stalls, single steps of several times the
    others' time, and its variance is 1.06 times that of a mean of undisturbed steps, a median's 1.57. Of
    three or four values it is the median.
    """
    ordered = sorted(values)
    left_out = min(math.ceil(TRIMMED * len(ordered)), (len(ordered) - 1) // 2)
    return statistics.fmean(ordered[left_out : len(ordered) - left_out])


def log_mean(values: Sequence[float]) -> float:
    """The mean of the logarithms, in any order; ValueError for a value that is not positive."""
    for value in values:
        if not (math.isfinite(value) and value > 0):
            raise ValueError(f"{value} has no relative change: a noisy metric is a positive number")
    return math.fsum(map(math.log, values)) / len(values)


def geometric_mean(values: Sequence[float]) -> float:
    """The value whose logarithm is their `log_mean`; ValueError for a value that is not positive."""
    # One value, or several that are the same, exactly: not what exp(log(value)) makes of it.
    return values[0] if len(set(values)) == 1 else math.exp(log_mean(values))


def log_variance(values: Sequence[float]) -> float:
    """The sample variance of the logarithms of two or more positive values, in any order."""
    mean = log_mean(values)
    return math.fsum((math.log(value) - mean) ** 2 for value in values) / (len(values) - 1)


def pooled_noise(groups: Iterable[Sequence[float]], prior: Noise) -> Noise:
    """The noise that the `groups` share, each the processes of one case: sum of squares over sum of degrees.

    `prior` counts as one more group: what the platform is known for before it has baselines. A group of one
    process tells nothing.
    """
    degrees, squares = prior.dof, prior.dof * prior.sd_pct**2
    for values in groups:
        if len(values) > 1:
            degrees += len(values) - 1
            squares += (len(values) - 1) * log_variance(values) * 100.0**2
    return Noise(sd_pct=math.sqrt(squares / degrees), dof=degrees)
