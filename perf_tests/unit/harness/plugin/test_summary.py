"""What a night says at its end: over 200 cases, five causes, at the width of the reader."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import msgspec
import pytest

from perf_tests.harness.attribution import symptoms
from perf_tests.harness.execution.campaign import Asides
from perf_tests.harness.lanes.cards import LaneCard
from perf_tests.harness.planning.schedule import Accuracy
from perf_tests.harness.plugin import hooks, summary
from perf_tests.harness.plugin.session import PerfSession
from perf_tests.harness.processes.usage import Usage
from perf_tests.harness.report.brief import Brief
from perf_tests.harness.runs.record import Comparison, Progress, Run, Schedule, Status, Verdict
from perf_tests.harness.verdicts.case_status import overall
from perf_tests.harness.verdicts.gates import gated_metrics
from perf_tests.protocol.messages import Failure, FailureKind, Phase
from perf_tests.tables.cases import Case, Weights
from perf_tests.tables.matrix import MATRIX
from perf_tests.tables.metrics.spec import Group
from perf_tests.tables.platforms import H100
from perf_tests.unit.builders import GPU, H100_UUID, digest_of, make_environment, make_process
from perf_tests.unit.conftest import ROOT, make_options

CASES = [row.case(Weights.SYNTHETIC) for row in MATRIX if H100 in row.platforms][:208]
"""As many as the promise of 300 lines is about, however many there are."""
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
        digest=digest_of(case),
        platform=H100.id,
        pipeline=case.build.pipeline.id,
        status=Status.PASS,
        reference=None if case.is_reference else case.reference.id,
        verdicts=() if failed else tuple(verdicts.values()),
        processes=() if failed else (GOOD,),
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


def for_a_cause_of_its_own(case: Case, number: int) -> Run:
    """The run of a case that failed as no other did."""
    words = " ".join(WORDS[int(digit)] for digit in str(number))
    failed = failure(FailureKind.CRASH, Phase.LOAD, f"worker exited while loading: {words}")
    return msgspec.structs.replace(
        judged(case, number),
        status=Status.CRASH,
        reason=failed.message,
        failure=failed,
        verdicts=(),
        processes=(),
    )


WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


def half_red(case: Case, number: int) -> Run:
    """One of the first 100 is red for a cause of its own, and the others are green."""
    if number < 100:
        return for_a_cause_of_its_own(case, number)
    verdicts = tuple(unchanged(metric.name) for metric in gated_metrics(case, H100))
    run = judged(case, number)
    return msgspec.structs.replace(run, status=Status.PASS, reason="", failure=None, verdicts=verdicts)


def red_in_all_metrics(case: Case, number: int) -> Run:
    """The run of a case with every verdict red, for one of five leading causes."""
    run = judged(case, number)
    leads = ("graph_breaks", "weight_bytes", "peak_allocated_mib", "denoise_step_ms", "quantize_s")
    lead = leads[number % len(leads)]
    verdicts = (
        changed(each, Status.INVALID if each.metric == lead else Status.INCONCLUSIVE, 10.0 + number)
        for each in (unchanged(metric.name) for metric in gated_metrics(case, H100))
    )
    run = msgspec.structs.replace(run, failure=None, processes=(GOOD,), verdicts=tuple(verdicts))
    status, reason = overall(msgspec.structs.replace(run, status=Status.PASS))
    return msgspec.structs.replace(run, status=status, reason=reason)


GOOD = make_process(environment=make_environment(gpu=GPU))
Judge = Callable[[Case, int], Run]


@cache
def runs_of(run_of: Judge) -> dict[str, Run]:
    """Case id -> its run. Making the verdicts of a night takes longer than most of what is said of it."""
    return {case.id: run_of(case, number) for number, case in enumerate(CASES)}


class Night:
    """A session over all H100 cases, and what it says at its end."""

    def __init__(self, out: Path, run_of: Judge) -> None:
        options = make_options(out=out, baselines=ROOT / "baselines")
        self.session = PerfSession(options, ("-m", "h100", f"--perf-out={out}"), H100_UUID)
        for case in CASES:
            self.session.select(case, H100, Group.LATENCY)
        self.session.campaign.store.cases.update(runs_of(run_of))

    def remark_on_everything(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Let the session have had all that it can tell about: resumed, cards that failed, an A/B of each."""
        session = self.session
        session.kept = tuple(session.campaign.store.cases.values())
        session.left_out = {f"flux1-dev-b{number}-fp8dqrow-regional" for number in range(90)}
        session.removed = tuple(Path(f"latest.2026010{day}T000000Z") for day in range(1, 9))
        lost = {f"GPU-{number}": "2 of its cases in a row failed before they computed" for number in range(8)}
        session.options = dataclasses.replace(session.options, show_plan=True)
        rows = [Accuracy(case=case.id, implicit=False, expected_s=60.0, spent_s=61.0) for case in CASES]
        monkeypatch.setattr(session.forecaster, "accuracy", lambda *_: rows)
        units: tuple[str | None, ...] = tuple(lost)
        imports = {unit: f"the spare worker of {unit} has ended" for unit in units}
        lanes = {unit: Usage(wall_s=9e3, held_s=8e3, importing_s=600.0) for unit in units}
        told = Asides(
            measured_again=tuple(case.id for case in CASES),
            retired=lost,
            late_imports=imports,
            usage=lanes,
        )
        monkeypatch.setattr(type(session), "asides", told)
        for case in CASES:
            comparison = Comparison(
                id=case.id,
                digest=digest_of(case),
                platform=H100.id,
                pipeline=case.build.pipeline.id,
                against="stable/bin/python",
                schedule=Schedule.RESIDENT,
                schedule_reason="both fit",
                status=Status.PASS,
                verdicts=(unchanged("denoise_step_ms"), unchanged("latency_s")),
            )
            session.campaign.store.comparisons[case.id] = comparison

    @cache  # noqa: B019 - a night lives as long as its test
    def brief(self, width: int) -> Brief:
        """What it says at that width."""
        return summary.brief(self.session, self.session.campaign.record, self.session.selection, width)

    def lines(self, width: int) -> list[str]:
        """The lines on the terminal."""
        terminal = Terminal()
        hooks._write_brief(terminal, self.brief(width), self.session)  # type: ignore[arg-type]  # all it uses
        return terminal.lines


class Terminal:
    """What is used of pytest's terminal reporter."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def section(self, title: str, **_markup: bool) -> None:
        self.lines.append(title)

    def write_line(self, line: str, **_markup: bool) -> None:
        self.lines.append(line)


@pytest.fixture(scope="module")
def night(tmp_path_factory: pytest.TempPathFactory) -> Night:
    """A night that no test changes."""
    return Night(tmp_path_factory.mktemp("night"), judged)


@pytest.mark.parametrize("width", WIDTHS)
def test_a_red_night_is_under_300_lines_that_fit_the_width(night: Night, width: int) -> None:
    lines = night.lines(width)

    assert len(CASES) == 208
    assert len(lines) <= 285
    assert len(lines) == night.brief(width).length
    assert max(map(len, lines[:-2])) <= width  # but for the name of the file, which stays whole


@pytest.fixture(scope="module", params=[judged, for_a_cause_of_its_own, red_in_all_metrics])
def worst_night(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Judge, Night]]:
    """A night that also tells everything else that a session can, and how its runs are judged."""
    out = tmp_path_factory.mktemp("worst") / "/".join(["a-long-name-of-a-folder"] * 4)
    night = Night(out, request.param)
    with pytest.MonkeyPatch.context() as patch:
        night.remark_on_everything(patch)
        yield request.param, night


@pytest.mark.parametrize("width", WIDTHS)
def test_the_worst_nights_are_no_longer_and_name_each_red_case(
    worst_night: tuple[Judge, Night], width: int
) -> None:
    run_of, night = worst_night
    lines = night.lines(width)

    assert len(lines) <= 285
    text = "\n".join(lines)
    red = [run.id for run in night.session.campaign.record.cases if symptoms.red(run) or run.failure]
    new = {case.id for case in CASES[:NEW]} if run_of is judged else set()
    assert len(red) >= 50
    unnamed = {case_id for case_id in red if not re.search(rf"^{case_id} ", text, re.MULTILINE)}
    assert unnamed == new & set(red)


@pytest.mark.parametrize(
    ("cards", "where"),
    [(0, "workers import"), (4, "workers on 3 of 4 GPUs import")],
    ids=["one device", "four"],
)
def test_workers_that_do_not_import_ahead_are_told_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cards: int, where: str
) -> None:
    """It costs time, and nothing else would show that it is lost."""
    night = Night(tmp_path, judged)
    night.session.cards = tuple(
        LaneCard(unit=f"GPU-{number}", cores=frozenset({0})) for number in range(cards)
    )
    why = "the spare worker has ended: importing the stack has initialised CUDA"
    units: tuple[str | None, ...] = ("GPU-0", "GPU-1", "GPU-2") if cards else (None,)
    monkeypatch.setattr(type(night.session), "asides", Asides(late_imports=dict.fromkeys(units, why)))
    said = f"{where} when they are wanted, which costs seconds a case and no verdict: {why}"
    assert said in night.brief(200).remarks


def test_what_is_left_out_is_counted_and_one_option_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    night = Night(tmp_path, for_a_cause_of_its_own)
    night.remark_on_everything(monkeypatch)
    lines = night.lines(100)

    assert "and 205 more causes, whose numbers are in the table: --perf-table=all explains them" in lines
    assert sum("more lines with --perf-table=all" in line for line in lines) >= 1


def test_green_cases_are_counted_where_red_ones_leave_no_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    night = Night(tmp_path, half_red)
    night.remark_on_everything(monkeypatch)
    lines = night.lines(100)

    assert "cases that are green and have not moved: 108; --perf-table=all lists them" in lines
    assert len([line for line in lines if line.startswith(CASES[99].id)]) == 1


def test_each_cause_is_explained_once_and_each_red_case_names_its_cause(night: Night) -> None:
    brief = night.brief(200)
    titles = [cause[0] for cause in brief.causes]

    assert titles[:2] == ["[1] ERROR(timeout): 2 cases", "[2] ERROR(oom): 1 case"]
    assert [title for title in titles if "graph_breaks REGRESSED" in title] == [titles[4]]
    assert "denoise_step_ms REGRESSED" in "".join(titles)
    assert "+4.80 % to +5.70 %" in "".join(titles)
    assert titles[-1].startswith("11 cases have no baseline: ")
    red = [line.text for line in brief.table if line.colour == "red"]
    assert sum(" [1] timeout" in line for line in red) == 2
    # One line for each listed case: there are too many red ones for a line for each metric.
    assert len(brief.table) == 1 + 208 - NEW
    assert any(re.search(r"\[3\] REGRESSED \+1 +\+5\.70 %", line) for line in red)


def test_the_reddest_cases_are_last_and_what_moved_stands_out(night: Night) -> None:
    colours = [line.colour for line in night.brief(200).table]

    assert colours == sorted(colours, key=["", "yellow", "red"].index)
    assert colours.count("yellow") >= 2


def test_the_page_of_the_job_begins_with_what_is_red(night: Night) -> None:
    brief = night.brief(100)
    page = brief.as_markdown()

    assert page.startswith(f"## Performance: {brief.title}\n\n### [1] ERROR(timeout): 2 cases\n\n```text\n")
    assert page.count("```") == 2 * (len(brief.causes) + 1)
    assert CASES[-1].id in page.partition("<details>")[2]
