"""attribution/symptoms.py: what has one cause, what is a cause of its own, what follows from another case."""

from __future__ import annotations

import msgspec
import pytest

from perf_tests.harness.report.causes import causes, counts
from perf_tests.harness.runs.record import Run, Status, Verdict
from perf_tests.protocol.messages import FailureKind, Phase
from perf_tests.unit.builders import make_failure, make_run, make_verdict

REFERENCE = "bf16"
THROTTLED = "the GPU was throttled during process {}: hw_thermal for 12.5 ms"


def verdict(metric: str, status: Status = Status.REGRESSED, reason: str = "why", **changes: float) -> Verdict:
    """One on `metric`."""
    return make_verdict(metric, status, reason=reason, **changes)


def run(case_id: str, *verdicts: Verdict) -> Run:
    """A case that was measured, with the bf16 case as its reference."""
    return msgspec.structs.replace(
        make_run(),
        id=case_id,
        status=Status.PASS,
        reference=None if case_id == REFERENCE else REFERENCE,
        verdicts=verdicts,
    )


def found(*runs: Run) -> list[tuple[str, Status, tuple[str, ...]]]:
    """The causes: metric, status, ids of the cases."""
    return [
        (each.metric, each.status, tuple(run.id for run in each.runs))
        for each in causes(runs, lambda _: True)
    ]


def titles(*runs: Run) -> list[str]:
    """What is said of each cause."""
    return [each.title() for each in causes(runs, lambda _: True)]


def test_symptoms_of_the_same_cases_have_one_cause_named_by_the_exact_one() -> None:
    both = verdict("denoise_step_ms", change_pct=50.0), verdict("kernels_per_step", change_pct=100.0)
    (cause,) = causes([run("a", *both), run("b", *both)], lambda _: True)

    assert cause.title() == "kernels_per_step REGRESSED: 2 cases, +100.00 %"
    assert cause.also() == "denoise_step_ms (2)"


def test_a_fault_of_a_few_cases_is_not_hidden_by_a_worse_one_of_many() -> None:
    slow = verdict("denoise_step_ms", change_pct=6.0)
    lacks = verdict("weight_bytes", Status.INCONCLUSIVE, "weight_bytes is missing")
    many = [run(f"case {number}", slow, *([lacks] if number < 2 else [])) for number in range(9)]

    assert titles(*many) == [
        "denoise_step_ms REGRESSED: 9 cases, +6.00 %",
        "weight_bytes INCONCLUSIVE: 2 cases",
    ]
    assert counts(many, causes(many, lambda _: True)) == "9 cases: 9 red for 2 causes"


@pytest.mark.parametrize(("both", "count"), [(4, 1), (3, 2)])
def test_symptoms_that_two_thirds_of_the_cases_share_have_one_cause(both: int, count: int) -> None:
    slow, leaks = verdict("denoise_step_ms"), verdict("leaked_mib_per_image")
    shared = [run(f"both {number}", slow, leaks) for number in range(both)]

    assert len(found(*shared, run("slow", slow), run("leaks", leaks))) == count


def test_whatever_a_throttled_gpu_spoils_has_one_cause_that_is_told() -> None:
    first = run(
        "case-1", *(verdict(name, Status.INVALID, THROTTLED.format(1)) for name in ("encode_ms", "load_s"))
    )
    second = run("case-2", verdict("decode_ms", Status.INVALID, THROTTLED.format(2)))

    assert titles(first, second) == ["INVALID: 2 cases, the GPU was throttled during process 1"]


def test_another_reason_for_invalid_times_is_another_cause() -> None:
    throttled = run("a", verdict("encode_ms", Status.INVALID, THROTTLED.format(1)))
    busy = run("b", verdict("encode_ms", Status.INVALID, "the host was busy"))

    assert titles(throttled, busy) == [
        "INVALID: 1 case, the GPU was throttled during process 1",
        "INVALID: 1 case, the host was busy",
    ]


def test_a_ratio_to_a_reference_that_is_red_shows_what_is_wrong_with_the_reference() -> None:
    slower = run(REFERENCE, verdict("denoise_step_ms", change_pct=12.0))
    faster = run("fp8", verdict("speedup_vs_bf16", Status.SURPRISE, change_pct=12.0))
    (cause,) = causes([faster, slower], lambda _: True)

    assert [each.id for each in cause.runs] == [REFERENCE, "fp8"]
    assert cause.title() == "denoise_step_ms REGRESSED: 2 cases, +12.00 %"
    assert cause.also() == "speedup_vs_bf16 (1)"


def test_a_ratio_to_a_reference_that_was_throttled_is_spoiled_by_that_in_any_session() -> None:
    spoiled = THROTTLED.format(1)
    ratio = verdict("speedup_vs_bf16", Status.INVALID, f"of the reference {REFERENCE}, {spoiled}")
    reference = run(REFERENCE, verdict("denoise_step_ms", Status.INVALID, spoiled))

    assert titles(run("fp8", ratio), reference) == [
        "INVALID: 2 cases, the GPU was throttled during process 1"
    ]
    assert titles(run("fp8", ratio)) == ["INVALID: 1 case, the GPU was throttled during process 1"]


def test_a_ratio_to_a_reference_without_a_baseline_is_a_cause_of_its_own() -> None:
    new = run(REFERENCE, verdict("denoise_step_ms", Status.NO_BASELINE))
    slower = run("fp8", verdict("speedup_vs_bf16", change_pct=-9.0))

    assert found(slower, new) == [
        ("speedup_vs_bf16", Status.REGRESSED, ("fp8",)),
        ("", Status.NO_BASELINE, (REFERENCE,)),
    ]


def test_a_case_that_lacks_nothing_but_its_baseline_is_not_red_for_more() -> None:
    lacks = (verdict("denoise_step_ms", Status.NO_BASELINE), verdict("weight_bytes", Status.NO_BASELINE))

    assert found(run("a", *lacks)) == [("", Status.NO_BASELINE, ("a",))]


def test_a_case_that_is_worse_than_without_a_baseline_counts_once() -> None:
    leaks = verdict("leaked_mib_per_image")
    runs = [run("case", leaks, verdict("denoise_step_ms", Status.NO_BASELINE))]
    told = causes(runs, lambda _: True)

    assert [each.title() for each in told] == ["leaked_mib_per_image REGRESSED: 1 case"]
    assert counts(runs, told) == "1 case: 1 red for 1 cause"


def test_images_that_take_longer_and_longer_lead_before_the_mean_that_grows_with_them() -> None:
    slows, slower = verdict("slowing_pct"), verdict("denoise_step_ms", change_pct=12.0)
    ratio = verdict("speedup_vs_bf16", Status.SURPRISE, change_pct=12.0)
    slowing = run(REFERENCE, slower, slows), run("int8dq", slower, slows)
    (cause,) = causes([*slowing, *(run(f"{n}", ratio) for n in range(9))], lambda _: True)

    assert cause.title() == "slowing_pct REGRESSED: 11 cases"
    assert cause.also() == "speedup_vs_bf16 (9), denoise_step_ms (2)"
    assert [each.metric for run in cause.runs[:2] if (each := cause.verdict(run))] == ["slowing_pct"] * 2


def failed(case_id: str, message: str) -> Run:
    """A case that could not be measured as asked."""
    failure = make_failure(kind=FailureKind.UNPROVEN, phase=Phase.INSPECT, message=message)
    made = run(case_id)
    return msgspec.structs.replace(
        made, pipeline="auraflow", status=Status.UNPROVEN, reason=message, failure=failure
    )


def is_green(run: Run) -> bool:
    """Whether the case was measured as asked."""
    return run.failure is None


EAGER = "the recipe {} compiles every Block, and 4 calls in a step were eager"


def test_cases_that_failed_alike_have_one_cause_whatever_their_recipes_are_called() -> None:
    runs = [failed(f"auraflow-b1-{each}", EAGER.format(each)) for each in ("fp8wo-regional", "bf16-regional")]

    assert [each.title() for each in causes(runs, is_green)] == ["ERROR(unproven): 2 cases"]


def test_a_case_without_the_reference_that_failed_is_of_the_cause_of_that() -> None:
    why = EAGER.format("bf16-regional")
    lacks = f"psnr_db of int8dq is missing: the bf16 reference {REFERENCE} failed: {why}"
    runs = [run("int8dq", verdict("psnr_db", Status.INCONCLUSIVE, lacks)), failed(REFERENCE, why)]
    (cause,) = causes(runs, is_green)

    assert cause.title() == "ERROR(unproven): 2 cases"
    assert [each.id for each in cause.runs] == [REFERENCE, "int8dq"]
    assert cause.verdict(cause.runs[0]) is None


def test_another_fault_of_a_case_whose_reference_failed_is_a_cause_of_its_own() -> None:
    leaks = run("int8dq", verdict("leaked_mib_per_image"))

    assert [each.title() for each in causes([leaks, failed(REFERENCE, "why")], is_green)] == [
        "ERROR(unproven): 1 case",
        "leaked_mib_per_image REGRESSED: 1 case",
    ]


def test_changes_that_read_alike_are_one_number() -> None:
    runs = [run(f"case-{n}", verdict("denoise_step_ms", change_pct=40 + n / 10_000)) for n in range(3)]

    assert titles(*runs) == ["denoise_step_ms REGRESSED: 3 cases, +40.00 %"]
