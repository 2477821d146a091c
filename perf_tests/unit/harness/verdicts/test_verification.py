from __future__ import annotations

import hashlib
from pathlib import Path

import msgspec
import numpy as np
import pytest

from perf_tests.harness.runs.record import Process, Run, Status
from perf_tests.harness.verdicts.verification import prepared, prove
from perf_tests.protocol.messages import FailureKind, Phase
from perf_tests.protocol.reports import Arrays, Capture, Recorded
from perf_tests.tables.schemes.rows import AUTOQUANT
from perf_tests.unit.builders import (
    MINI_BF16,
    MINI_INT8WO,
    make_build,
    make_case,
    make_failure,
    make_group,
    make_plan,
    make_process,
    make_quantization,
    make_reference,
    make_run,
)

RAMP = np.linspace(0.1, 0.9, 16 * 16 * 3, dtype=np.float32).reshape(1, 16, 16, 3)


def saved(out: Path, name: str, array: np.ndarray) -> Process:
    """A process whose output was captured as `array`, and not yet compared."""
    np.save(out / f"{name}.npy", array)
    capture = Capture(
        array=f"{name}.npy",
        sha256=hashlib.sha256((out / f"{name}.npy").read_bytes()).hexdigest(),
        image=f"{name}.png",
    )
    return make_process(captures=(capture,), fidelity=None)


def reference_of(process: Process) -> Run:
    return make_reference(processes=(process,))


def test_each_capture_is_compared_with_the_references_first(tmp_path: Path) -> None:
    run = make_run(processes=(saved(tmp_path, "case", RAMP + 0.01), make_process(fidelity=None)))
    reference = reference_of(saved(tmp_path, "reference", RAMP))

    first, second = prove(MINI_INT8WO, run, reference, tmp_path).processes

    assert first.fidelity is not None
    assert first.fidelity.psnr_db == pytest.approx(40.0, abs=0.01)  # an error of 0.01 everywhere
    assert second.fidelity is None


def test_without_a_reference_nothing_is_compared_and_nothing_fails(tmp_path: Path) -> None:
    run = make_run(processes=(saved(tmp_path, "case", RAMP),))
    assert prove(MINI_INT8WO, run, None, tmp_path) == run


def test_a_reference_that_failed_is_none_though_it_left_a_picture(tmp_path: Path) -> None:
    run = make_run(processes=(saved(tmp_path, "case", RAMP),))
    reference = make_reference(processes=(saved(tmp_path, "reference", RAMP),), failure=make_failure())
    assert prove(MINI_INT8WO, run, reference, tmp_path) == run


@pytest.mark.parametrize(
    ("array", "says"),
    [
        (RAMP[:, :8], "the measured output has shape (1, 8, 16, 3) and the reference (1, 16, 16, 3)"),
        (RAMP * np.nan, "the measured output holds NaN in image 0"),
        (RAMP + 0.2, "the measured output holds values outside [0, 1] in image 0"),
        (RAMP * 0, "the measured output is black in image 0"),
    ],
    ids=["shape", "nan", "range", "black"],
)
def test_an_output_that_is_no_picture_fails_its_case_and_not_the_session(
    tmp_path: Path, array: np.ndarray, says: str
) -> None:
    run = make_run(processes=(saved(tmp_path, "case", array),))
    proved = prove(MINI_INT8WO, run, reference_of(saved(tmp_path, "reference", RAMP)), tmp_path)

    assert proved.status is Status.NUMERICS
    assert proved.failure is not None
    assert proved.failure.message.startswith(says)


def test_one_black_image_in_a_batch_of_four_fails_its_case_and_is_named(tmp_path: Path) -> None:
    batch = np.repeat(RAMP, 4, axis=0)
    measured = batch.copy()
    measured[2] = 0.0
    run = make_run(processes=(saved(tmp_path, "case", measured),))
    proved = prove(MINI_INT8WO, run, reference_of(saved(tmp_path, "reference", batch)), tmp_path)

    assert proved.status is Status.NUMERICS
    assert proved.reason == "the measured output is black in image 2 (of 0 to 3): it is no picture"


def test_a_black_image_whose_reference_is_black_is_compared(tmp_path: Path) -> None:
    batch = np.repeat(RAMP, 2, axis=0)
    batch[1] = 0.0
    measured = batch.copy()
    measured[0] += 0.01
    run = make_run(processes=(saved(tmp_path, "case", measured),))
    proved = prove(MINI_INT8WO, run, reference_of(saved(tmp_path, "reference", batch)), tmp_path)

    assert proved.failure is None
    fidelity = proved.processes[0].fidelity
    assert fidelity is not None
    assert fidelity.psnr_db == pytest.approx(40.0, abs=0.01)
    assert fidelity.pair_psnrs_db == (fidelity.psnr_db,)


def test_a_reference_is_no_picture_either_where_it_is_black(tmp_path: Path) -> None:
    black = make_reference(processes=(saved(tmp_path, "reference", RAMP * 0),))
    assert prove(MINI_BF16, black, None, tmp_path).status is Status.NUMERICS


def test_the_record_says_what_an_output_was_compared_with(tmp_path: Path) -> None:
    run = make_run(processes=(saved(tmp_path, "case", RAMP + 0.01),))
    (process,) = prove(MINI_INT8WO, run, reference_of(saved(tmp_path, "original", RAMP)), tmp_path).processes
    assert process.fidelity is not None
    assert process.fidelity.reference_arrays == ("original.npy",)


def test_a_capture_that_is_gone_is_named(tmp_path: Path) -> None:
    run = make_run(processes=(saved(tmp_path, "case", RAMP),))
    (tmp_path / "case.npy").unlink()
    proved = prove(MINI_INT8WO, run, reference_of(saved(tmp_path, "reference", RAMP)), tmp_path)
    assert (
        proved.reason == f"cannot read {tmp_path}/case.npy: No such file or directory; measure the case again"
    )


def test_a_capture_that_was_replaced_is_an_error_and_no_comparison(tmp_path: Path) -> None:
    run = make_run(processes=(saved(tmp_path, "case", RAMP + 0.01),))
    reference = reference_of(saved(tmp_path, "reference", RAMP))
    np.save(tmp_path / "reference.npy", RAMP + 0.005)
    proved = prove(MINI_INT8WO, run, reference, tmp_path)
    assert proved.status is Status.NUMERICS
    assert "it was damaged or replaced, measure the case again" in proved.reason


def test_each_pair_is_compared_with_that_of_the_reference(tmp_path: Path) -> None:
    def two(name: str, *arrays: np.ndarray) -> Process:
        each = [saved(tmp_path, f"{name}.{pair}", array).captures[0] for pair, array in enumerate(arrays)]
        return make_process(captures=tuple(each), fidelity=None)

    run = make_run(processes=(two("case", RAMP + 0.01, RAMP + 0.02),))
    reference = reference_of(two("reference", RAMP, RAMP + 0.03))
    fidelity = prove(MINI_INT8WO, run, reference, tmp_path).processes[0].fidelity
    assert fidelity is not None
    assert fidelity.pair_psnrs_db == pytest.approx((40.0, 40.0), abs=0.01)
    assert fidelity.reference_arrays == ("reference.0.npy", "reference.1.npy")


def answered(out: Path, name: str, answers: np.ndarray, latents: np.ndarray) -> Arrays:
    with (out / f"{name}.npz").open("wb") as file:
        np.savez(file, answers=answers, latents=latents)
    sha256 = hashlib.sha256((out / f"{name}.npz").read_bytes()).hexdigest()
    return Arrays(file=f"{name}.npz", sha256=sha256)


def test_answers_are_held_against_those_of_before_and_latents_against_the_references(tmp_path: Path) -> None:
    ones = np.ones((2, 8), dtype=np.float32)
    before = Recorded(arrays=answered(tmp_path, "eager", ones, 5 * ones))
    original = msgspec.structs.replace(
        saved(tmp_path, "reference", RAMP), arrays=answered(tmp_path, "original", 7 * ones, ones)
    )
    process = msgspec.structs.replace(
        saved(tmp_path, "case", RAMP + 0.01),
        recorded=before,
        arrays=answered(tmp_path, "timed", ones * [[1.1], [1.01]], 1.001 * ones),
    )
    run = make_run(processes=(process,))
    fidelity = prove(MINI_INT8WO, run, reference_of(original), tmp_path).processes[0].fidelity
    assert fidelity is not None
    # Errors of 10 %, 1 % and 0.1 %.
    assert fidelity.step_sqnrs_db == pytest.approx((20.0, 40.0), abs=0.01)
    assert fidelity.latents_sqnr_db == pytest.approx(60.0, abs=0.01)


def test_a_compiled_reference_is_held_against_itself_as_it_was(tmp_path: Path) -> None:
    ones = np.ones((5, 8), dtype=np.float32)
    recorded = Recorded(
        arrays=answered(tmp_path, "eager", ones, ones), picture=saved(tmp_path, "eager", RAMP).captures[0]
    )
    process = msgspec.structs.replace(
        saved(tmp_path, "case", RAMP + 0.001),
        recorded=recorded,
        arrays=answered(tmp_path, "timed", 1.01 * ones, 1.1 * ones),
    )
    noise = prove(MINI_BF16, make_reference(processes=(process,)), None, tmp_path).processes[0].noise
    assert noise is not None
    assert noise.psnr_db == pytest.approx(60.0, abs=0.01)
    assert min(noise.step_sqnrs_db) == pytest.approx(40.0, abs=0.01)
    assert noise.latents_sqnr_db == pytest.approx(20.0, abs=0.01)


def test_evidence_against_the_recipe_makes_the_case_unproven(tmp_path: Path) -> None:
    run = make_run(processes=(make_process(build=make_build(quantization=UNQUANTIZED)),))
    proved = prove(MINI_INT8WO, run, None, tmp_path)

    assert proved.status is Status.UNPROVEN
    assert proved.failure is not None
    assert (proved.failure.kind, proved.failure.phase) == (FailureKind.UNPROVEN, Phase.INSPECT)
    assert proved.reason.startswith("what was built is not what was asked for: 3 of 4 Linear modules are")
    assert proved.failure.message not in proved.failure.details


UNQUANTIZED = make_quantization(make_group(count=3), unquantized=("blocks.3.to_q",))


def test_what_two_processes_contradict_alike_is_said_once(tmp_path: Path) -> None:
    process = make_process(build=make_build(quantization=UNQUANTIZED))
    once = prove(MINI_INT8WO, make_run(processes=(process,)), None, tmp_path)
    twice = prove(MINI_INT8WO, make_run(processes=(process, process)), None, tmp_path)
    assert twice.failure == once.failure


def test_a_run_is_proved_against_the_recipe_of_its_own_case(tmp_path: Path) -> None:
    cases = {case.id: case for case in (MINI_BF16, MINI_INT8WO)}
    run = msgspec.structs.replace(make_run(), id=MINI_BF16.id)
    # The builder's default build is quantized, which nobody asked of bf16.
    assert prepared(cases, tmp_path, run, None).status is Status.UNPROVEN


def test_a_campaigns_run_says_what_was_measured_median_over_processes(tmp_path: Path) -> None:
    processes = tuple(make_process(build=make_build({"model_memory_mib": mib})) for mib in (10.0, 11.0, 15.0))
    run = make_run(processes=processes)
    measured = prepared({MINI_INT8WO.id: MINI_INT8WO}, tmp_path, run, None).measured
    assert measured["model_memory_mib"] == 11.0


def test_times_and_memory_of_an_unproven_build_are_not_shown(tmp_path: Path) -> None:
    unquantized = make_quantization(groups=(make_group(subclass="Parameter"),))
    run = make_run(processes=(make_process(build=make_build(quantization=unquantized)),))
    proven = prepared({MINI_INT8WO.id: MINI_INT8WO}, tmp_path, run, None)
    assert proven.status is Status.UNPROVEN
    assert not {"latency_s", "denoise_step_ms", "model_memory_mib"} & set(proven.measured)
    assert "quantized_modules" in proven.measured


def following(digest: str) -> Process:
    plan = msgspec.structs.replace(make_plan(int8wo=4), sha256=digest)
    return make_process(
        build=make_build(quantization=make_quantization(make_group(chosen="int8wo"), plan=plan))
    )


def test_processes_that_followed_one_plan_are_samples_of_one_case(tmp_path: Path) -> None:
    case = make_case(scheme=AUTOQUANT)
    run = make_run(case, processes=(following("a" * 64), following("a" * 64)))
    assert prove(case, run, None, tmp_path) == run


def test_processes_that_followed_different_plans_are_not(tmp_path: Path) -> None:
    case = make_case(scheme=AUTOQUANT)
    run = make_run(case, processes=(following("a" * 64), following("b" * 64), following("b" * 64)))
    proved = prove(case, run, None, tmp_path)
    assert proved.status is Status.UNPROVEN
    assert proved.reason == (
        "what was built is not what was asked for: its 3 processes followed 2 plans: plan.json (sha256 "
        "aaaaaaaaaaaa), plan.json (sha256 bbbbbbbbbbbb)"
    )
