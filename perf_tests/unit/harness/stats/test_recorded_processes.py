"""The rule on 24 fresh processes of one H100: what it says of unchanged code, and of 1.5 % more.

`data/flux1-dev-slim-h100.json` holds every steady step and decode of every timed generation, in ms, recorded
in one session on one card. The processes lie closer together than the platform's: that the level of the rule
is right is shown by simulation (`test_simulation.py`), not here.
"""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from perf_tests.harness.runs.record import Process, Status
from perf_tests.harness.stats import location, observations
from perf_tests.harness.stats.sequential_bounds import SequentialTest, decide, metric_level
from perf_tests.tables.pipelines.flux import FLUX1_DEV_SLIM
from perf_tests.tables.platforms import H100, Device, Noise
from perf_tests.unit.builders import make_case, make_process, make_run, make_sample, metric_named

FILE = Path(__file__).parents[2] / "data" / "flux1-dev-slim-h100.json"
SPLITS, BASELINE, MOST = 2000, 5, 5
NOISE = {
    "denoise_step_ms": Noise(sd_pct=0.297, dof=16),
    "decode_ms": Noise(sd_pct=0.4195, dof=16),
}
"""Of the platform, as committed in `baselines/h100/noise.json` when this was recorded. No process of the
recording is among those it was pooled from."""


@cache
def recorded() -> Any:
    return json.loads(FILE.read_text(encoding="utf-8"))


def read_process(generations: dict[str, list[Any]]) -> Process:
    """The process with one sample for each of its generations, as its worker reported them."""
    pairs = zip(generations["denoise_step_ms"], generations["decode_ms"], strict=True)
    return make_process(
        samples=tuple(
            make_sample({"denoise_step_ms": steps_ms, "decode_ms": (decode_ms,)})
            for steps_ms, decode_ms in pairs
        )
    )


@cache
def statistics_ms(name: str) -> tuple[float, ...]:
    """What the harness makes of the metric `name` of each process."""
    run = make_run(
        make_case(FLUX1_DEV_SLIM), H100, processes=tuple(map(read_process, recorded()["processes"]))
    )
    return observations.observe(metric_named(name), run, None).values


def make_test(name: str, noisy_metrics: int) -> SequentialTest:
    gate = metric_named(name).gates[Device.CUDA]
    assert gate.surprise is not None
    return SequentialTest(
        noise=NOISE[name],
        level=metric_level(noisy_metrics),
        baseline_processes=BASELINE,
        max_processes=MOST,
        tolerance_pct=gate.tolerance.relative_pct,
        surprise_pct=gate.surprise.relative_pct,
    )


def outcome(
    name: str, test: SequentialTest, baseline: Sequence[float], candidates: Sequence[float]
) -> tuple[Status, int]:
    """What a run ends with that takes the candidates one by one, and after how many of them."""
    for count in range(1, MOST + 1):
        decided = decide(test, baseline, candidates[:count], metric_named(name).better)
        if decided.status is not None:
            return decided.status, count
    raise AssertionError("the last look decides")


def outcomes(name: str, noisy_metrics: int, *, factor: float) -> tuple[Counter[Status], Counter[int]]:
    """Of all splits: how many ended with which status, and how many after how many candidates."""
    rng, test = random.Random(0), make_test(name, noisy_metrics)
    statuses: Counter[Status] = Counter()
    looks: Counter[int] = Counter()
    for _ in range(SPLITS):
        drawn = rng.sample(statistics_ms(name), BASELINE + MOST)
        candidates = [factor * value for value in drawn[BASELINE:]]
        status, count = outcome(name, test, drawn[:BASELINE], candidates)
        statuses[status] += 1
        looks[count] += 1
    return statuses, looks


def test_there_are_24_processes_of_the_slim_workload() -> None:
    processes = recorded()["processes"]
    assert recorded()["case"] == "flux1-dev-slim-b1-bf16-eager"
    assert len(processes) == 24
    assert {len(process["denoise_step_ms"]) for process in processes} == {3}
    assert {len(steps) for process in processes for steps in process["denoise_step_ms"]} == {27}


@pytest.mark.parametrize(
    ("name", "typical_ms", "sd_pct"), [("denoise_step_ms", 19.300, 0.175), ("decode_ms", 91.237, 0.100)]
)
def test_processes_lie_closer_together_than_those_of_the_platform(
    name: str, typical_ms: float, sd_pct: float
) -> None:
    values = statistics_ms(name)
    assert location.geometric_mean(values) == pytest.approx(typical_ms, abs=0.005)
    assert 100 * location.log_variance(values) ** 0.5 == pytest.approx(sd_pct, abs=0.001)


@pytest.mark.parametrize("noisy_metrics", [2, 60, 186])
@pytest.mark.parametrize("name", ["denoise_step_ms", "decode_ms"])
def test_as_recorded_at_most_one_split_in_a_hundred_is_red(name: str, noisy_metrics: int) -> None:
    statuses, looks = outcomes(name, noisy_metrics, factor=1.0)

    assert statuses[Status.REGRESSED] + statuses[Status.SURPRISE] + statuses[Status.INCONCLUSIVE] <= 20
    assert statuses[Status.INCONCLUSIVE] <= 2
    assert statuses[Status.PASS] >= 1980
    assert looks[1] >= 1900  # unchanged code costs one process


@pytest.mark.parametrize("noisy_metrics", [2, 60, 186])
def test_with_one_and_a_half_percent_more_19_of_20_splits_are_regressed(noisy_metrics: int) -> None:
    statuses, _ = outcomes("denoise_step_ms", noisy_metrics, factor=1.015)

    assert statuses[Status.REGRESSED] >= 1900
    assert statuses[Status.INCONCLUSIVE] <= 2
