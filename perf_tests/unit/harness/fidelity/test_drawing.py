from __future__ import annotations

import sys
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from perf_tests.harness.fidelity import drawing
from perf_tests.harness.records.fidelity import Fidelity
from perf_tests.harness.runs.record import Process
from perf_tests.protocol.errors import PerfError
from perf_tests.protocol.reports import Capture
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
def test_the_quarter_that_changed_most_is_named_with_its_psnr(
    tmp_path: Path, rows: slice, columns: slice, quarter: str
) -> None:
    candidate = GREY + np.float32(0.01)
    candidate[:, rows, columns] = 0.6
    drawn = drawing.draw(candidate, GREY, tmp_path, "case.0")
    assert drawn.where == f"changed most in the {quarter} quarter of image 0 (of 0 to 0): 20.0 dB"


def test_the_pictures_are_those_of_the_worst_image_of_a_batch(tmp_path: Path) -> None:
    reference = np.concatenate([GREY, GREY - np.float32(0.3), GREY])
    candidate = reference + np.float32(0.01)
    candidate[1, 6, 2] = (0.6, 0.2, 0.2)
    drawn = drawing.draw(candidate, reference, tmp_path / "captures", "case.0")

    assert "image 1 (of 0 to 2)" in drawn.where
    assert (drawn.reference, drawn.candidate, drawn.heatmap, drawn.frames) == (
        tmp_path / "captures" / "case.0.reference.png",
        tmp_path / "captures" / "case.0.candidate.png",
        tmp_path / "captures" / "case.0.heatmap.png",
        None,
    )
    assert pixels(drawn.reference).shape == (8, 12, 3)
    assert pixels(drawn.reference)[0, 0].tolist() == [51, 51, 51]
    assert pixels(drawn.candidate)[6, 2].tolist() == [153, 51, 51]


def test_the_heat_map_goes_from_black_over_red_and_yellow_to_white(tmp_path: Path) -> None:
    candidate = GREY.copy()
    candidate[0, 0, :4] += np.array([[0.0], [0.1], [0.2], [0.3]], dtype=np.float32)
    drawn = drawing.draw(candidate, GREY, tmp_path, "case.0")
    assert drawn.amplification == pytest.approx(1 / 0.3, rel=1e-5)
    red_to_white = pixels(drawn.heatmap)[0, :4].tolist()
    assert red_to_white == [[0, 0, 0], [255, 0, 0], [255, 255, 0], [255, 255, 255]]


def test_the_worst_frame_of_a_video_is_shown_between_its_neighbours(tmp_path: Path) -> None:
    reference = np.stack([np.full((8, 12, 3), 0.1 * frame, dtype=np.float32) for frame in range(6)])[None]
    candidate = reference.copy()
    candidate[0, 4, 4:, :6] += np.float32(0.2)
    drawn = drawing.draw(candidate, reference, tmp_path, "case.0")

    assert drawn.where == "changed most in the lower left quarter of frame 4 (of 0 to 5): 14.0 dB"
    sheet = pixels(drawn.frames)
    assert sheet.shape == (3 * 8, 3 * 12, 3)
    assert sheet[0, ::12, 0].tolist() == [77, 102, 128]  # frames 3, 4 and 5 of the reference
    assert sheet[8 + 7, ::12, 0].tolist() == [77, 153, 128]  # and of the candidate
    assert sheet[16 + 7, ::12].tolist() == [[0, 0, 0], [255, 255, 255], [0, 0, 0]]


@pytest.mark.parametrize(("video", "frame"), [pytest.param(0, 2, id="last"), pytest.param(1, 0, id="first")])
def test_a_worst_frame_has_no_neighbour_from_another_video(tmp_path: Path, video: int, frame: int) -> None:
    reference = np.stack([np.concatenate([GREY] * 3)] * 2)
    candidate = reference.copy()
    candidate[video, frame] += np.float32(0.1)
    drawn = drawing.draw(candidate, reference, tmp_path, "case.0")
    assert f"of frame {frame} (of 0 to 2) of video {video} (of 0 to 1)" in drawn.where
    assert pixels(drawn.frames).shape == (3 * 8, 2 * 12, 3)


def two_videos() -> tuple[np.ndarray, np.ndarray]:
    """Measured and reference, (2, 5, 16, 24, 3): frame f of the second reference is (0.2, 0.6, 0.4 + f / 10),
    and its lower half is off by 0.2 in frame 3, by 0.1 in frame 1."""
    reference = np.full((2, 5, 16, 24, 3), (0.2, 0.6, 0.4), dtype=np.float32)
    reference[1, ..., 2] += np.linspace(0.0, 0.4, 5, dtype=np.float32)[:, None, None]
    measured = reference.copy()
    measured[1, 3, 8:] += np.float32(0.2)
    measured[1, 1, 8:] += np.float32(0.1)
    return measured, reference


def decoded(path: Path | None) -> np.ndarray:
    """(frames, height, width, 3), as int: differences of uint8 wrap."""
    assert path is not None
    with av.open(path) as film:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in film.decode(video=0)]).astype(int)


def test_the_mp4_is_one_that_browsers_play_at_eight_frames_per_second(tmp_path: Path) -> None:
    drawn = drawing.draw(*two_videos(), tmp_path, "case.0")
    assert (drawn.video, drawn.no_video) == (tmp_path / "case.0.mp4", None)
    with av.open(tmp_path / "case.0.mp4") as film:
        (stream,) = film.streams.video
        assert (stream.codec_context.name, stream.pix_fmt) == ("h264", "yuv420p")
        assert stream.average_rate == Fraction(8)
        assert (stream.width, stream.height, stream.frames) == (3 * 24, 16, 5)
        # No player has to guess: BT.601, sRGB's transfer function, BT.709's primaries, in H.264's numbers.
        context = stream.codec_context
        assert (context.colorspace, context.color_trc, context.color_primaries) == (6, 13, 1)


def test_the_mp4_shows_reference_candidate_and_heat_map_of_the_whole_worst_video(tmp_path: Path) -> None:
    frames = decoded(drawing.draw(*two_videos(), tmp_path, "case.0").video)
    reference, candidate, heatmap = np.split(frames, 3, axis=2)

    expected = [[51, 153, 102], [51, 153, 128], [51, 153, 153], [51, 153, 178], [51, 153, 204]]
    assert np.abs(reference - np.array(expected)[:, None, None]).max() <= 6
    assert np.abs(candidate[:, :6] - reference[:, :6]).max() <= 6
    assert np.abs(candidate[3, 10:] - (102, 204, 229)).max() <= 6
    assert heatmap[:, :6].max() <= 6
    # What changed most in frame 3, the worst, is white; half as much in frame 1 is between red and yellow.
    middles = heatmap[:, 12, 12]
    assert np.abs(middles - [[0, 0, 0], [255, 128, 0], [0, 0, 0], [255, 255, 255], [0, 0, 0]]).max() <= 6


def test_a_larger_difference_in_another_frame_is_as_white_as_in_the_worst_one(tmp_path: Path) -> None:
    reference = np.full((1, 2, 16, 24, 3), 0.25, dtype=np.float32)
    measured = reference.copy()
    measured[0, 0] += np.float32(0.25)
    measured[0, 1, :8, :8] += np.float32(0.5)  # a sixth of the area, twice the difference
    drawn = drawing.draw(measured, reference, tmp_path, "case.0")
    assert drawn.amplification == 4.0
    assert decoded(drawn.video)[1, 4, 2 * 24 + 4].min() >= 249


def test_an_odd_side_gets_a_black_edge(tmp_path: Path) -> None:
    reference = np.full((1, 2, 15, 25, 3), 0.5, dtype=np.float32)
    frames = decoded(drawing.draw(reference, reference, tmp_path, "case.0").video)
    assert frames.shape == (2, 16, 3 * 25 + 1, 3)
    assert frames[0, 4, 4].tolist() == pytest.approx([128, 128, 128], abs=6)
    assert frames[0, :, 2 * 25 + 2 :].max() <= 6


def test_images_have_no_mp4_and_no_reason_why(tmp_path: Path) -> None:
    drawn = drawing.draw(GREY, GREY, tmp_path, "case.0")
    assert (drawn.video, drawn.no_video) == (None, None)
    assert drawn.listed == f"{tmp_path}/case.0.*.png"
    assert not list(tmp_path.glob("*.mp4"))


def test_the_mp4_is_listed_after_the_pattern(tmp_path: Path) -> None:
    drawn = drawing.draw(*two_videos(), tmp_path, "case.0")
    assert drawn.listed == f"{tmp_path}/case.0.*.png, {tmp_path}/case.0.mp4"


def without_mp4(folder: Path, measured: np.ndarray, reference: np.ndarray) -> str:
    """What is listed where all PNGs were written, but no MP4."""
    drawn = drawing.draw(measured, reference, folder, "case.0")
    assert drawn.video is None
    assert sorted(path.name for path in folder.iterdir() if path.is_file()) == [
        "case.0.candidate.png",
        "case.0.frames.png",
        "case.0.heatmap.png",
        "case.0.reference.png",
    ]
    return drawn.listed


def test_without_pyav_the_pictures_are_kept_and_the_reason_is_listed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    listed = without_mp4(tmp_path, *two_videos())
    assert listed.startswith(f"{tmp_path}/case.0.*.png, no MP4 (PyAV cannot be imported: ")


def test_a_video_that_x264_refuses_is_listed_with_the_pictures(tmp_path: Path) -> None:
    wide = np.full((1, 1, 2, 5500, 3), 0.5, dtype=np.float32)  # three of them: more than its 16,384
    assert f"{tmp_path}/case.0.*.png, no MP4 (cannot encode H.264: " in without_mp4(tmp_path, wide, wide)


def test_an_ffmpeg_without_x264_is_listed_with_the_pictures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(drawing, "ENCODER", "not-built-in")
    assert without_mp4(tmp_path, *two_videos()).endswith("no MP4 (cannot encode H.264: not-built-in)")


def test_a_disk_that_refuses_the_mp4_is_listed_with_the_pictures(tmp_path: Path) -> None:
    (tmp_path / "case.0.mp4").mkdir()
    listed = without_mp4(tmp_path, *two_videos())
    assert listed.endswith(f", no MP4 (cannot write {tmp_path}/case.0.mp4: Is a directory)")


def test_identical_pictures_changed_nowhere(tmp_path: Path) -> None:
    drawn = drawing.draw(GREY, GREY, tmp_path, "case.0")
    assert drawn.where == "identical to its reference"
    assert not pixels(drawn.heatmap).any()


def test_pictures_of_different_shapes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(
        PerfError, match=r"no heat map of outputs of shape \(1, 8, 12, 3\) and \(1, 8, 6, 3\)"
    ):
        drawing.draw(GREY, GREY[:, :, :6], tmp_path, "case.0")


def captured(out: Path, *reference_arrays: str) -> Process:
    (out / "captures").mkdir()
    np.save(out / "captures" / "case.0.npy", GREY + np.float32(0.1))
    np.save(out / "captures" / "twin.0.npy", GREY)
    capture = Capture(array="captures/case.0.npy", sha256="0" * 64, image="captures/case.0.png")
    fidelity = Fidelity(psnr_db=20.0, ssim=0.9, identical=False, reference_arrays=reference_arrays)
    return make_process(captures=(capture,), fidelity=fidelity)


def test_the_pictures_are_next_to_the_capture_and_one_pattern_matches_them(tmp_path: Path) -> None:
    drawn = drawing.draw_worst_pair(captured(tmp_path, "captures/twin.0.npy"), tmp_path)
    assert drawn.files == tmp_path / "captures" / "case.0.*.png"
    found = sorted(path.name for path in drawn.files.parent.glob(drawn.files.name))
    assert found == ["case.0.candidate.png", "case.0.heatmap.png", "case.0.reference.png"]


def test_a_record_that_does_not_name_the_reference_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(PerfError, match="does not say what the output was compared with"):
        drawing.draw_worst_pair(captured(tmp_path), tmp_path)


def test_a_capture_that_is_gone_is_an_error(tmp_path: Path) -> None:
    process = captured(tmp_path, "captures/gone.0.npy")
    with pytest.raises(PerfError, match=r"cannot read .*gone\.0\.npy"):
        drawing.draw_worst_pair(process, tmp_path)


def test_a_folder_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(PerfError, match=r"cannot write .*case\.0\.reference\.png"):
        drawing.draw(GREY, GREY, tmp_path / "file", "case.0")
