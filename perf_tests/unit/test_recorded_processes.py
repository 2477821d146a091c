"""The rule on 24 fresh processes of one H100: what it says of unchanged code, and of 1.5 % more.

`data/flux1-dev-slim-h100.json` holds every steady step of every timed generation, recorded in one session.
"""

from __future__ import annotations

import json
import random
from collections import Counter
from pathlib import Path

import pytest

from perf_tests.harness import stats
from perf_tests.harness.decision import Rule, decide, metric_level
from perf_tests.harness.records import Status
from perf_tests.tables.metrics import METRICS
from perf_tests.tables.platforms import Device, Noise

RECORDED = json.loads((Path(__file__).parent / "data" / "flux1-dev-slim-h100.json").read_text())
STEP_MS = tuple(
    stats.trimmed_mean([step for image in process["denoise_step_ms"] for step in image])
    for process in RECORDED["processes"]
)
SPLITS, BASELINE, MOST = 2000, 5, 5
NOISE = Noise(sd_pct=0.297, dof=16)
"""Of the platform, pooled over baselines that were recorded on other cards."""
METRIC = next(metric for metric in METRICS if metric.name == "denoise_step_ms")


def rule(noisy_metrics: int) -> Rule:
    gate = METRIC.gates[Device.CUDA]
    assert gate.surprise is not None
    return Rule(
        noise=NOISE,
        level=metric_level(noisy_metrics),
        baseline_processes=BASELINE,
        max_processes=MOST,
        tolerance_pct=gate.tolerance.relative_pct,
        surprise_pct=gate.surprise.relative_pct,
    )


def outcome(rule: Rule, baseline: list[float], candidates: list[float]) -> tuple[Status, int]:
    """What a run ends with that takes the candidates one by one, and after how many of them."""
    for count in range(1, MOST + 1):
        decided = decide(rule, baseline, candidates[:count], METRIC.better)
        if decided.status is not None:
            return decided.status, count
    raise AssertionError("the last look decides")


def outcomes(noisy_metrics: int, factor: float) -> tuple[Counter[Status], Counter[int]]:
    rng, asked = random.Random(0), rule(noisy_metrics)
    statuses: Counter[Status] = Counter()
    looks: Counter[int] = Counter()
    for _ in range(SPLITS):
        drawn = rng.sample(STEP_MS, BASELINE + MOST)
        candidates = [factor * value for value in drawn[BASELINE:]]
        status, count = outcome(asked, drawn[:BASELINE], candidates)
        statuses[status] += 1
        looks[count] += 1
    return statuses, looks


def test_there_are_24_processes_of_the_slim_workload() -> None:
    assert RECORDED["case"] == "flux1-dev-slim-b1-bf16-eager"
    assert len(STEP_MS) == 24
    assert all(len(process["denoise_step_ms"]) >= 3 for process in RECORDED["processes"])
    assert {len(image) for process in RECORDED["processes"] for image in process["denoise_step_ms"]} == {27}


def test_their_statistics_lie_a_sixth_of_a_percent_apart() -> None:
    assert stats.geometric_mean(STEP_MS) == pytest.approx(19.299, abs=0.005)
    assert 100 * stats.log_variance(STEP_MS) ** 0.5 == pytest.approx(0.17, abs=0.02)


@pytest.mark.parametrize("noisy_metrics", [2, 60, 186])
def test_as_recorded_at_most_one_split_in_a_hundred_is_red(noisy_metrics: int) -> None:
    statuses, looks = outcomes(noisy_metrics, 1.0)

    assert SPLITS - statuses[Status.PASS] - statuses[Status.IMPROVED] <= 20
    assert looks[1] >= 1900  # a quiet night costs one process


@pytest.mark.parametrize("noisy_metrics", [2, 60, 186])
def test_with_one_and_a_half_percent_more_19_of_20_splits_are_regressed(noisy_metrics: int) -> None:
    statuses, _ = outcomes(noisy_metrics, 1.015)

    assert statuses[Status.REGRESSED] >= 1900
