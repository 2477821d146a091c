"""Which nights are a series, since when it is red, and how often a drift is seen, or cried."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from perf_tests.harness.history import series
from perf_tests.harness.history.files import StoredNight
from perf_tests.harness.history.night import NightHeader, NightRow
from perf_tests.harness.history.series import NightSeries, cusum, drift, since_when

STEP = "denoise_step_ms"
SD_PCT = 0.36


def night(
    number: int, status: str = "PASS", *, metric: str = STEP, why_not: str = "", **row: object
) -> StoredNight:
    fields = {"digest": "d", "value": 100.0, "processes": 1, "card": "one", **row}
    return StoredNight(
        night=NightHeader(
            format_version=1,
            night=f"2026-11-{number:02}",
            run="1",
            platform="h100",
            methodology=1,
            packages={},
            counts=not why_not,
            why_not=why_not,
        ),
        rows=(NightRow(case="a", metric=metric, status=status, **fields),),  # type: ignore[arg-type]  # of any row
    )


def of(*nights: StoredNight, metric: str = STEP) -> NightSeries:
    return series.series(nights, "a", metric)


def days(found: Sequence[object]) -> list[str]:
    return [each.night.night[-2:] for each in found]  # type: ignore[attr-defined]  # points and gaps alike


# Which nights compare


def test_times_of_another_card_or_case_are_gaps_with_a_reason() -> None:
    found = of(
        night(1, card="two"), night(2, digest="other"), night(3), night(4, why_not="a fire drill"), night(5)
    )
    assert days(found.points) == ["03", "05"]
    assert [gap.why for gap in found.gaps] == [
        "it is of another card: two, now one",
        "it is another case: digest other, now d",
        "the night does not count: a fire drill",
    ]


def test_what_is_the_same_on_every_card_is_one_series() -> None:
    nights = (night(1, metric="weight_bytes", card="two"), night(2, metric="weight_bytes"))
    assert days(of(*nights, metric="weight_bytes").points) == ["01", "02"]


def test_a_night_without_the_metric_is_a_gap() -> None:
    found = of(night(1, metric="decode_ms"), night(2))
    assert (days(found.points), found.gaps[0].why) == (["02"], "it was not measured")


def test_a_metric_that_nobody_measured_has_no_points() -> None:
    assert of(night(1, metric="decode_ms")).points == ()


# Since when


@pytest.mark.parametrize(
    ("statuses", "answer"),
    [
        ("PASS REGRESSED REGRESSED", ("01", "02", 2)),
        ("REGRESSED PASS REGRESSED", ("02", "03", 1)),
        ("REGRESSED REGRESSED", (None, "01", 2)),
        ("PASS REGRESSED INVALID REGRESSED NO_BASELINE", ("01", "02", 2)),
        ("PASS ACKNOWLEDGED", ("01", "02", 1)),
        ("PASS ERROR(crash) ERROR(oom)", ("01", "02", 2)),
        ("REGRESSED PASS", None),
        ("INVALID", None),
    ],
)
def test_since_when_a_metric_is_red(statuses: str, answer: tuple[str | None, str, int] | None) -> None:
    found = since_when(of(*(night(n, each) for n, each in enumerate(statuses.split(), start=1))))
    if found is None:
        assert answer is None
    else:
        green = found.last_green.night[-2:] if found.last_green else None
        assert (green, found.first_red.night[-2:], found.nights) == answer


def test_a_night_that_was_run_again_is_one_red_night() -> None:
    found = since_when(of(night(1), night(2, "REGRESSED"), night(2, "REGRESSED")))
    assert found is not None
    assert found.nights == 1


# Drifts


def test_a_drift_is_dated() -> None:
    values = [100.0] * 18 + [100.0 + 0.3 * step for step in range(1, 11)]
    found = drift(of(*(night(n, value=each) for n, each in enumerate(values, start=1))), SD_PCT)
    assert found is not None
    assert found.since.night in ("2026-11-20", "2026-11-21")
    assert found.noticed.night <= "2026-11-25"
    assert found.change_pct == pytest.approx(2.7, abs=0.1)


def test_a_step_for_the_better_is_no_drift() -> None:
    values = [100.0] * 18 + [98.0] * 10
    assert drift(of(*(night(n, value=each) for n, each in enumerate(values, start=1))), SD_PCT) is None


def test_a_speedup_drifts_downwards() -> None:
    values = [2.0] * 16 + [1.9] * 6
    metric = "speedup_vs_bf16"
    nights = (night(n, value=each, metric=metric) for n, each in enumerate(values, start=1))
    found = drift(of(*nights, metric=metric), SD_PCT)
    assert found is not None
    assert found.change_pct == pytest.approx(-5.0)


def test_one_disturbed_night_is_no_drift() -> None:
    values = [100.0] * 18 + [150.0] + [100.0] * 5
    assert drift(of(*(night(n, value=each) for n, each in enumerate(values, start=1))), SD_PCT) is None


def test_too_few_nights_and_counts_do_not_drift() -> None:
    assert drift(of(*(night(n, value=100.0 + n) for n in range(1, 16))), SD_PCT) is None
    counts = (night(n, value=1.0 + n, metric="weight_bytes") for n in range(1, 25))
    assert drift(of(*counts, metric="weight_bytes"), SD_PCT) is None
    assert drift(of(), SD_PCT) is None


def noticed(rng: np.random.Generator, nights: int, drift_pct: float, onset: int) -> int | None:
    """The night, from 0, in which a series of so many is said to drift."""
    ramp = np.maximum(0, np.arange(nights) - onset + 1) * drift_pct
    found = cusum(list((ramp + SD_PCT * rng.standard_normal(nights)) / 100), [SD_PCT / 100] * nights)
    return found[1] if found else None


def test_a_drift_of_a_tenth_of_a_percent_a_night_is_seen_within_14_nights_in_95_of_100() -> None:
    rng, onset, tries = np.random.default_rng(20261127), 20, 1000
    found = [noticed(rng, 60, 0.1, onset) for _ in range(tries)]
    assert sum(each is not None and onset <= each < onset + 14 for each in found) / tries >= 0.95


def test_208_rows_over_60_quiet_nights_warn_in_5_of_100_at_most() -> None:
    rng, rows = np.random.default_rng(20261127), 208
    sessions = 40
    red = sum(any(noticed(rng, 60, 0.0, 60) is not None for _ in range(rows)) for _ in range(sessions))
    assert red / sessions <= 0.05
