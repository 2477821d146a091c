"""How often each gate cries wolf, and what it misses: simulated, as Markdown.

    python tools/power.py [--metrics 60 186] [--effect 1.5 3] [--baseline-processes 5] [--max-processes 5] ...
    python tools/power.py --card-sd-pct 0.82 --effect 3 6 10        the baseline is of another card

Needs no GPU and no run. The same settings give the same table. The gates are this suite's rule,
`pytest --benchmark-compare-fail=mean:5%` (the mean image of one process against a stored one) and a gate on a
single request at 25 %; all three see the same processes.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Callable, Sequence
from operator import attrgetter
from pathlib import Path

import numpy as np

# The checkout's own package, also where it is not installed: `python tools/x.py` looks in tools/ only.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from perf_tests.harness.runs.record import Status
from perf_tests.harness.stats.critical_values import MIN_DOF, at_least, at_most
from perf_tests.harness.stats.sequential_bounds import SequentialTest, metric_level
from perf_tests.harness.stats.simulation import (
    MEAN_PCT,
    NOISE_MODELS,
    SINGLE_PCT,
    NoiseModel,
    Tally,
    library,
    statistic_sd_pct,
    tally,
)
from perf_tests.tables.platforms import Noise

DETECTION_SHARE = 10
"""A rate near 1 needs fewer metrics than a false alarm rate near 0: this many times fewer."""
LIBRARY = 50_000
"""Processes simulated step by step."""
NOISY_METRICS_OF_A_CASE = 3
"""At most: two times and the speed-up."""
EARLY = 3
"""Candidate processes after which detections are counted, too."""

RIVALS: dict[str, Callable[[Tally], int]] = {
    f"`--benchmark-compare-fail=mean:{MEAN_PCT:g}%`": attrgetter("mean_gate"),
    f"one request, {SINGLE_PCT:g} %": attrgetter("single_gate"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Print the tables; always 0."""
    options = _parser().parse_args(argv)
    model = _model(options)
    rng = np.random.default_rng(options.seed)
    sd_pct = statistic_sd_pct(model, library(model, LIBRARY, rng))
    print(
        f"Noise: {options.model}, process sd {model.process_sd_pct:g} %, step sd {model.step_sd_pct:g} %, "
        f"{model.images} images of {model.steps} steps a process: the statistic of a process has an sd of "
        f"{sd_pct:.3f} %. Baseline {options.baseline_processes} processes, candidates up to "
        f"{options.max_processes}, tolerance {options.tolerance_pct:g} %."
    )
    for metrics in options.metrics:
        test = _test(options, sd_pct, metrics)
        tallies = {effect: _tally(options, model, test, metrics, effect) for effect in (0.0, *options.effect)}
        print("\n" + "\n".join(_lines(test, metrics, tallies)))
    return 0


def _lines(test: SequentialTest, metrics: int, tallies: dict[float, Tally]) -> list[str]:
    quiet = tallies[0.0]
    effects = [effect for effect in tallies if effect]
    heads = [
        "gate",
        "red, a metric",
        f"red, a run of {metrics}",
        *(f"misses +{each:g} %" for each in effects),
    ]
    return [
        f"**{metrics} noisy metrics**: level {test.level * 100:.4f} % a metric, "
        f"{test.noise.dof} degrees of freedom of the sd; the smallest detectable change is "
        f"{test.detectable_pct:.2f} %.",
        "",
        _row(heads),
        _row(["---"] * len(heads)),
        _row(["this suite", *_reds(quiet, metrics), *(_missed(tallies[each]) for each in effects)]),
        *(
            _row(
                _rival(
                    name, {effect: fails(each) / each.metrics for effect, each in tallies.items()}, metrics
                )
            )
            for name, fails in RIVALS.items()
        ),
        "",
        *(_details(effect, each) for effect, each in tallies.items()),
    ]


def _reds(quiet: Tally, metrics: int) -> tuple[str, str]:
    runs = (quiet.metrics + quiet.refused) // metrics
    return (
        f"{_pct(quiet.red / quiet.metrics)} (at most {_pct(at_most(quiet.red, quiet.metrics))})",
        f"{_pct(quiet.red_runs / runs)} (at most {_pct(at_most(quiet.red_runs, runs))})",
    )


def _missed(seen: Tally) -> str:
    missed = seen.metrics - seen.statuses[Status.REGRESSED]
    return f"{_pct(missed / seen.metrics)} (at most {_pct(at_most(missed, seen.metrics))})"


def _rival(name: str, rates: dict[float, float], metrics: int) -> list[str]:
    alarm = rates[0.0]
    return [
        name,
        _pct(alarm),
        _pct(1 - (1 - alarm) ** metrics),
        *(_pct(1 - rate) for effect, rate in rates.items() if effect),
    ]


def _details(effect_pct: float, seen: Tally) -> str:
    statuses = ", ".join(
        f"{status.value} {_pct(count / seen.metrics)}" for status, count in seen.statuses.items()
    )
    early = seen.regressed_by_look[:EARLY][-1]
    name = f"{effect_pct:+g} %" if effect_pct else "unchanged"
    return (
        f"- {name}, {seen.metrics} metrics: {statuses}; REGRESSED with at most {EARLY} processes "
        f"{_pct(early / seen.metrics)} (at least {_pct(at_least(early, seen.metrics))}); "
        f"{seen.processes / seen.metrics:.2f} processes a metric; {seen.refused} baselines refused"
    )


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _pct(rate: float) -> str:
    return f"{rate * 100:.3g} %"


def _tally(
    options: argparse.Namespace, model: NoiseModel, test: SequentialTest, metrics: int, effect_pct: float
) -> Tally:
    simulated = options.simulated // (DETECTION_SHARE if effect_pct else 1)
    return tally(
        model,
        test,
        effect_pct=effect_pct,
        runs=max(1, simulated // metrics),
        metrics=metrics,
        processes=LIBRARY,
        seed=options.seed,
    )


def _test(options: argparse.Namespace, sd_pct: float, metrics: int) -> SequentialTest:
    cases = metrics / NOISY_METRICS_OF_A_CASE
    dof = options.dof or max(MIN_DOF, round(cases * (options.baseline_processes - 1)))
    between = Noise(sd_pct=options.card_sd_pct, dof=options.card_dof) if options.card_sd_pct else None
    return SequentialTest(
        noise=Noise(sd_pct=sd_pct, dof=dof),
        between=between,
        level=metric_level(metrics),
        baseline_processes=options.baseline_processes,
        max_processes=options.max_processes,
        tolerance_pct=options.tolerance_pct,
        surprise_pct=options.surprise_pct,
    )


def _model(options: argparse.Namespace) -> NoiseModel:
    asked = {
        name: value
        for name in ("process_sd_pct", "step_sd_pct", "stalled_share", "steps", "images", "card_sd_pct")
        if (value := getattr(options, name)) is not None
    }
    return dataclasses.replace(NOISE_MODELS[options.model], **asked)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument(
        "--model", choices=NOISE_MODELS, default="stalls", help="noise model (default: stalls)"
    )
    for name, kind, of_the_model in (
        ("--process-sd-pct", float, "sd between processes"),
        ("--step-sd-pct", float, "sd between steps"),
        ("--stalled-share", float, "share of images with a host stall"),
        ("--steps", int, "steady steps of an image"),
        ("--images", int, "images of a process"),
        ("--card-sd-pct", float, "sd between cards: the baseline is of another one"),
    ):
        parser.add_argument(name, type=kind, help=f"{of_the_model} (default: the model's)")
    add = parser.add_argument
    add("--metrics", type=int, nargs="+", default=[60, 186], help="noisy gated metrics of a run")
    add("--effect", type=float, nargs="+", default=[1.5, 3.0], metavar="PCT", help="slowdowns to look for")
    add("--baseline-processes", type=int, default=5)
    add("--max-processes", type=int, default=5)
    add("--dof", type=int, help="degrees of freedom of the sd (default: those of a baseline of all metrics)")
    add("--card-dof", type=int, default=7, help="degrees of freedom of the sd between cards (default: 7)")
    add("--tolerance-pct", type=float, default=0.75)
    add("--surprise-pct", type=float, default=10.0)
    add("--simulated", type=int, default=2_000_000, help="unchanged metrics (default: 2000000)")
    add("--seed", type=int, default=1)
    return parser


if __name__ == "__main__":
    sys.exit(main())
