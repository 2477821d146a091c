"""What may stand in findings.json: nothing but what this checkout knows, however it is wrapped."""

from __future__ import annotations

import json
import runpy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from perf_tests.harness.records.attributions import Amount, Attribution, Blame
from perf_tests.harness.runs.record import Status
from perf_tests.harness.telling import findings, issues
from perf_tests.harness.telling.night import findings_of
from perf_tests.protocol.errors import RecordError
from perf_tests.tables.metrics.rows import METRIC_BY_NAME
from perf_tests.tables.platforms import H100
from perf_tests.unit.builders import make_environment, make_failure, make_record, make_run, make_verdict
from perf_tests.unit.conftest import CASES, ROOT
from perf_tests.unit.harness.telling.nights import BF16, FP8, FP8_B4, INT8, STEP, cause, night

main: Callable[[list[str]], int] = runpy.run_path(str(ROOT / "tools" / "tell.py"))["main"]
HONEST = json.loads(findings.dumps(night(1, cause(FP8, FP8_B4, blame=Blame.TORCH))))


def test_honest_findings_are_read_as_they_were_written() -> None:
    written = night(1, cause(FP8, FP8_B4, blame=Blame.TORCH))
    assert findings.loads(findings.dumps(written)) == written


INJECTION = "x](https://evil.example) @everyone <script>"
HOSTILE: dict[str, Callable[[Any], Any]] = {
    "not JSON": lambda _: b"{",
    "not UTF-8": lambda _: b"\xff\xfe",
    "deep": lambda _: b"[" * 100_000,
    "huge": lambda _: b" " * (findings.MAX_BYTES + 1),
    "a list": lambda _: b"[]",
    "another format": lambda good: {**good, "format_version": 2},
    "an unknown field": lambda good: {**good, "text": "hello"},
    "a missing field": lambda good: {name: each for name, each in good.items() if name != "causes"},
    "wrong types": lambda good: {**good, "counts": "yes"},
    "a night that is none": lambda good: {**good, "night": "2026-11-01\n# owned"},
    "a day that no calendar has": lambda good: {**good, "night": "2026-02-31"},
    "a run that is a path": lambda good: {**good, "run": "../../etc/passwd"},
    "a version with markdown": lambda good: {**good, "packages": {"torch": INJECTION}},
    "a package with markdown": lambda good: {**good, "packages": {INJECTION: "2.13"}},
    "a commit that is none": lambda good: {**good, "commits": {"torch": "main; rm -rf"}},
    "an escape sequence": lambda good: {**good, "packages": {"torch": "\x1b]0;owned\x07"}},
    "a case of nobody": lambda good: changed(good, case=INJECTION),
    "a case that is a path": lambda good: changed(good, case="../run.json"),
    "a case that does not exist": lambda good: changed(good, case="flux9-b1-int1-eager"),
    "a number that is none": lambda good: changed(good, change_pct=1e300),
    "a number in words": lambda good: changed(good, change_pct="a lot"),
    "a status that is no cause": lambda good: in_cause(good, status="PASS"),
    "a metric of nobody": lambda good: in_cause(good, metric="speed"),
    "a scheme of another case": lambda good: in_cause(good, scheme="int8wo"),
    "a platform of nobody": lambda good: in_cause(good, platform="h9000"),
    "blame of nobody": lambda good: in_cause(good, blame="the intern"),
    "a cause without cases": lambda good: in_cause(good, members=[]),
    "a cause twice": lambda good: {**good, "causes": good["causes"] * 2},
    "a case of a cause twice": lambda good: in_cause(good, members=good["causes"][0]["members"] * 2),
    "a red case that has no outcome": lambda good: {**good, "outcomes": good["outcomes"][1:]},
    "a package that is a link": lambda good: {**good, "packages": {"www.owned.example": "1"}},
    "a commit of nobody": lambda good: {**good, "commits": {"GH-1": "0123456"}},
    "a case twice": lambda good: {**good, "outcomes": good["outcomes"] * 2},
}


def in_cause(good: dict[str, Any], **changes: Any) -> dict[str, Any]:
    return {**good, "causes": [{**good["causes"][0], **changes}]}


def changed(good: dict[str, Any], **changes: Any) -> dict[str, Any]:
    return in_cause(good, members=[{**good["causes"][0]["members"][0], **changes}])


@pytest.mark.parametrize("hostile", HOSTILE.values(), ids=HOSTILE)
def test_hostile_findings_change_nothing_and_fail_loudly(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], hostile: Callable[[Any], Any]
) -> None:
    made = hostile(HONEST)
    file, known = tmp_path / "findings.json", tmp_path / "issues.json"
    file.write_bytes(made if isinstance(made, bytes) else json.dumps(made).encode())
    known.write_text("[]")
    assert main([str(file), "--issues", str(known)]) == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.startswith("tell: ")
    assert "\x1b" not in told.err
    assert "evil" not in told.err


def test_what_is_planned_is_printed_and_nothing_is_sent(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, known = tmp_path / "findings.json", tmp_path / "issues.json"
    file.write_bytes(findings.dumps(night(1, cause(FP8))))
    known.write_text(
        '[{"number": 3, "state": "open", "title": "other", "user": {"login": "x"}, "labels": []}]'
    )
    assert main([str(file), "--issues", str(known)]) == 0
    assert capsys.readouterr().out.startswith(
        'create "Performance: fp8dqrow regional on h100: denoise_step_ms regressed"\n<!-- perf-cause:v1 '
    )


@pytest.mark.parametrize("known", ["", "{}", '[{"number": "x"}]'])
def test_issues_that_are_not_the_apis_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], known: str
) -> None:
    file, known_file = tmp_path / "findings.json", tmp_path / "issues.json"
    file.write_bytes(findings.dumps(night(1)))
    known_file.write_text(known)
    assert main([str(file), "--issues", str(known_file)]) == 2
    assert "it holds issues as GitHub's API lists them" in capsys.readouterr().err


def test_findings_that_are_not_there_are_refused(tmp_path: Path) -> None:
    with pytest.raises(RecordError, match="cannot be read: No such file or directory: nothing is told"):
        findings.read(tmp_path / "findings.json")


# From a record


def test_cases_that_are_red_alike_are_one_cause_with_its_attribution() -> None:
    runs = [
        make_run(CASES[each], H100, verdicts=(make_verdict(metric, Status.REGRESSED, change_pct=1.5),))
        for each, metric in ((FP8, STEP), (FP8_B4, "speedup_vs_bf16"), (INT8, STEP))
    ]
    answer = Attribution(
        case=FP8,
        metric=STEP,
        scheme="fp8dqrow",
        compile="regional",
        platform="h100",
        blame=Blame.TORCH,
        sentence="free text that is told to nobody",
        members=(FP8,),
        whole=Amount(value=1.5, low=1.0, high=2.0),
    )
    versions = {"torch": "2.15.0.dev20261120 (0123456789ab)", "numpy": "2.4"}
    environment = make_environment(packages=versions)
    record = make_record(*runs, references=(), environment=environment, attributions=(answer,))
    found = findings_of(record, {FP8: "2026-10-01T00:00:00+00:00"}, "17-1")

    assert [[each.case for each in cause.members] for cause in found.causes] == [[FP8, FP8_B4], [INT8]]
    assert [each.metric for each in found.causes] == [STEP, STEP]
    assert (found.causes[0].blame, found.causes[0].whole, found.causes[1].blame) == (Blame.TORCH, 1.5, None)
    assert (found.packages, found.commits["torch"]) == ({"torch": "2.15.0.dev20261120"}, "0123456789ab")
    assert found.outcomes[0].baseline_of == "2026-10-01"
    assert b"free text" not in findings.dumps(found)
    assert findings.loads(findings.dumps(found)) == found


def test_a_regression_of_few_cases_is_not_hidden_behind_another_one_of_many() -> None:
    breaks = make_verdict("graph_breaks", Status.REGRESSED)
    slower = make_verdict(STEP, Status.REGRESSED, change_pct=6.0)
    many = [each for each in CASES if each.endswith("-fp8dqrow-regional")][:6]
    runs = [
        make_run(CASES[each], H100, verdicts=(slower, breaks) if number == 0 else (breaks,))
        for number, each in enumerate(many)
    ]
    found = findings_of(make_record(*runs, references=()), {}, "0")

    told = {cause.metric: [each.case for each in cause.members] for cause in found.causes}
    assert told == {"graph_breaks": many, STEP: many[:1]}
    assert findings.loads(findings.dumps(found)) == found


def test_symptoms_of_the_same_cases_are_one_cause_by_the_one_that_leads() -> None:
    both = make_verdict(STEP, Status.REGRESSED), make_verdict("graph_breaks", Status.REGRESSED)
    runs = [make_run(CASES[each], H100, verdicts=both) for each in (FP8, FP8_B4)]
    (cause,) = findings_of(make_record(*runs, references=()), {}, "0").causes
    assert (cause.metric, len(cause.members)) == ("graph_breaks", 2)


def test_what_is_better_than_can_be_is_a_cause_of_its_own() -> None:
    runs = [
        make_run(CASES[each], H100, verdicts=(make_verdict(STEP, status, change_pct=change),))
        for each, status, change in ((FP8, Status.SURPRISE, -40.0), (FP8_B4, Status.REGRESSED, 1.5))
    ]
    found = findings_of(make_record(*runs, references=()), {}, "7-1")
    assert {issues.title(each): each.members for each in found.causes} == {
        "Performance: fp8dqrow regional on h100: denoise_step_ms improved without explanation": (
            findings.MemberChange(case=FP8, change_pct=-40.0),
        ),
        "Performance: fp8dqrow regional on h100: denoise_step_ms regressed": (
            findings.MemberChange(case=FP8_B4, change_pct=1.5),
        ),
    }
    assert [each.red for each in found.outcomes] == [("denoise_step_ms",)] * 2
    assert findings.loads(findings.dumps(found)) == found


def test_a_case_that_could_not_be_measured_is_a_cause_by_its_status() -> None:
    run = make_run(CASES[FP8], H100, status=Status.OOM, failure=make_failure())
    found = findings_of(make_record(run), {}, "0")
    assert (found.causes[0].metric, found.causes[0].status) == ("build", Status.OOM)
    assert (found.outcomes[0].measured, found.outcomes[0].red) == (False, ("build",))


@pytest.mark.parametrize(
    "status",
    [Status.INVALID, Status.INCONCLUSIVE, Status.NO_BASELINE, Status.ACKNOWLEDGED, Status.STALE],
)
def test_what_is_not_the_codes_fault_is_no_cause_and_not_green(status: Status) -> None:
    run = make_run(CASES[FP8], H100, verdicts=(make_verdict(STEP, status),))
    found = findings_of(make_record(run), {}, "0")
    assert found.causes == ()
    assert found.outcomes[0].undecided == (STEP,)


def test_a_verdict_that_is_missing_is_not_green() -> None:
    run = make_run(CASES[FP8], H100, verdicts=(make_verdict("weight_bytes", Status.PASS),))
    lacking = (f"{FP8}: {STEP}", f"{FP8}: build", f"{INT8}: {STEP}")
    found = findings_of(make_record(run, missing=lacking), {}, "0")

    assert [(each.case, each.measured, each.undecided) for each in found.outcomes] == [
        (FP8, True, ("build", STEP)),
        (INT8, False, (STEP,)),
    ]
    assert findings.loads(findings.dumps(found)) == found


def test_a_fire_drill_does_not_count() -> None:
    run = make_run(CASES[FP8], H100, injected=("latency:+3%",))
    assert not findings_of(make_record(run), {}, "0").counts


def test_a_fire_drill_of_a_reference_alone_does_not_count() -> None:
    drilled = make_run(CASES[BF16], H100, injected=("latency:+3%",))
    record = make_record(make_run(CASES[FP8], H100), references=(drilled,))
    assert not findings_of(record, {}, "0").counts


@pytest.mark.parametrize("status", [Status.REGRESSED, Status.INVALID])
def test_a_night_in_which_nothing_is_green_can_be_told(status: Status) -> None:
    verdicts = tuple(make_verdict(name, status) for name in METRIC_BY_NAME)
    runs = [make_run(case, H100, verdicts=verdicts) for case in list(CASES.values())[:300]]
    content = findings.dumps(findings_of(make_record(*runs, references=()), {}, "0"))
    assert len(findings.loads(content).outcomes) == 300


def test_a_night_of_all_rows_is_small() -> None:
    runs = [
        make_run(case, H100, verdicts=(make_verdict(STEP, Status.REGRESSED, change_pct=1.5),))
        for case in list(findings.CASES.values())[:300]
    ]
    content = findings.dumps(findings_of(make_record(*runs, references=()), {}, "0"))
    assert len(content) < findings.MAX_BYTES / 2
    assert msgspec.json.decode(content)["format_version"] == 1
