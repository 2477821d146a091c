"""From the record of a session to what of it is told: the causes of what is red, and how each case fared."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from perf_tests.harness.attribution.symptoms import groups
from perf_tests.harness.records.attributions import Attribution
from perf_tests.harness.runs.directory import FINDINGS
from perf_tests.harness.runs.record import Run, RunRecord, Status
from perf_tests.harness.telling.findings import (
    BUILD,
    CASES,
    COMMIT,
    FORMAT_VERSION,
    PACKAGES,
    SUITE,
    TOLD,
    VERSION,
    CaseOutcome,
    MemberChange,
    NightFindings,
    RedCause,
    dumps,
)
from perf_tests.harness.verdicts.ab_comparison import time_of
from perf_tests.protocol.errors import PerfError
from perf_tests.protocol.files import replace_atomically
from perf_tests.tables.metrics.rows import METRIC_BY_NAME

MOST_PCT = 1e6
"""A larger change is of something that was next to nothing."""
Key = tuple[str, str, str, str, str]


class _RedCase(NamedTuple):
    """A case, for one of the causes that it is red for."""

    run: Run
    metric: str
    status: Status
    change_pct: float | None


def write(folder: Path, record: RunRecord, baseline_of: Mapping[str, str]) -> None:
    """Write `findings.json` about `record` beside it. Raises PerfError where the disk refuses."""
    try:
        replace_atomically(folder / FINDINGS, dumps(findings_of(record, baseline_of, _run_id())))
    except OSError as error:
        raise PerfError(f"cannot write {folder / FINDINGS}: {error.strerror}; make room") from error


def _run_id() -> str:
    run, attempt = (os.environ.get(f"GITHUB_RUN_{name}", "") for name in ("ID", "ATTEMPT"))
    return f"{run}-{attempt}" if run.isdigit() and attempt.isdigit() else "0"


def findings_of(record: RunRecord, baseline_of: Mapping[str, str], run_id: str) -> NightFindings:
    """What is told of `record`; `baseline_of` is when the baseline of a case was recorded, by its id."""
    runs = [run for run in record.cases if run.id in CASES]
    environment = record.environment
    versions = {
        name: version.partition(" (")
        for name, version in (environment.packages.items() if environment else ())
        if name in PACKAGES
    }
    commits = {name: after.rstrip(")") for name, (_, _, after) in versions.items()}
    if record.plan is not None and record.plan.commit is not None:
        commits[SUITE] = record.plan.commit.split()[0]
    return NightFindings(
        format_version=FORMAT_VERSION,
        night=record.created_at[: len("2026-01-31")],
        run=run_id,
        counts=not any(run.injected for run in (*record.cases, *record.references)),
        packages={name: before for name, (before, _, _) in versions.items() if VERSION.fullmatch(before)},
        commits={name: commit for name, commit in commits.items() if COMMIT.fullmatch(commit)},
        causes=_causes(runs, record.attributions),
        outcomes=tuple(_outcomes(runs, _lacking(record), baseline_of)),
    )


def _causes(runs: list[Run], attributions: tuple[Attribution, ...]) -> tuple[RedCause, ...]:
    found: dict[Key, dict[str, MemberChange]] = {}
    for run, metric, status, change_pct in (*_failed(runs), *_judged_red(runs)):
        recipe = CASES[run.id].build.recipe
        key = run.platform, recipe.scheme.id, recipe.compile.value, metric, status.value
        told = change_pct if change_pct is not None and abs(change_pct) <= MOST_PCT else None
        found.setdefault(key, {}).setdefault(run.id, MemberChange(case=run.id, change_pct=told))
    return tuple(_cause(key, tuple(members.values()), attributions) for key, members in found.items())


def _failed(runs: list[Run]) -> Iterator[_RedCase]:
    """The cases that could not be measured as asked: whatever else is red in them follows from that."""
    for run in filter(_has_failed, runs):
        yield _RedCase(run, BUILD, run.status, None)


def _judged_red(runs: list[Run]) -> Iterator[_RedCase]:
    """What each of the other cases is red for, once a cause, by the verdict that leads in it."""
    for platform in dict.fromkeys(run.platform for run in runs):
        here = {run.id: run for run in runs if run.platform == platform}
        for _, shown in groups(tuple(here.values()), lambda run: not _has_failed(run)):
            for case_id, verdicts in shown.items():
                for verdict in [each for each in verdicts if each.status in TOLD][:1]:
                    yield _RedCase(here[case_id], _time(verdict.metric), verdict.status, verdict.change_pct)


def _has_failed(run: Run) -> bool:
    return run.failure is not None and run.status.is_error


def _cause(key: Key, members: tuple[MemberChange, ...], attributions: tuple[Attribution, ...]) -> RedCause:
    platform, scheme, compile_mode, metric, status = key
    ids = {member.case for member in members}
    answer = next((a for a in attributions if a.metric == metric and ids & set(a.members)), None)
    return RedCause(
        platform=platform,
        scheme=scheme,
        compile=compile_mode,
        metric=metric,
        status=Status(status),
        members=members,
        blame=answer.blame if answer else None,
        whole=answer.whole.value if answer and answer.whole else None,
        torch=answer.torch.value if answer and answer.torch else None,
        torchao=answer.torchao.value if answer and answer.torchao else None,
    )


def _lacking(record: RunRecord) -> dict[str, set[str]]:
    """Case -> the metrics that a verdict is owed on, by the names of the times behind them."""
    lacking: dict[str, set[str]] = {}
    for pair in record.missing:
        case_id, _, metric = pair.partition(": ")
        if case_id in CASES and (metric == BUILD or metric in METRIC_BY_NAME):
            lacking.setdefault(case_id, set()).add(metric if metric == BUILD else _time(metric))
    return lacking


def _outcomes(
    runs: list[Run], lacking: Mapping[str, set[str]], baseline_of: Mapping[str, str]
) -> Iterator[CaseOutcome]:
    for run in runs:
        yield _outcome(run, lacking.get(run.id, set()), baseline_of.get(run.id))
    # What a session that was killed never came to; all cases of a night are of one platform.
    known = {run.id for run in runs}
    for case_id, metrics in lacking.items():
        if runs and case_id not in known:
            yield CaseOutcome(
                case=case_id, platform=runs[0].platform, measured=False, undecided=tuple(sorted(metrics))
            )


def _outcome(run: Run, lacks: set[str], baseline_of: str | None) -> CaseOutcome:
    failed = run.failure is not None or run.status is Status.NOT_RUN
    red = {_time(each.metric) for each in run.verdicts if each.status in TOLD}
    if _has_failed(run):
        red.add(BUILD)
    undecided = {
        _time(each.metric)
        for each in run.verdicts
        if each.status is Status.ACKNOWLEDGED or not (each.status.is_green or each.status in TOLD)
    }
    return CaseOutcome(
        case=run.id,
        platform=run.platform,
        measured=not failed and bool(run.verdicts),
        red=tuple(sorted(red)),
        undecided=tuple(sorted((undecided | lacks) - red)),
        baseline_of=baseline_of[: len("2026-01-31")] if baseline_of else None,
    )


def _time(metric: str) -> str:
    """The metric of a cause: of a noisy ratio the time that it is formed from."""
    time = time_of(METRIC_BY_NAME[metric])
    return time.name if time else metric
