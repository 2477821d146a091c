"""What may have caused a red verdict, and what to do: what has changed, where to look, what to accept."""

from __future__ import annotations

import shlex

from perf_tests.harness.baselines.entry import SETTLED, Accepted, Provenance
from perf_tests.harness.report.wording import wrapped
from perf_tests.harness.runs import environments
from perf_tests.harness.runs.record import Run, Status, Verdict
from perf_tests.protocol.reports import Environment
from perf_tests.tables.metrics.spec import Metric, Rule

ACCEPTABLE = {
    Status.REGRESSED: "accept",
    Status.SURPRISE: "accept",
    Status.IMPROVED: "accept",
    Status.NO_BASELINE: "record",
}
"""Status that can be accepted -> the verb for it. All other statuses have no number that could be trusted."""


def differences(provenance: Provenance, environment: Environment) -> list[str]:
    """`name then -> now` for everything on record that differs between a baseline and a run.

    A setting that the baseline is too old to have recorded may always have been as it is now.
    """
    gpu = environment.gpu
    then = {
        "python": provenance.python,
        "GPU": provenance.gpu,
        "unit": provenance.unit,
        "driver": provenance.driver,
        "power limit": _watts(provenance.power_limit_w),
    }
    now = {
        "python": environment.python,
        "GPU": gpu.name if gpu else None,
        "unit": environment.unit,
        "driver": gpu.driver if gpu else None,
        "power limit": _watts(gpu.power_limit_w if gpu else None),
    }
    return [
        *environments.differences(provenance.packages, environment.packages),
        *environments.differences(then, now),
        *environments.differences(provenance.settings, environment.settings, provenance.settings),
    ]


def next_step(
    run: Run,
    verdict: Verdict,
    metric: Metric,
    accepted: Accepted | None,
    environment: Environment | None,
) -> list[str]:
    """Where to look for the cause where nothing on record has changed, or only the card."""
    if verdict.status not in (Status.REGRESSED, Status.SURPRISE) or accepted is None or environment is None:
        return []
    if run.injected or metric.is_relation or not metric.has_baseline:
        return []
    changes = differences(accepted.provenance, environment)
    another_card = accepted.provenance.unit != environment.unit
    if len(changes) > another_card:
        return []
    # A count is the same on every card.
    elsewhere = another_card and metric.is_noisy
    steps = [f"measure on the card of the baseline, {accepted.provenance.unit}"] if elsewhere else []
    if run.reference is not None:
        steps.append(f"see whether the control case moves, too: pytest --perf-case '{run.reference}'")
    if metric.is_noisy:
        steps.append("compare with a stable stack on this card: --perf-against PYTHON")
    since = accepted.provenance.recorded_at[: len("2026-01-31")]
    steps.append(f"look at what this checkout changed: git log --since {since}")
    return [line for step in steps for line in wrapped("next", step)]


def accept(run: Run, status: Status, metric: Metric, accepted: Accepted | None, run_path: str) -> list[str]:
    """The command that makes the run the baseline; empty where no baseline must hold such numbers.

    That is so for a fire drill, an unproven build, a relation that is broken, and what the tables imply. A
    count does not change by itself, so the packages that may explain it stand next to it.
    """
    is_broken = metric.is_relation and status is not Status.NO_BASELINE
    refused = run.injected or run.failure is not None or is_broken or not metric.has_baseline
    if status not in ACCEPTABLE or refused:
        return []
    command = f"python tools/rebaseline.py apply {shlex.quote(run_path)} --only '{run.id}'"
    lines = [f'  {ACCEPTABLE[status]}     {command} --reason "..." --write', *_too_few(run, accepted)]
    if metric.rule is not Rule.EXACT or accepted is None or not run.processes:
        return lines
    now = run.processes[0].environment.packages
    packages = environments.differences(accepted.provenance.packages, now)
    if not packages:
        return [*lines, *wrapped("only if", "you know the cause: no package has changed")]
    explains = "explains" if len(packages) == 1 else "explain"
    return [*lines, *wrapped("only if", f"{', '.join(packages)} {explains} it")]


def _too_few(run: Run, accepted: Accepted | None) -> list[str]:
    """What is to be done first where the baseline would be replaced by one of fewer processes."""
    if accepted is None or accepted.entry.provisional or len(run.processes) >= SETTLED:
        return []
    rests_on = f"its baseline is of {accepted.entry.processes} processes"
    return wrapped("first", f"measure it with --perf-processes {SETTLED}: {rests_on}")


def _watts(power_limit_w: float | None) -> str | None:
    return None if power_limit_w is None else f"{power_limit_w:.0f} W"
