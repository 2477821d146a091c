from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from perf_tests.harness.fidelity import captures
from perf_tests.harness.fidelity.captures import compared
from perf_tests.harness.fidelity.picture_pool import PicturePool
from perf_tests.harness.records.fidelity import Fidelity
from perf_tests.harness.runs.record import Process
from perf_tests.protocol.errors import PerfError
from perf_tests.protocol.reports import Arrays, Capture, Recorded
from perf_tests.unit.builders import make_failure, make_process, make_reference, make_run, make_sample

RAMP = np.linspace(0.1, 0.9, 16 * 16 * 3, dtype=np.float32).reshape(1, 16, 16, 3)
ONES = np.ones((5, 8), dtype=np.float32)


def captured(out: Path, name: str, *arrays: np.ndarray) -> Process:
    """A process that left a capture for each of `arrays`, and was not yet compared."""
    captures, samples = [], []
    for pair, array in enumerate(arrays):
        path = out / f"{name}.{pair}.npy"
        np.save(path, array)
        sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
        captures.append(Capture(array=path.name, sha256=sha256, image=f"{name}.{pair}.png"))
        output = hashlib.sha256(array.astype(np.float32).tobytes()).hexdigest()
        samples.append(msgspec.structs.replace(make_sample(output=output), pair=pair))
    return make_process(samples=tuple(samples), captures=tuple(captures), fidelity=None)


def answered(out: Path, name: str, answers: np.ndarray, latents: np.ndarray) -> Arrays:
    path = out / f"{name}.npz"
    np.savez(path, answers=answers, latents=latents)
    return Arrays(file=path.name, sha256=hashlib.sha256(path.read_bytes()).hexdigest())


def fidelity_of(process: Process, reference: Process, out: Path) -> Fidelity:
    run = compared(make_run(processes=(process,)), make_reference(processes=(reference,)), out)
    fidelity = run.processes[0].fidelity
    assert fidelity is not None
    return fidelity


# Which are compared


def test_a_capture_is_compared_with_that_of_the_references_process_that_has_one(tmp_path: Path) -> None:
    run = make_run(processes=(captured(tmp_path, "case", RAMP + 0.01), make_process(fidelity=None)))
    reference = make_reference(processes=(make_process(fidelity=None), captured(tmp_path, "reference", RAMP)))
    first, second = compared(run, reference, tmp_path).processes
    assert first.fidelity is not None
    assert first.fidelity.psnr_db == pytest.approx(40.0, abs=0.01)  # an error of 0.01 everywhere
    assert first.fidelity.reference_arrays == ("reference.0.npy",)
    assert second.fidelity is None


def test_a_run_without_a_reference_stays_as_it_is(tmp_path: Path) -> None:
    run = make_run(processes=(captured(tmp_path, "case", RAMP),))
    assert compared(run, None, tmp_path) == run


def test_a_reference_that_failed_is_not_compared_with_though_it_left_a_picture(tmp_path: Path) -> None:
    run = make_run(processes=(captured(tmp_path, "case", RAMP),))
    reference = make_reference(processes=(captured(tmp_path, "twin", RAMP),), failure=make_failure())
    assert compared(run, reference, tmp_path) == run


def test_a_pair_is_compared_with_the_same_pair_of_the_reference(tmp_path: Path) -> None:
    case = captured(tmp_path, "case", RAMP + 0.01, RAMP + 0.02)
    fidelity = fidelity_of(case, captured(tmp_path, "reference", RAMP, RAMP + 0.03), tmp_path)
    assert fidelity.pair_psnrs_db == pytest.approx((40.0, 40.0), abs=0.01)
    assert fidelity.reference_arrays == ("reference.0.npy", "reference.1.npy")


@pytest.mark.parametrize(
    ("pairs", "of_reference"), [(1, 2), (2, 1)], ids=["reference-has-more", "reference-has-fewer"]
)
def test_a_pair_that_one_side_lacks_is_not_compared(tmp_path: Path, pairs: int, of_reference: int) -> None:
    case = captured(tmp_path, "case", *[RAMP + 0.01] * pairs)
    fidelity = fidelity_of(case, captured(tmp_path, "reference", *[RAMP] * of_reference), tmp_path)
    assert fidelity.pair_psnrs_db == pytest.approx((40.0,), abs=0.01)
    assert fidelity.reference_arrays == ("reference.0.npy",)


# Outputs that are not pictures


@pytest.mark.parametrize(
    ("array", "says"),
    [
        (RAMP[:, :8], r"the measured output has shape \(1, 8, 16, 3\) and the reference \(1, 16, 16, 3\)"),
        (RAMP * np.nan, "the measured output holds NaN in image 0"),
        (RAMP + 0.2, r"the measured output holds values outside \[0, 1\] in image 0"),
        (RAMP * 0, "the measured output is black in image 0"),
    ],
    ids=["shape", "nan", "range", "black"],
)
def test_an_output_that_is_not_a_picture_is_an_error(tmp_path: Path, array: np.ndarray, says: str) -> None:
    with pytest.raises(PerfError, match=says):
        fidelity_of(captured(tmp_path, "case", array), captured(tmp_path, "reference", RAMP), tmp_path)


def test_a_black_image_in_a_batch_of_four_is_named(tmp_path: Path) -> None:
    batch = np.repeat(RAMP, 4, axis=0)
    measured = batch.copy()
    measured[2] = 0.0
    with pytest.raises(PerfError, match=r"the measured output is black in image 2 \(of 0 to 3\)"):
        fidelity_of(captured(tmp_path, "case", measured), captured(tmp_path, "reference", batch), tmp_path)


def test_a_black_image_whose_reference_is_black_is_compared(tmp_path: Path) -> None:
    batch = np.repeat(RAMP, 2, axis=0)
    batch[1] = 0.0
    measured = batch.copy()
    measured[0] += 0.01
    case, reference = captured(tmp_path, "case", measured), captured(tmp_path, "reference", batch)
    fidelity = fidelity_of(case, reference, tmp_path)
    assert fidelity.psnr_db == pytest.approx(40.0, abs=0.01)
    assert fidelity.pair_psnrs_db == (fidelity.psnr_db,)


def test_a_black_reference_is_an_error_of_its_own(tmp_path: Path) -> None:
    with pytest.raises(PerfError, match="the measured output is black"):
        compared(make_reference(processes=(captured(tmp_path, "reference", RAMP * 0),)), None, tmp_path)


# Files


def test_a_capture_that_is_gone_is_named(tmp_path: Path) -> None:
    case, reference = captured(tmp_path, "case", RAMP), captured(tmp_path, "reference", RAMP)
    (tmp_path / "case.0.npy").unlink()
    with pytest.raises(PerfError, match=r"cannot read .*/case\.0\.npy: No such file or directory; measure"):
        fidelity_of(case, reference, tmp_path)


def test_a_capture_that_was_replaced_is_an_error(tmp_path: Path) -> None:
    case, reference = captured(tmp_path, "case", RAMP + 0.01), captured(tmp_path, "reference", RAMP)
    np.save(tmp_path / "reference.0.npy", RAMP + 0.005)
    with pytest.raises(PerfError, match="it was damaged or replaced, measure the case again"):
        fidelity_of(case, reference, tmp_path)


def test_an_output_whose_hash_is_another_than_its_sample_reports_is_an_error(tmp_path: Path) -> None:
    case = captured(tmp_path, "case", RAMP, RAMP + 0.01)
    case = msgspec.structs.replace(case, samples=(case.samples[0],) * 2)
    with pytest.raises(PerfError, match=r"case\.1\.npy holds an output with the sha256 .* about repeated"):
        compared(make_run(processes=(case,)), None, tmp_path)


# Answers and latents


def test_answers_are_compared_with_the_same_workers_and_latents_with_the_references(tmp_path: Path) -> None:
    ones = ONES[:2]
    reference = msgspec.structs.replace(
        captured(tmp_path, "reference", RAMP), arrays=answered(tmp_path, "original", 7 * ones, ones)
    )
    case = msgspec.structs.replace(
        captured(tmp_path, "case", RAMP + 0.01),
        recorded=Recorded(arrays=answered(tmp_path, "eager", ones, 5 * ones)),
        arrays=answered(tmp_path, "timed", ones * np.array([[1.1], [1.01]], np.float32), 1.001 * ones),
    )
    fidelity = fidelity_of(case, reference, tmp_path)
    # Errors of 10 %, 1 % and 0.1 %.
    assert fidelity.step_sqnrs_db == pytest.approx((20.0, 40.0), abs=0.01)
    assert fidelity.latents_sqnr_db == pytest.approx(60.0, abs=0.01)


def test_answers_are_left_out_where_one_side_has_none(tmp_path: Path) -> None:
    case = msgspec.structs.replace(
        captured(tmp_path, "case", RAMP + 0.01),
        recorded=Recorded(arrays=answered(tmp_path, "eager", ONES, ONES)),
        arrays=answered(tmp_path, "timed", ONES, ONES),
    )
    fidelity = fidelity_of(case, captured(tmp_path, "reference", RAMP), tmp_path)
    assert (fidelity.step_sqnrs_db, fidelity.latents_sqnr_db) == ((), None)


def test_a_compiled_reference_is_compared_with_itself_before_it_was_compiled(tmp_path: Path) -> None:
    (picture,) = captured(tmp_path, "eager", RAMP).captures
    process = msgspec.structs.replace(
        captured(tmp_path, "case", RAMP + 0.001),
        recorded=Recorded(arrays=answered(tmp_path, "eager", ONES, ONES), picture=picture),
        arrays=answered(tmp_path, "timed", 1.01 * ONES, 1.1 * ONES),
    )
    noise = compared(make_reference(processes=(process,)), None, tmp_path).processes[0].noise
    assert noise is not None
    assert noise.psnr_db == pytest.approx(60.0, abs=0.01)
    assert min(noise.step_sqnrs_db) == pytest.approx(40.0, abs=0.01)
    assert noise.latents_sqnr_db == pytest.approx(20.0, abs=0.01)


# In other processes


def test_large_pictures_are_compared_by_what_is_given_for_it_and_small_ones_here(tmp_path: Path) -> None:
    large = np.tile(RAMP, (1, 40, 40, 1))  # 640 x 640
    asked: list[int] = []

    def noted(function: Any, pairs: Any, samples: Any) -> Any:
        asked.append(len(pairs))
        return map(function, pairs, samples)

    found: list[Any] = []
    for name, array in (("small", RAMP), ("large", large)):
        run = make_run(processes=(captured(tmp_path, name, array, array + 0.01),))
        reference = make_reference(processes=(captured(tmp_path, f"{name}.reference", array, array),))
        (process,) = compared(run, reference, tmp_path, noted).processes
        assert process.fidelity is not None
        found.append(process.fidelity.pair_psnrs_db)
    assert asked == [2]
    assert found == [(None, pytest.approx(40.0, abs=0.01))] * 2


@pytest.mark.usefixtures("light_main")
def test_other_processes_find_what_this_one_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(captures, "LARGE_BYTES", 1)
    run = make_run(processes=(captured(tmp_path, "case", RAMP + 0.01, RAMP + 0.02),))
    reference = make_reference(processes=(captured(tmp_path, "reference", RAMP, RAMP),))
    pool = PicturePool(1)
    try:
        there = compared(run, reference, tmp_path, pool.map)
    finally:
        pool.close()
    assert there == compared(run, reference, tmp_path)
