from __future__ import annotations

import hashlib
from pathlib import Path
from typing import NoReturn

import msgspec
import numpy as np
import pytest

from perf_tests.harness.fidelity.picture_pool import PoolEndedError
from perf_tests.harness.runs.record import Process, Status
from perf_tests.harness.verdicts.verification import prepare, verify
from perf_tests.protocol.messages import FailureKind, Phase
from perf_tests.protocol.reports import Capture
from perf_tests.tables.schemes.rows import AUTOQUANT
from perf_tests.unit.builders import (
    MINI_BF16,
    MINI_INT8WO,
    make_build,
    make_case,
    make_group,
    make_plan,
    make_process,
    make_quantization,
    make_reference,
    make_run,
    make_sample,
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
    output = hashlib.sha256(array.astype(np.float32).tobytes()).hexdigest()
    samples = (make_sample(output=output),) * 5
    return make_process(samples=samples, captures=(capture,), fidelity=None)


def test_captures_are_compared_with_those_of_the_reference(tmp_path: Path) -> None:
    run = make_run(processes=(saved(tmp_path, "case", RAMP + 0.01),))
    reference = make_reference(processes=(saved(tmp_path, "reference", RAMP),))
    (process,) = verify(MINI_INT8WO, run, reference, tmp_path).processes
    assert process.fidelity is not None
    assert process.fidelity.psnr_db == pytest.approx(40.0, abs=0.01)  # an error of 0.01 everywhere


def test_output_that_is_not_a_picture_fails_its_case_and_not_the_session(tmp_path: Path) -> None:
    reference = make_reference(processes=(saved(tmp_path, "reference", RAMP),))
    verified = verify(
        MINI_INT8WO, make_run(processes=(saved(tmp_path, "case", RAMP * 0),)), reference, tmp_path
    )
    assert verified.status is Status.NUMERICS
    assert verified.failure is not None
    assert (verified.failure.kind, verified.failure.phase) == (FailureKind.NUMERICS, Phase.INSPECT)
    assert verified.reason == verified.failure.message
    assert verified.reason.startswith("the measured output is black in image 0")


def test_reference_that_is_not_a_picture_fails_as_well(tmp_path: Path) -> None:
    black = make_reference(processes=(saved(tmp_path, "reference", RAMP * 0),))
    assert verify(MINI_BF16, black, None, tmp_path).status is Status.NUMERICS


def test_capture_that_is_gone_fails_its_case_and_is_named(tmp_path: Path) -> None:
    run = make_run(processes=(saved(tmp_path, "case", RAMP),))
    (tmp_path / "case.npy").unlink()
    verified = verify(MINI_INT8WO, run, None, tmp_path)
    assert verified.status is Status.NUMERICS
    assert (
        verified.reason
        == f"cannot read {tmp_path}/case.npy: No such file or directory; measure the case again"
    )


def test_evidence_against_the_recipe_makes_the_case_unproven(tmp_path: Path) -> None:
    run = make_run(processes=(make_process(build=make_build(quantization=UNQUANTIZED)),))
    verified = verify(MINI_INT8WO, run, None, tmp_path)

    assert verified.status is Status.UNPROVEN
    assert verified.failure is not None
    assert (verified.failure.kind, verified.failure.phase) == (FailureKind.UNPROVEN, Phase.INSPECT)
    assert verified.reason.startswith("what was built is not what was asked for: 3 of 4 Linear modules are")
    assert verified.failure.message not in verified.failure.details


UNQUANTIZED = make_quantization(make_group(count=3), unquantized=("blocks.3.to_q",))


def test_what_two_processes_contradict_alike_is_said_once(tmp_path: Path) -> None:
    process = make_process(build=make_build(quantization=UNQUANTIZED))
    once = verify(MINI_INT8WO, make_run(processes=(process,)), None, tmp_path)
    twice = verify(MINI_INT8WO, make_run(processes=(process, process)), None, tmp_path)
    assert twice.failure == once.failure


def test_run_is_proved_against_the_recipe_of_its_own_case(tmp_path: Path) -> None:
    cases = {case.id: case for case in (MINI_BF16, MINI_INT8WO)}
    run = msgspec.structs.replace(make_run(), id=MINI_BF16.id)
    # The builder's default build is quantized, which bf16 does not ask for.
    assert prepare(cases, tmp_path, map, run, None).status is Status.UNPROVEN


def test_campaigns_run_says_what_was_measured_median_over_processes(tmp_path: Path) -> None:
    processes = tuple(make_process(build=make_build({"model_memory_mib": mib})) for mib in (10.0, 11.0, 15.0))
    run = make_run(processes=processes)
    measured = prepare({MINI_INT8WO.id: MINI_INT8WO}, tmp_path, map, run, None).measured
    assert measured["model_memory_mib"] == 11.0


def test_times_and_memory_of_an_unproven_build_are_not_shown(tmp_path: Path) -> None:
    unquantized = make_quantization(groups=(make_group(subclass="Parameter"),))
    run = make_run(processes=(make_process(build=make_build(quantization=unquantized)),))
    proven = prepare({MINI_INT8WO.id: MINI_INT8WO}, tmp_path, map, run, None)
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
    assert verify(case, run, None, tmp_path) == run


def test_processes_that_followed_different_plans_are_not(tmp_path: Path) -> None:
    case = make_case(scheme=AUTOQUANT)
    run = make_run(case, processes=(following("a" * 64), following("b" * 64), following("b" * 64)))
    verified = verify(case, run, None, tmp_path)
    assert verified.status is Status.UNPROVEN
    assert verified.reason == (
        "what was built is not what was asked for: its 3 processes followed 2 plans: plan.json (sha256 "
        "aaaaaaaaaaaa), plan.json (sha256 bbbbbbbbbbbb)"
    )


def test_a_process_that_ends_while_it_compares_is_an_error_of_its_case(tmp_path: Path) -> None:
    def ended(*_: object) -> NoReturn:
        raise PoolEndedError("a process that compares pictures was ended")

    path = tmp_path / "large.npy"
    np.save(path, np.zeros((1, 600, 600, 3), dtype=np.float32))
    capture = Capture(array="large.npy", sha256="0", image="large.png")
    run = make_run(processes=(make_process(captures=(capture,), fidelity=None),))
    verified = verify(MINI_INT8WO, run, None, tmp_path, ended)
    assert (verified.id, verified.status) == (run.id, Status.CRASH)
    assert verified.reason == "a process that compares pictures was ended"
