"""What a page says: its first sentence, its order, and what it holds of each case."""

from __future__ import annotations

import msgspec
import pytest

from perf_tests.harness.page.marks import Kind, mark_of
from perf_tests.harness.page.pages import page_of
from perf_tests.harness.page.sources import PageSources
from perf_tests.harness.page.view import Page, PageCase
from perf_tests.harness.records.attributions import Attribution, Blame
from perf_tests.harness.records.evidence import Evidence
from perf_tests.harness.runs.plan import Part, Plan
from perf_tests.harness.runs.record import Comparison, Progress, Run, Schedule, Status
from perf_tests.protocol.messages import FailureKind, Phase
from perf_tests.tables.platforms import H100
from perf_tests.unit.builders import (
    FLUX_FP8,
    GPU,
    H100_UUID,
    MINI_BF16,
    MINI_INT8WO,
    make_accepted,
    make_build,
    make_entry,
    make_environment,
    make_failure,
    make_process,
    make_record,
    make_run,
    make_sample,
    make_verdict,
)

SLOWER = make_verdict(
    "denoise_step_ms",
    Status.REGRESSED,
    measured=103.4,
    baseline=100.0,
    change_pct=3.4,
    ci_pct=(2.1, 4.7),
    limit=100.75,
)
PASSED = make_verdict("recompiles", Status.PASS, measured=0.0, baseline=0.0, limit=0.0)


def judged(*verdicts_on: object, run: Run | None = None, **changes: object) -> Run:
    return msgspec.structs.replace(
        run or make_run(), progress=Progress.JUDGED, verdicts=verdicts_on, reason="", **changes
    )


def red_run() -> Run:
    process = make_process(
        environment=make_environment(gpu=GPU, packages={"torch": "2.15.0", "torchao": "0.18.0"}),
        build=make_build(roofline_ms=51.7, seconds={"load": 20.0, "compile": 30.0}),
        samples=(make_sample({"denoise_step_ms": (103.0, 104.0)}),) * 2,
    )
    return judged(
        PASSED,
        SLOWER,
        run=make_run(FLUX_FP8, H100, processes=(process,)),
        status=Status.REGRESSED,
        measured={"denoise_step_ms": 103.4, "encode_ms": 50.0},
    )


def page(*runs: Run, **changes: object) -> Page:
    return page_of(PageSources(record=make_record(*runs, references=(), **changes), where="out"))


def only(page: Page) -> PageCase:
    (case,) = page.cases
    return case


def test_sentence_of_a_green_run_says_so() -> None:
    green = page(judged(PASSED, status=Status.PASS))

    assert green.sentence == "The case is green."
    assert green.is_green
    assert green.counts == "1 case: 1 green"
    assert green.causes == ()
    assert only(green).failure == ""
    assert not only(green).is_open


def test_sentence_names_what_broke_by_how_much_and_what_changed_since() -> None:
    accepted = make_accepted(
        make_entry({"denoise_step_ms": (99.5, 100.5)}, case=FLUX_FP8),
        packages={"torch": "2.14.0", "torchao": "0.18.0"},
        unit=H100_UUID,
        gpu=GPU.name,
        driver=GPU.driver,
        power_limit_w=GPU.power_limit_w,
        settings={"matmul_precision": "highest"},
    )
    record = make_record(red_run(), references=())

    made = page_of(PageSources(record=record, where="out", accepted={FLUX_FP8.id: accepted}))

    assert made.sentence == (
        "denoise_step_ms of flux1-dev-b1-fp8dqrow-regional: REGRESSED by +3.40 % (103.4 ms, limit 100.8 ms); "
        "since its baseline of 2026-08-02: torch 2.14.0 -> 2.15.0."
    )
    case = only(made)
    assert case.steps is not None
    assert case.steps.title == (
        "4 steps of 1 process: 103.0 ms to 104.0 ms; baseline 99.50 ms to 100.5 ms, limit 100.8 ms"
    )


def test_sentence_names_the_package_where_the_run_holds_an_attribution() -> None:
    attribution = Attribution(
        case="another",
        metric="denoise_step_ms",
        scheme="fp8dqrow",
        compile="regional",
        platform="h100",
        blame=Blame.TORCH,
        sentence="torch 2.15.0 with Triton: +3.1 of +3.4 %",
        members=("another", FLUX_FP8.id),
    )

    made = page(red_run(), attributions=(attribution,))

    assert made.sentence.endswith("limit 100.8 ms); torch 2.15.0 with Triton: +3.1 of +3.4 %.")
    facts = only(made).facts
    assert ("where denoise_step_ms comes from", "torch 2.15.0 with Triton: +3.1 of +3.4 %") in facts


def test_what_was_recorded_of_a_red_case_is_told_and_linked_but_no_other_file() -> None:
    evidence = Evidence(
        id=FLUX_FP8.id,
        script=f"repro/{FLUX_FP8.id}.py",
        traces={"stable": "profiles/a.stable.json.gz", "candidate": "profiles/../../etc/passwd"},
        snapshot="/etc/shadow",
        profile_problem="the driver refuses",
    )

    case = only(page(red_run(), evidence=(evidence, Evidence(id="another", script="repro/another.py"))))

    assert case.files == (
        ("a script of its steps, which needs nothing of this suite", f"repro/{FLUX_FP8.id}.py"),
        ("one step of the stable stack, for ui.perfetto.dev", "profiles/a.stable.json.gz"),
    )
    assert "  unknown    which kernels: the driver refuses" in case.failure.splitlines()


def test_case_says_everything_about_it() -> None:
    case = only(page(red_run()))

    assert case.is_open
    assert case.mark.kind is Kind.WORSE
    assert case.headline == "denoise_step_ms +3.40 %"
    assert (case.pipeline, case.scheme, case.group) == ("flux1-dev", "fp8dqrow", "b1 regional")
    assert case.failure.splitlines()[0] == (
        "flux1-dev-b1-fp8dqrow-regional on h100: denoise_step_ms regressed"
    )
    (worst,) = case.metrics
    assert worst.name == "denoise_step_ms"
    assert [(each.title, [metric.name for metric in each.metrics]) for each in case.folded] == [
        ("1 metric passed", ["recompiles"])
    ]
    assert (worst.baseline, worst.now, worst.change) == ("100.0 ms", "103.4 ms", "+3.40 %")
    assert (worst.interval, worst.limit) == ("+2.10 to +4.70 %", "100.8 ms")
    assert case.shown == (("encode_ms", "50.00 ms"),)
    assert case.costs is not None
    assert case.costs.title == "50.00 s: load 20.00 s, compile 30.00 s"
    assert case.costs_title == "GPU seconds"
    assert case.roofline == (
        "a denoise step takes 103.4 ms and at least 51.70 ms: 50 % of what the device states for that work"
    )
    assert ("repeat it", "pytest --perf-case 'flux1-dev-b1-fp8dqrow-regional'") in case.facts


def test_worst_cases_come_first_and_new_ones_stay_folded() -> None:
    passed = judged(PASSED, run=make_run(MINI_BF16), status=Status.PASS)
    new = judged(
        make_verdict("recompiles", Status.NO_BASELINE), run=make_run(MINI_INT8WO), status=Status.NO_BASELINE
    )

    made = page(passed, new, red_run())

    assert [case.id for case in made.cases] == [FLUX_FP8.id, MINI_INT8WO.id, MINI_BF16.id]
    assert [case.rank for case in made.cases] == [0, 1, 2]
    assert [case.is_open for case in made.cases] == [True, False, False]
    assert made.counts == "3 cases: 1 green, 1 red for 1 cause, 1 without a baseline"
    assert made.causes == (
        (
            "denoise_step_ms REGRESSED: 1 case, +3.40 %: flux1-dev-b1-fp8dqrow-regional",
            "case-flux1-dev-b1-fp8dqrow-regional",
        ),
        ("NO_BASELINE: 1 case: flux-mini-b1-int8wo-eager", "case-flux-mini-b1-int8wo-eager"),
    )


def test_only_the_worst_case_of_each_cause_is_unfolded() -> None:
    slower = [
        judged(
            make_verdict("denoise_step_ms", Status.REGRESSED, change_pct=change_pct),
            run=make_run(case),
            status=Status.REGRESSED,
        )
        for case, change_pct in ((MINI_BF16, 2.0), (MINI_INT8WO, 3.0))
    ]
    failure = make_failure(kind=FailureKind.CRASH, phase=Phase.COMPILE, message="signal 11 " * 100)
    crashed = judged(run=make_run(FLUX_FP8, H100, processes=()), status=Status.CRASH, failure=failure)

    made = page(*slower, crashed)

    assert [(case.id, case.is_open) for case in made.cases] == [
        (FLUX_FP8.id, True),
        (MINI_INT8WO.id, True),
        (MINI_BF16.id, False),
    ]
    assert made.sentence.startswith("flux1-dev-b1-fp8dqrow-regional: ERROR(crash): signal 11 signal 11 ")
    assert len(made.sentence) < 300


def test_case_that_failed_says_when_and_why() -> None:
    failure = make_failure(
        kind=FailureKind.CRASH, phase=Phase.COMPILE, message="signal 11", details="last words"
    )
    run = judged(status=Status.CRASH, failure=failure, processes=())

    made = page(msgspec.structs.replace(run, reason="signal 11"))

    assert made.sentence == "flux-mini-b1-int8wo-eager: ERROR(crash): signal 11"
    case = only(made)
    assert case.mark.kind is Kind.BROKEN
    assert case.failure.splitlines()[:2] == [
        "flux-mini-b1-int8wo-eager on cpu: ERROR(crash) while the worker was in phase 'compile'",
        "  reason     signal 11",
    ]
    assert "    | last words" in case.failure
    assert case.steps is None
    assert case.costs is None


@pytest.mark.parametrize(
    ("status", "sentence"),
    [
        (Status.NO_BASELINE, "Nothing broke; 1 of 2 cases has no baseline yet: record them."),
        (Status.NOT_RUN, "Nothing broke; 1 of 2 cases were not run: resume the session."),
    ],
)
def test_sentence_tells_what_is_new_or_left_from_what_broke(status: Status, sentence: str) -> None:
    verdicts = (make_verdict("recompiles", status),) if status is Status.NO_BASELINE else ()
    passed = judged(PASSED, run=make_run(MINI_BF16), status=Status.PASS)

    assert page(passed, judged(*verdicts, status=status)).sentence == sentence


def test_verdict_that_was_never_given_is_red() -> None:
    made = page(judged(PASSED, status=Status.PASS), missing=("a: recompiles", "b: recompiles"))

    assert not made.is_green
    assert made.sentence == "2 verdicts that this session owes were never given: that is red, too."
    assert made.remarks == ("selected, but no verdict was given: a: recompiles, b: recompiles",)


def test_run_of_nothing_is_not_called_green() -> None:
    record = msgspec.structs.replace(make_record(), cases=(), references=())

    assert page_of(PageSources(record=record, where="out")).sentence == "Nothing was measured."


def test_unsupported_case_that_had_a_baseline_is_broken() -> None:
    failure = make_failure(kind=FailureKind.UNSUPPORTED, message="no kernel")
    run = judged(run=make_run(FLUX_FP8, H100), status=Status.UNSUPPORTED, failure=failure)
    record = make_record(run, references=())

    assert only(
        page_of(PageSources(record=record, where="out", accepted={FLUX_FP8.id: make_accepted()}))
    ).mark.kind is (Kind.BROKEN)


def test_session_that_was_stopped_and_a_fire_drill_are_said() -> None:
    stopped = make_run(progress=Progress.INTERRUPTED, reason="interrupted")
    drill = judged(PASSED, run=make_run(MINI_BF16), status=Status.PASS, injected=("oom",))

    assert page(stopped, drill).remarks == (
        "1 of 2 cases were not measured to their end: the session was stopped",
        "a fire drill: faults were injected into 1 of 2 cases",
    )


def test_tables_name_cards_versions_and_the_session() -> None:
    plan = Plan(
        cases=(),
        noisy_metrics=1,
        commit="abc",
        shard=(1, 2),
        parts=(Part(shard=(1, 2), created_at="", command="", sha256=""),),
    )
    tables = {table.title: table for table in page(red_run(), plan=plan).tables}

    assert tables["Versions"].rows == (("python", "3.11.9"), ("torch", "2.15.0"), ("torchao", "0.18.0"))
    assert tables["Cards and processors"].rows[0][:5] == (
        H100_UUID,
        "NVIDIA H100 80GB HBM3",
        "79.6 GiB",
        "700 W",
        "580.10",
    )
    session = tables["This session"].rows
    assert {("command", "pytest -m cpu"), ("commit", "abc"), ("part", "1 of 2")} < set(session)


def test_ids_of_another_matrix_are_shown_and_get_anchors_of_their_own() -> None:
    strangers = [make_run(id=name, status=Status.PASS, verdicts=(PASSED,)) for name in ("a b", "a<b", "é")]

    made = page(*strangers)

    assert {case.scheme for case in made.cases} == {"another matrix"}
    assert len({case.anchor for case in made.cases}) == 3
    assert all(case.anchor.isascii() and " " not in case.anchor for case in made.cases)


def test_every_status_has_a_mark_and_only_errors_are_broken() -> None:
    kinds = {status: mark_of(status).kind for status in Status}

    assert {status for status, kind in kinds.items() if kind is Kind.BROKEN} == {
        status for status in Status if status.is_error
    }
    green = (Kind.GOOD, Kind.BETTER, Kind.ABSENT, Kind.ACKNOWLEDGED)
    assert {status for status, kind in kinds.items() if kind in green} == {
        status for status in Status if status.is_green
    }


def test_other_cases_of_a_cause_are_counted_beside_the_worst() -> None:
    less = msgspec.structs.replace(SLOWER, change_pct=1.0)
    other = judged(less, run=make_run(MINI_INT8WO), status=Status.REGRESSED)

    assert page(other, red_run()).causes[0][0] == (
        "denoise_step_ms REGRESSED: 2 cases, +1.00 % to +3.40 %: flux1-dev-b1-fp8dqrow-regional and 1 more"
    )


def test_comparisons_with_another_stack_are_a_table() -> None:
    comparison = Comparison(
        id=FLUX_FP8.id,
        digest="d",
        platform="h100",
        pipeline="flux1-dev",
        against="/stable/python",
        schedule=Schedule.RESIDENT,
        schedule_reason="both fit",
        status=Status.INCONCLUSIVE,
        reason="stopped",
    )
    made = page(red_run(), comparisons=(comparison,))

    table = next(table for table in made.tables if table.title == "A/B")
    assert any("INCONCLUSIVE: stopped" in line for (line,) in table.rows)
