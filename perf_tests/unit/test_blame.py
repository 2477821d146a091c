from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from perf_tests.harness import blame
from perf_tests.harness.errors import PerfError
from perf_tests.harness.protocol import Capture
from perf_tests.harness.records import Fidelity, Process
from perf_tests.unit.builders import make_process

GREY = np.full((1, 8, 12, 3), 0.5, dtype=np.float32)


def pixels(path: Path | None) -> np.ndarray:
    assert path is not None
    with Image.open(path) as image:
        return np.asarray(image)


@pytest.mark.parametrize(
    ("rows", "columns", "quarter"),
    [
        pytest.param(slice(0, 4), slice(0, 6), "upper left", id="upper-left"),
        pytest.param(slice(0, 4), slice(6, 12), "upper right", id="upper-right"),
        pytest.param(slice(4, 8), slice(0, 6), "lower left", id="lower-left"),
        pytest.param(slice(4, 8), slice(6, 12), "lower right", id="lower-right"),
    ],
)
def test_the_quarter_that_moved_most_is_named_with_its_psnr(
    tmp_path: Path, rows: slice, columns: slice, quarter: str
) -> None:
    candidate = GREY + np.float32(0.01)
    candidate[:, rows, columns] = 0.6
    blamed = blame.save(candidate, GREY, tmp_path, "case.0")
    assert blamed.where == f"moved most in the {quarter} quarter of image 0 (of 0 to 0): 20.0 dB"


def test_the_pictures_are_those_of_the_worst_image_of_a_batch(tmp_path: Path) -> None:
    reference = np.concatenate([GREY, GREY - np.float32(0.3), GREY])
    candidate = reference + np.float32(0.01)
    candidate[1, 6, 2] = (0.6, 0.2, 0.2)
    blamed = blame.save(candidate, reference, tmp_path / "captures", "case.0")

    assert "image 1 (of 0 to 2)" in blamed.where
    assert (blamed.reference, blamed.candidate, blamed.heatmap, blamed.frames) == (
        tmp_path / "captures" / "case.0.reference.png",
        tmp_path / "captures" / "case.0.candidate.png",
        tmp_path / "captures" / "case.0.heatmap.png",
        None,
    )
    assert pixels(blamed.reference).shape == (8, 12, 3)
    assert pixels(blamed.reference)[0, 0].tolist() == [51, 51, 51]
    assert pixels(blamed.candidate)[6, 2].tolist() == [153, 51, 51]


def test_the_heat_map_goes_from_black_over_red_and_yellow_to_white(tmp_path: Path) -> None:
    candidate = GREY.copy()
    candidate[0, 0, :4] += np.array([[0.0], [0.1], [0.2], [0.3]], dtype=np.float32)
    blamed = blame.save(candidate, GREY, tmp_path, "case.0")
    assert blamed.amplification == pytest.approx(1 / 0.3, rel=1e-5)
    red_to_white = pixels(blamed.heatmap)[0, :4].tolist()
    assert red_to_white == [[0, 0, 0], [255, 0, 0], [255, 255, 0], [255, 255, 255]]


def test_of_a_video_the_worst_frame_is_shown_between_its_neighbours(tmp_path: Path) -> None:
    reference = np.stack([np.full((8, 12, 3), 0.1 * frame, dtype=np.float32) for frame in range(6)])[None]
    candidate = reference.copy()
    candidate[0, 4, 4:, :6] += np.float32(0.2)
    blamed = blame.save(candidate, reference, tmp_path, "case.0")

    assert blamed.where == "moved most in the lower left quarter of frame 4 (of 0 to 5): 14.0 dB"
    sheet = pixels(blamed.frames)
    assert sheet.shape == (3 * 8, 3 * 12, 3)
    assert sheet[0, ::12, 0].tolist() == [77, 102, 128]  # frames 3, 4 and 5 of the reference
    assert sheet[8 + 7, ::12, 0].tolist() == [77, 153, 128]  # and of the candidate
    assert sheet[16 + 7, ::12].tolist() == [[0, 0, 0], [255, 255, 255], [0, 0, 0]]


@pytest.mark.parametrize(("video", "frame"), [pytest.param(0, 2, id="last"), pytest.param(1, 0, id="first")])
def test_a_worst_frame_has_no_neighbour_from_another_video(tmp_path: Path, video: int, frame: int) -> None:
    reference = np.stack([np.concatenate([GREY] * 3)] * 2)
    candidate = reference.copy()
    candidate[video, frame] += np.float32(0.1)
    blamed = blame.save(candidate, reference, tmp_path, "case.0")
    assert f"of frame {frame} (of 0 to 2) of video {video} (of 0 to 1)" in blamed.where
    assert pixels(blamed.frames).shape == (3 * 8, 2 * 12, 3)


def test_identical_pictures_moved_nowhere(tmp_path: Path) -> None:
    blamed = blame.save(GREY, GREY, tmp_path, "case.0")
    assert blamed.where == "identical to its reference"
    assert not pixels(blamed.heatmap).any()


def test_pictures_of_different_shapes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(
        PerfError, match=r"no heat map of outputs of shape \(1, 8, 12, 3\) and \(1, 8, 6, 3\)"
    ):
        blame.save(GREY, GREY[:, :, :6], tmp_path, "case.0")


def captured(out: Path, *reference_arrays: str) -> Process:
    (out / "captures").mkdir()
    np.save(out / "captures" / "case.0.npy", GREY + np.float32(0.1))
    np.save(out / "captures" / "twin.0.npy", GREY)
    capture = Capture(array="captures/case.0.npy", sha256="0" * 64, image="captures/case.0.png")
    fidelity = Fidelity(psnr_db=20.0, ssim=0.9, identical=False, reference_arrays=reference_arrays)
    return make_process(captures=(capture,), fidelity=fidelity)


def test_the_pictures_lie_beside_the_capture_and_one_pattern_names_them(tmp_path: Path) -> None:
    blamed = blame.keep(captured(tmp_path, "captures/twin.0.npy"), tmp_path)
    assert blamed.files == tmp_path / "captures" / "case.0.*.png"
    found = sorted(path.name for path in blamed.files.parent.glob(blamed.files.name))
    assert found == ["case.0.candidate.png", "case.0.heatmap.png", "case.0.reference.png"]


def test_a_record_that_does_not_name_the_reference_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(PerfError, match="does not say what the output was compared with"):
        blame.keep(captured(tmp_path), tmp_path)


def test_a_capture_that_is_gone_is_an_error(tmp_path: Path) -> None:
    process = captured(tmp_path, "captures/gone.0.npy")
    with pytest.raises(PerfError, match=r"cannot read the captured output .*gone\.0\.npy"):
        blame.keep(process, tmp_path)


def test_a_folder_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(PerfError, match=r"cannot write .*case\.0\.reference\.png"):
        blame.save(GREY, GREY, tmp_path / "file", "case.0")
