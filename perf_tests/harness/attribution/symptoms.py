"""Which red verdicts have one cause: those that show in the same cases, and those that follow from others."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Final, NamedTuple

from perf_tests.harness.runs.record import Run, Status, Verdict
from perf_tests.harness.stats.observations import REFERENCE_FAILED
from perf_tests.harness.verdicts.case_status import SEVERITY, by_rule, leading
from perf_tests.harness.verdicts.judge import OF_REFERENCE
from perf_tests.tables.metrics.rows import METRIC_BY_NAME

ALIKE: Final = 2 / 3
"""Two symptoms have one cause where this share of the cases that show either shows both."""
VARYING = re.compile(r"\S*/\S*|\d[\d.,]*")
"""What differs between two messages about the same thing: paths and numbers."""


class Symptom(NamedTuple):
    """What verdicts have in common that are red alike."""

    status: Status
    metric: str
    """Empty where any metric may be spoiled."""
    why: str = ""
    """What spoils them, without what differs from case to case."""


Shown = dict[str, list[Verdict]]
"""Case id -> the red verdicts on it that show something, the leading one first; none where the case could not
be measured as asked."""
IsGreen = Callable[[Run], bool]
"""Whether measuring a run ended in a way that leaves the session green; its verdicts do not count."""


def red(run: Run) -> list[Verdict]:
    """The red verdicts of a case, the leading one first."""
    return [verdict for verdict in leading(run.verdicts) if not verdict.status.is_green]


def groups(runs: Sequence[Run], is_green: IsGreen) -> list[tuple[Symptom, Shown]]:
    """What is red in `runs` by its causes, each with the symptom that leads."""
    own, of_references = _symptoms(runs, is_green)
    merged: dict[Symptom, Shown] = {}
    leads: dict[Symptom, Symptom] = {}
    cases: dict[Symptom, frozenset[str]] = {}
    for symptom, shown in sorted(own.items(), key=_rank):
        cases[symptom] = frozenset(shown)
        lead = next((each for each in merged if _have_one_cause(each, symptom, cases)), symptom)
        leads[symptom] = lead
        _extend(merged.setdefault(lead, {}), shown)
    # Last, since the cases that are measured against a reference say nothing of what else is wrong with it.
    for symptom, shown in of_references.items():
        _extend(merged.setdefault(leads.get(symptom, symptom), {}), shown)
    return list(merged.items())


def own_reason(run: Run, verdict: Verdict) -> str:
    """Why, also where that was found in the run of the reference."""
    return verdict.reason.removeprefix(OF_REFERENCE.format(run.reference))


def alike(run: Run, message: str) -> str:
    """`message` about `run` without what differs from case to case."""
    _, _, behind = run.id.partition(f"{run.pipeline}-")
    recipe = behind.partition("-")[2]  # behind the batch size
    text = " ".join(message.split())
    for name in filter(None, (run.id, run.pipeline, recipe)):
        text = text.replace(name, "#")
    return VARYING.sub("#", text)


def _symptoms(
    runs: Sequence[Run], is_green: IsGreen
) -> tuple[Mapping[Symptom, Shown], Mapping[Symptom, Shown]]:
    """What cases show of themselves, and what they show of their references, which show it, too."""
    by_id = {run.id: run for run in runs}
    own: dict[Symptom, Shown] = {}
    of_references: dict[Symptom, Shown] = {}
    for run in runs:
        if not is_green(run):
            own.setdefault(_failure(run), {})[run.id] = []
            continue
        for verdict in _telling(red(run)):
            shows = _of_reference(verdict, by_id.get(run.reference or ""), is_green)
            found, symptom = (own, _symptom(run, verdict)) if shows is None else (of_references, shows)
            found.setdefault(symptom, {}).setdefault(run.id, []).append(verdict)
    return own, of_references


def _telling(verdicts: Sequence[Verdict]) -> Sequence[Verdict]:
    """Without those that lack a baseline, as most metrics of a case do where one does: they say nothing where
    the case is worse, and one of them says it all where it is not."""
    if verdicts and verdicts[0].status is Status.NO_BASELINE:
        return verdicts[:1]
    return [each for each in verdicts if each.status is not Status.NO_BASELINE]


def _extend(shown: Shown, more: Shown) -> None:
    for case_id, verdicts in more.items():
        shown.setdefault(case_id, []).extend(verdicts)


def _symptom(run: Run, verdict: Verdict) -> Symptom:
    match verdict.status:
        case Status.NO_BASELINE:
            return Symptom(verdict.status, "")
        case Status.INVALID:
            return Symptom(verdict.status, "", alike(run, own_reason(run, verdict)))
        case status:
            return Symptom(status, verdict.metric)


def _failure(run: Run) -> Symptom:
    failure = run.failure
    phase, message = (failure.phase.value, failure.message) if failure else ("", run.reason)
    return Symptom(run.status, "", f"{phase} {alike(run, message)}")


def _of_reference(verdict: Verdict, reference: Run | None, is_green: IsGreen) -> Symptom | None:
    """What a verdict shows of a reference that is red itself: because it failed, so that there is nothing to
    compare with, or because the verdict is on a ratio to a time of it; else None."""
    if reference is None:
        return None
    if not is_green(reference):
        says_so = REFERENCE_FAILED.format(reference.id) in verdict.reason
        return _failure(reference) if says_so else None
    metric = METRIC_BY_NAME.get(verdict.metric)
    if metric is None or not metric.reader.divides_by_reference:
        return None
    time = next((each for each in red(reference) if each.metric == metric.of), None)
    # A reference that was never recorded tells nothing of the ratio.
    return None if time is None or time.status is Status.NO_BASELINE else _symptom(reference, time)


def _rank(found: tuple[Symptom, Shown]) -> tuple[int, int, int]:
    """What leads comes first: the worst status, the rule that names a cause, the most cases."""
    symptom, shown = found
    return SEVERITY.index(symptom.status), by_rule(symptom.metric), -len(shown)


def _have_one_cause(one: Symptom, other: Symptom, cases: Mapping[Symptom, frozenset[str]]) -> bool:
    if Status.NO_BASELINE in (one.status, other.status):
        return False
    both, either = cases[one] & cases[other], cases[one] | cases[other]
    return len(both) >= ALIKE * len(either)
