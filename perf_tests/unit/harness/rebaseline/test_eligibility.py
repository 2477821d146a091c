from __future__ import annotations

import msgspec
import pytest

from perf_tests.harness.rebaseline import candidates
from perf_tests.harness.rebaseline.eligibility import drifted, objection_to_entry, objection_to_run
from perf_tests.harness.runs.record import Process, Progress, Run, RunRecord, Status
from perf_tests.tables.cases import Case
from perf_tests.tables.platforms import H100, Noise
from perf_tests.unit.builders import (
    CPU_MODEL,
    FLUX_FP8,
    GPU,
    MINI_INT8WO,
    make_build,
    make_case,
    make_entry,
    make_environment,
    make_failure,
    make_process,
    make_record,
    make_reference,
    make_run,
    make_verdict,
)
from perf_tests.unit.harness.rebaseline.proposals import UNSTEADY, on_h100, timed, unsteady, with_bytes

ID = MINI_INT8WO.id
FLUX_TUNED = candidates.CASES["flux1-dev-b1-int8dq-regional-tuned"].case
FLUX_WHOLE_TUNED = candidates.CASES["flux1-dev-b1-bf16-maxautotune-cl-cdt"].case
NOISE = dict.fromkeys(("decode_ms", "denoise_step_ms", "speedup_vs_bf16"), Noise(sd_pct=0.36, dof=6))


def objection(run: Run, platform: str | None = None) -> str | None:
    return objection_to_run(run, make_record(run), platform)


def objection_to_numbers(record: RunRecord) -> str | None:
    run = record.cases[0]
    return objection_to_entry(run.id, candidates.entry_of(run, record, "p1"), NOISE)


def encoding(run_ms: list[list[float]], reference_ms: list[float], case: Case = FLUX_FP8) -> RunRecord:
    """A session on an H100 with a process for each list of encoding times, and one of the reference."""

    def process(times_ms: list[float]) -> Process:
        whole = on_h100(100.0)
        samples = tuple(
            msgspec.structs.replace(sample, values={**sample.values, "encode_ms": (time_ms,)})
            for sample, time_ms in zip(whole.samples, times_ms, strict=True)
        )
        return msgspec.structs.replace(whole, samples=samples)

    return make_record(
        make_run(case, H100, processes=tuple(map(process, run_ms))),
        references=(make_reference(case, H100, processes=(process(reference_ms),)),),
    )


# Of runs


@pytest.mark.parametrize(
    "status", [Status.PASS, Status.IMPROVED, Status.SURPRISE, Status.REGRESSED, Status.NO_BASELINE]
)
def test_a_run_is_eligible_with_any_verdict_that_could_be_given(status: Status) -> None:
    run = make_run(status=status, reason="judged", verdicts=(make_verdict("weight_bytes", status),))
    assert objection(run) is None


def test_a_run_that_was_not_judged_is_eligible() -> None:
    assert objection(make_run(verdicts=())) is None


def test_a_run_that_was_interrupted_is_not_eligible() -> None:
    run = make_run(progress=Progress.INTERRUPTED, reason="interrupted")
    assert objection(run) == "it was interrupted before it had all its processes"


def test_a_run_whose_measurements_decided_nothing_is_not_eligible() -> None:
    run = make_run(progress=Progress.JUDGED, reason="nothing was judged")
    assert objection(run) == "it is INCONCLUSIVE: nothing was judged"


def test_a_run_of_another_platform_than_asked_for_is_not_eligible() -> None:
    assert objection(make_run(), platform="h100") == (
        "it is a run of another platform: it was measured on cpu, not on h100"
    )


@pytest.mark.parametrize("platform", ["h100", "moon"])
def test_a_run_on_a_platform_that_its_row_does_not_name_is_not_eligible(platform: str) -> None:
    assert objection(msgspec.structs.replace(make_run(), platform=platform)) == (
        f"it is a run of another platform: measured on {platform}, while the matrix has the case on cpu"
    )


def test_a_run_on_another_gpu_than_its_platform_has_is_not_eligible() -> None:
    process = make_process(environment=make_environment(gpu=msgspec.structs.replace(GPU, name="NVIDIA L4")))
    assert objection(make_run(FLUX_FP8, H100, processes=(process,))) == (
        "it is a run of another platform: it ran on NVIDIA L4, which is not h100"
    )


def test_a_run_with_processes_on_different_units_is_not_eligible() -> None:
    elsewhere = make_process(environment=make_environment(cpu_model="Another CPU"))
    assert objection(make_run(processes=(make_process(), elsewhere))) == (
        f"its processes ran on different units: Another CPU, {CPU_MODEL}"
    )


def test_a_run_of_a_case_that_the_matrix_lacks_is_not_eligible() -> None:
    why = objection(make_run(make_case(compile_vae=True)))
    assert why == "the matrix has no such case: it was renamed or removed since the run"


def test_a_run_of_a_case_that_has_changed_since_is_not_eligible() -> None:
    assert objection(make_run(digest="0123456789abcdef")) == (
        "the case has changed since the run "
        f"(digest 0123456789ab then, {MINI_INT8WO.digest[:12]} now): measure it again"
    )


def test_a_fire_drill_is_not_eligible() -> None:
    assert objection(make_run(injected=("memory:+2%",))) == "faults were injected into it: memory:+2%"


@pytest.mark.parametrize(
    "status",
    [
        *(status for status in Status if status.is_error),
        Status.INVALID,
        Status.UNSUPPORTED,
        Status.NOT_RUN,
    ],
)
def test_a_run_that_was_not_measured_as_asked_is_not_eligible(status: Status) -> None:
    assert objection(make_run(status=status, reason="the reason")) == f"it is {status}: the reason"


def test_a_run_that_failed_is_not_eligible_and_its_message_says_why() -> None:
    assert objection(make_run(failure=make_failure())) == "it failed: out of memory at 79 GiB"


def test_what_a_record_says_tells_the_terminal_nothing() -> None:
    run = make_run(status=Status.INVALID, reason="\x1b[2Jgone")
    assert objection(run) == r"it is INVALID: \x1b[2Jgone"


USUAL_MS = [48.5, 48.0, 60.8, 57.2, 77.8]
STALLED_MS = [131.0, 131.3, 117.3, 141.3, 140.5]
REFERENCE_MS = [103.2, 101.1, 96.0, 71.2, 111.1]
WITH_ENCODER = candidates.CASES["cogvideox-5b-b1-fp8dqrow-eager-qte"].case
OFFLOADED = candidates.CASES["flux1-dev-b1-bf16-eager-modeloffload"].case


def _stalled(record: RunRecord) -> str | None:
    return objection_to_run(record.cases[0], record, None)


def test_encoders_that_the_host_held_up_are_not_eligible() -> None:
    assert _stalled(encoding([STALLED_MS], REFERENCE_MS)) == (
        "the host held it up: encoding took 134 ms in process 1, 1.89 times the 71 ms of the fastest of the "
        "same, and at most 1.75 times is usual; measure it again on a quiet machine"
    )


@pytest.mark.parametrize(
    ("run_ms", "reference_ms"),
    [
        pytest.param([USUAL_MS], REFERENCE_MS, id="as-usual"),
        pytest.param([USUAL_MS, [82.0, 83.0, 81.0, 82.0, 84.0]], REFERENCE_MS, id="slower-process"),
        pytest.param([STALLED_MS], [102.0, 101.1, 96.0, 98.0, 111.1], id="as-slow-as-the-reference"),
        pytest.param([[48.0, 48.0, 48.0, 48.0, 300.0]], REFERENCE_MS, id="one-generation"),
    ],
)
def test_encoders_of_a_usual_host_are_eligible(run_ms: list[list[float]], reference_ms: list[float]) -> None:
    assert _stalled(encoding(run_ms, reference_ms)) is None


@pytest.mark.parametrize("case", [WITH_ENCODER, OFFLOADED], ids=["quantized", "offloaded"])
def test_an_encoder_that_takes_another_time_is_not_compared_with_that_of_the_reference(case: Case) -> None:
    assert "held it up" not in (_stalled(encoding([STALLED_MS], REFERENCE_MS, case)) or "")
    held_up = encoding([USUAL_MS, STALLED_MS], REFERENCE_MS, case)
    assert "encoding took 134 ms in process 2" in (_stalled(held_up) or "")


def test_one_process_of_several_that_was_held_up_is_named() -> None:
    found = _stalled(encoding([USUAL_MS, STALLED_MS, USUAL_MS], REFERENCE_MS)) or ""
    assert "encoding took 134 ms in process 2, 2.80 times the 48 ms" in found


@pytest.mark.parametrize("status", [Status.INCONCLUSIVE, Status.INVALID])
def test_one_verdict_that_could_not_be_given_makes_the_run_ineligible(status: Status) -> None:
    verdicts = (make_verdict("ssim", Status.REGRESSED), make_verdict("psnr_db", status))
    why = objection(make_run(status=Status.REGRESSED, verdicts=verdicts))
    assert why == f"psnr_db is {status}: because of psnr_db"


def test_an_inconclusive_run_that_was_judged_is_not_eligible() -> None:
    verdicts = (make_verdict("ssim", Status.PASS),)
    run = make_run(status=Status.INCONCLUSIVE, reason="noise", verdicts=verdicts, progress=Progress.JUDGED)
    assert objection(run) == "it is INCONCLUSIVE: noise"


def test_a_gated_metric_that_was_not_measured_makes_the_run_ineligible() -> None:
    why = objection(make_run(processes=(make_process(fidelity=None),)))
    assert why is not None
    assert f"psnr_db of {ID} is missing" in why


def test_an_exact_metric_that_differs_between_processes_makes_the_run_ineligible() -> None:
    why = objection(make_run(processes=(with_bytes(5.0), with_bytes(6.0))))
    assert why == "weight_bytes has no exact value, its processes differ: 5, 6"


@pytest.mark.parametrize(
    ("case", "why"),
    [
        (FLUX_FP8, "kernels_per_step has no exact value, its processes differ: 1530, 1568"),
        (FLUX_TUNED, None),
        (FLUX_WHOLE_TUNED, None),
    ],
    ids=["untuned", "tuned", "tuned-as-a-whole"],
)
def test_processes_that_choose_kernels_by_timing_may_run_different_numbers_of_them(
    case: Case, why: str | None
) -> None:
    processes = tuple(
        msgspec.structs.replace(on_h100(100.0), build=make_build({"kernels_per_step": kernels}))
        for kernels in (1530.0, 1568.0)
    )
    run = make_run(case, H100, processes=processes)
    reference = make_reference(case, H100, processes=(on_h100(100.0),))
    assert objection_to_run(run, make_record(run, references=(reference,)), None) == why


def test_a_throttled_run_is_not_eligible_though_no_test_judged_its_times() -> None:
    process = on_h100(100.0, throttle_reasons=("HwThermalSlowdown",))
    assert objection(make_run(FLUX_FP8, H100, processes=(process,))) == (
        "its times cannot be trusted: the GPU was throttled during process 1: HwThermalSlowdown"
    )


def test_a_run_so_noisy_that_its_entry_would_gate_nothing_is_not_eligible() -> None:
    # 1.4826 x 10 ms of 110 ms.
    assert objection(make_run(FLUX_FP8, H100, processes=(on_h100(100.0, 110.0, 120.0),))) == (
        "its generations scatter by 13.5 %, more than 5 %: a baseline made from it would gate nothing; "
        "measure it again"
    )


@pytest.mark.parametrize(
    ("steps_ms", "scatter_too_much"), [((550.0, 900.0, 600.0), False), ((550.0, 1100.0, 1900.0), True)]
)
def test_generations_of_an_unsteady_scheme_may_scatter_by_half_its_limit(
    steps_ms: tuple[float, ...], scatter_too_much: bool
) -> None:
    record = unsteady(steps_ms)
    why = objection_to_run(record.cases[0], record, None)
    # 1.4826 x 50 ms of 600 ms is 12.4 %; x 550 ms of 1100 ms is 74.1 %.
    assert ("its generations scatter by 74.1 %, more than 50 %" in (why or "")) is scatter_too_much


def test_generations_that_a_steady_scheme_is_not_eligible_with_are_fine_for_an_unsteady_one() -> None:
    record = unsteady((655.0, 935.0, 807.0))
    assert objection_to_run(record.cases[0], record, None) is None
    why = objection(make_run(FLUX_FP8, H100, processes=(on_h100(655.0, 935.0, 807.0),)))
    # 1.4826 x 128 ms of 807 ms
    assert why is not None
    assert "its generations scatter by 23.5 %, more than 5 %" in why


# Of numbers


def test_processes_that_scatter_more_than_their_platform_make_the_entry_ineligible() -> None:
    assert objection_to_numbers(timed(100.0, 100.5, 100.0)) is None
    assert objection_to_numbers(timed(100.0, 104.0, 100.0)) == (
        "its 3 processes scatter too much: the standard deviation of denoise_step_ms is 6.3 times the 0.36 % "
        "of this platform; measure it again on a quiet machine"
    )


def test_processes_of_an_unsteady_scheme_may_scatter_by_half_its_limit() -> None:
    assert UNSTEADY.build.recipe.scheme.unsteady is not None
    assert objection_to_numbers(unsteady((600.0,) * 3, (1100.0,) * 3)) is None
    # log(1300 / 600) / sqrt(2)
    assert objection_to_numbers(unsteady((600.0,) * 3, (1300.0,) * 3)) == (
        "its 2 processes scatter too much: the standard deviation of denoise_step_ms is 54.7 %, more than "
        "50 %; measure it again on a quiet machine"
    )


@pytest.mark.parametrize(("slowest_ms", "is_refused"), [(1500.0, False), (1600.0, True)])
def test_decoding_with_copies_of_weights_may_scatter_by_half_of_its_limit(
    slowest_ms: float, is_refused: bool
) -> None:
    entry = make_entry({"decode_ms": [1000.0, slowest_ms]}, case=OFFLOADED)
    why = objection_to_entry(OFFLOADED.id, entry, {"decode_ms": Noise(sd_pct=0.4, dof=9)})
    assert (why is not None and "more than 30 %" in why) is is_refused


@pytest.mark.parametrize(("now_mib", "is_too_far"), [(1.049, False), (1.051, True), (0.5, False)])
def test_an_entry_may_drift_by_five_percent_for_the_worse(now_mib: float, is_too_far: bool) -> None:
    entry = make_entry({"model_memory_mib": [now_mib]}, first={"model_memory_mib": (1.0,)})
    assert (drifted(entry) is not None) is is_too_far
    assert objection_to_entry(ID, entry, {}) == drifted(entry)


def test_an_entry_that_has_drifted_too_far_says_how_to_go_on() -> None:
    entry = make_entry({"model_memory_mib": [1.06]}, first={"model_memory_mib": (1.0,)})
    assert drifted(entry) == (
        "has drifted too far: accepted steps have moved model_memory_mib by +6.00 % from its first "
        "reference, and the limit is +5.00 %: undo one of them, or start over with "
        "--new-first-reference REASON"
    )
