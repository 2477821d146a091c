from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from perf_tests.harness.fidelity import heatmaps
from perf_tests.harness.fidelity.heatmaps import EarlierHeatMaps, HeatMaps, NoHeatMaps
from perf_tests.harness.records.fidelity import Fidelity
from perf_tests.harness.runs.record import Run, Status
from perf_tests.protocol.reports import Capture
from perf_tests.unit.builders import make_process, make_run, make_verdict, metric_named

WHERE = "changed most in the lower left quarter of"


def run_with_captures(out: Path, frames: tuple[int, ...] = ()) -> Run:
    """A run whose output is 0.1 brighter than its reference in the lower left quarter."""
    reference = np.full((1, *frames, 16, 16, 3), 0.5, dtype=np.float32)
    measured = reference.copy()
    measured[..., 8:, :8, :] += np.float32(0.1)
    for name, array in (("case.0", measured), ("twin.0", reference)):
        np.save(out / f"{name}.npy", array)
    return run_of("case.0.npy")


def run_of(array: str) -> Run:
    fidelity = Fidelity(psnr_db=26.0, ssim=0.9, identical=False, reference_arrays=("twin.0.npy",))
    capture = Capture(array=array, sha256="00", image="case.0.png")
    return make_run(processes=(make_process(captures=(capture,), fidelity=fidelity),))


def heat_maps_of(
    run: Run, out: Path, metric: str = "ssim", status: Status = Status.REGRESSED
) -> heatmaps.Drawing | None:
    explains = heatmaps.explain(make_verdict(metric, status), metric_named(metric))
    return heatmaps.drawn(run, out) if explains else None


def drawn(run: Run, out: Path, metric: str = "ssim") -> HeatMaps:
    heat_maps = heat_maps_of(run, out, metric)
    assert isinstance(heat_maps, HeatMaps)
    return heat_maps


@pytest.mark.parametrize("metric", ["ssim", "psnr_db", "latents_sqnr_db"])
def test_heat_maps_of_a_regressed_picture_are_written_next_to_its_capture(
    tmp_path: Path, metric: str
) -> None:
    heat_maps = drawn(run_with_captures(tmp_path), tmp_path, metric)
    assert heat_maps.listed == f"{tmp_path}/case.0.*.png"
    assert heat_maps.where == f"{WHERE} image 0 (of 0 to 0): 20.0 dB"
    assert (tmp_path / "case.0.heatmap.png").exists()


def test_heat_maps_of_a_regressed_video_have_an_mp4_too(tmp_path: Path) -> None:
    heat_maps = drawn(run_with_captures(tmp_path, frames=(2,)), tmp_path)
    assert heat_maps.listed == f"{tmp_path}/case.0.*.png, {tmp_path}/case.0.mp4"
    assert heat_maps.where == f"{WHERE} frame 0 (of 0 to 1): 20.0 dB"
    assert (tmp_path / "case.0.mp4").exists()


def test_heat_maps_of_a_video_are_written_without_pyav_and_say_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    heat_maps = drawn(run_with_captures(tmp_path, frames=(2,)), tmp_path)
    assert heat_maps.listed.startswith(f"{tmp_path}/case.0.*.png, no MP4 (PyAV cannot be imported: ")
    assert (tmp_path / "case.0.heatmap.png").exists()


@pytest.mark.parametrize(
    ("metric", "status"),
    [
        pytest.param("ssim", Status.NO_BASELINE, id="no-baseline"),
        pytest.param("ssim", Status.PASS, id="passed"),
        pytest.param("denoise_step_ms", Status.REGRESSED, id="a-time-regressed"),
        pytest.param("graph_breaks", Status.REGRESSED, id="a-counter-regressed"),
    ],
)
def test_heat_maps_are_not_written_for_what_no_picture_explains(
    tmp_path: Path, metric: str, status: Status
) -> None:
    assert heat_maps_of(run_with_captures(tmp_path), tmp_path, metric, status) is None
    assert not list(tmp_path.glob("*.png"))


def test_heat_maps_need_a_process_that_was_compared(tmp_path: Path) -> None:
    assert heat_maps_of(make_run(processes=(make_process(fidelity=None),)), tmp_path) is None


def test_captures_that_are_gone_are_a_reason_not_an_error(tmp_path: Path) -> None:
    heat_maps = heat_maps_of(run_of("gone.0.npy"), tmp_path)
    assert isinstance(heat_maps, NoHeatMaps)
    assert heat_maps.reason.startswith(f"cannot read {tmp_path}/gone.0.npy: ")


@pytest.mark.parametrize(
    ("metric", "status", "shown"),
    [
        pytest.param("ssim", Status.NO_BASELINE, True, id="new"),
        pytest.param("ssim", Status.REGRESSED, True, id="red"),
        pytest.param("ssim", Status.PASS, False, id="green"),
        pytest.param("denoise_step_ms", Status.NO_BASELINE, False, id="a-new-time"),
    ],
)
def test_what_is_red_or_new_is_worth_a_drawing(metric: str, status: Status, shown: bool) -> None:
    assert heatmaps.is_shown_by(make_verdict(metric, status), metric_named(metric)) is shown


def test_heat_maps_that_an_earlier_session_drew_are_found_once_the_arrays_are_gone(tmp_path: Path) -> None:
    run = run_with_captures(tmp_path)
    drawn(run, tmp_path)
    for name in ("case.0", "twin.0"):
        (tmp_path / f"{name}.npy").unlink()

    assert heatmaps.drawn(run, tmp_path) == EarlierHeatMaps(files=tmp_path / "case.0.*.png")
