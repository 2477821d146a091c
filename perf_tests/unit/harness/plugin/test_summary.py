"""What a night says at its end: over 200 cases, five causes, at the width of the reader."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache

import msgspec
import pytest

from perf_tests.harness.plugin import summary
from perf_tests.harness.plugin.session import PerfSession
from perf_tests.harness.runs.record import Progress, Run, Status, Verdict
from perf_tests.harness.verdicts.case_status import overall
from perf_tests.harness.verdicts.gates import gated_metrics
from perf_tests.protocol.messages import Failure, FailureKind, Phase
from perf_tests.tables.cases import Case, Weights
from perf_tests.tables.matrix import MATRIX
from perf_tests.tables.metrics.spec import Group
from perf_tests.tables.platforms import H100
from perf_tests.unit.builders import GPU, H100_UUID, make_environment, make_process
from perf_tests.unit.conftest import ROOT, make_options

CASES = [row.case(Weights.SYNTHETIC) for row in MATRIX if H100 in row.platforms]
NEW = 11
"""Of the first cases, as many have no baseline."""
WIDTHS = (100, 200)


def changed(verdict: Verdict, status: Status, change_pct: float) -> Verdict:
    """The metric of a case after a change of so much."""
    return msgspec.structs.replace(
        verdict,
        status=status,
        measured=100.0 + change_pct,
        change_pct=change_pct,
        family_ci_pct=(change_pct - 0.5, change_pct + 0.5),
        reason=f"{change_pct:+.2f} % against the baseline, beyond the limit 102 ms (+2.00 %: the tolerance)",
    )


def failure(kind: FailureKind, phase: Phase, message: str) -> Failure:
    """A failed worker, with the last lines of its log."""
    return Failure(kind=kind, phase=phase, message=message, details="\n".join(["a line of the log"] * 20))


FAILED = {
    60: failure(FailureKind.TIMEOUT, Phase.COMPILE, "no answer to compile within 600 s"),
    61: failure(FailureKind.TIMEOUT, Phase.COMPILE, "no answer to compile within 601 s"),
    100: failure(FailureKind.OOM, Phase.LOAD, "out of memory: tried to allocate 6.5 GiB"),
}


def changes(case: Case, number: int) -> dict[str, tuple[Status, float]]:
    """What moved: metric -> its status, and by how many percent."""
    if number < NEW:
        return {"denoise_step_ms": (Status.NO_BASELINE, 0.0), "weight_bytes": (Status.NO_BASELINE, 0.0)}
    if case.build.recipe.scheme.id == "int8dq":
        slower = (Status.REGRESSED, 4.8 + number % 10 / 10)
        return {"denoise_step_ms": slower, "speedup_vs_bf16": slower}
    if case.build.pipeline.id == "auraflow":
        return {"graph_breaks": (Status.REGRESSED, 100.0)}
    if case.build.recipe.scheme.id == "fp8dqrow":
        return {"psnr_db": (Status.REGRESSED, -12.0)}
    return {"denoise_step_ms": (Status.IMPROVED, -3.0)} if number % 40 == 0 else {}


def judged(case: Case, number: int) -> Run:
    """The run of the case with that number: green, or red for one of five causes."""
    verdicts = {metric.name: unchanged(metric.name) for metric in gated_metrics(case, H100)}
    moved = changes(case, number)
    verdicts |= {name: changed(verdicts[name], *moved[name]) for name in moved if name in verdicts}
    failed = FAILED.get(number)
    run = Run(
        id=case.id,
        digest=case.digest,
        platform=H100.id,
        pipeline=case.build.pipeline.id,
        status=Status.PASS,
        reference=None if case.is_reference else case.reference.id,
        verdicts=() if failed else tuple(verdicts.values()),
        processes=() if failed else (make_process(environment=make_environment(gpu=GPU)),),
        failure=failed,
        progress=Progress.JUDGED,
    )
    status, reason = overall(run)
    return msgspec.structs.replace(run, status=status, reason=reason)


def unchanged(metric: str) -> Verdict:
    """A metric that is as in its baseline."""
    return Verdict(
        metric=metric,
        status=Status.PASS,
        measured=100.1,
        baseline=100.0,
        change_pct=0.1,
        ci_pct=(-0.3, 0.5),
        family_ci_pct=(-0.9, 1.1),
        limit=102.0,
        reason="+0.10 % against the baseline, within the limit 102 ms",
    )


Night = Callable[[int], summary.Brief]


@pytest.fixture(scope="module")
def night(tmp_path_factory: pytest.TempPathFactory) -> Night:
    """What a night of all H100 cases says at a width."""
    out = tmp_path_factory.mktemp("night")
    session = PerfSession(make_options(out=out, baselines=ROOT / "baselines"), ("-m", "h100"), H100_UUID)
    for case in CASES:
        session.select(case, H100, Group.LATENCY)
    session.campaign.store.cases.update({case.id: judged(case, number) for number, case in enumerate(CASES)})

    @cache
    def say(width: int) -> summary.Brief:
        return summary.brief(session, session.campaign.record, session.selection, width)

    return say


def lines_of(brief: summary.Brief) -> list[str]:
    """All lines, as the terminal shows them."""
    causes = [line for cause in brief.causes for line in (*cause, "")]
    return [*brief.sentences, "", *(line.text for line in brief.table), "", *causes, brief.title]


@pytest.mark.parametrize("width", WIDTHS)
def test_a_red_night_is_under_300_lines_that_fit_the_width(night: Night, width: int) -> None:
    lines = lines_of(night(width))

    assert len(CASES) > 200
    assert len(lines) < 300 - 15  # pytest's own headings, and what is missing
    assert max(map(len, lines)) <= width


def test_each_cause_is_explained_once_and_each_red_case_names_its_cause(night: Night) -> None:
    brief = night(200)
    titles = [cause[0] for cause in brief.causes]

    assert titles[:2] == ["[1] ERROR(timeout): 2 cases", "[2] ERROR(oom): 1 case"]
    assert [title for title in titles if "graph_breaks REGRESSED" in title] == [titles[4]]
    assert "denoise_step_ms REGRESSED" in "".join(titles)
    assert "+4.80 % to +5.70 %" in "".join(titles)
    assert titles[-1].startswith("11 cases have no baseline: ")
    red = [line.text for line in brief.table if line.colour == "red"]
    assert sum(" [1] timeout" in line for line in red) == 2
    # One line for each listed case: there are too many red ones for a line for each metric.
    assert len(brief.table) == 1 + len(CASES) - NEW
    assert any(re.search(r"\[3\] REGRESSED \+1 +\+5\.70 %", line) for line in red)


def test_the_reddest_cases_are_last_and_what_moved_stands_out(night: Night) -> None:
    colours = [line.colour for line in night(200).table]

    assert colours == sorted(colours, key=["", "yellow", "red"].index)
    assert colours.count("yellow") >= 2


def test_the_page_of_the_job_begins_with_what_is_red(night: Night) -> None:
    brief = night(100)
    page = brief.as_markdown()

    assert page.startswith(f"## Performance: {brief.title}\n\n### [1] ERROR(timeout): 2 cases\n\n```text\n")
    assert page.count("```") == 2 * (len(brief.causes) + 1)
    assert CASES[-1].id in page.partition("<details>")[2]
