from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pytest

from perf_tests.harness.fidelity.image_metrics import catastrophe, compare, constant_frames
from perf_tests.protocol.errors import PerfError
from perf_tests.tables.cases import Weights
from perf_tests.tables.fidelity_floors import floor_of
from perf_tests.tables.matrix import MATRIX
from perf_tests.tables.schemes.rows import SCHEMES
from perf_tests.tables.schemes.spec import FidelityFloor

IMAGES = (1, 128, 128, 3)
VIDEO = (1, 9, 64, 96, 3)
UNRELATED = FidelityFloor(
    psnr_db=12.0, ssim=0.4, source="above the pictures of the miniatures from other seeds"
)


def _uniform(shape: tuple[int, ...], seed: int, low: float = 0.0, high: float = 1.0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(low, high, shape).astype(np.float32)


def _picture(moved_px: float = 0.0, height: int = 64, width: int = 96) -> np.ndarray:
    """Waves that travel to the right, in [0.2, 0.8], periodic in both directions."""
    y, x = np.mgrid[0:height, 0:width]
    waves = [
        0.5 + 0.3 * np.sin(2 * np.pi * (x - moved_px) / width * k) * np.cos(2 * np.pi * y / height * k)
        for k in (1, 2, 4)
    ]
    return np.stack(waves, axis=-1).astype(np.float32)


def _video() -> np.ndarray:
    """(1, 9, 64, 96, 3), 3 pixels a frame."""
    return np.stack([_picture(3.0 * frame) for frame in range(9)])[None]


@pytest.mark.parametrize("shape", [pytest.param(IMAGES, id="images"), pytest.param(VIDEO, id="video")])
def test_unrelated_images_have_less_than_12_db(shape: tuple[int, ...]) -> None:
    fidelity = compare(_uniform(shape, seed=1), _uniform(shape, seed=2))
    assert fidelity.psnr_db is not None
    assert 7.0 < fidelity.psnr_db < 12.0
    assert fidelity.ssim < 0.1


@pytest.mark.parametrize("sigma", [0.01, 0.02, 0.05, 0.1])
def test_noise_of_known_sigma_has_the_psnr_of_its_sigma(sigma: float) -> None:
    # The middle of the range, so that nothing is clipped and the error is the noise alone.
    reference = np.full((1, 256, 256, 3), 0.5, dtype=np.float32)
    noise = np.random.default_rng(3).normal(0.0, sigma, reference.shape)
    fidelity = compare((reference + noise).astype(np.float32), reference)
    assert fidelity.psnr_db == pytest.approx(-20.0 * np.log10(sigma), abs=0.05)


def test_a_brightness_shift_has_the_psnr_of_its_size_and_keeps_the_structure() -> None:
    reference = _uniform(IMAGES, seed=4, low=0.2, high=0.7)
    fidelity = compare(reference + np.float32(0.1), reference)
    assert fidelity.psnr_db == pytest.approx(20.0, abs=0.001)
    assert fidelity.ssim > 0.95


def test_an_image_eight_levels_brighter_has_30_db_and_the_same_structure() -> None:
    fidelity = compare(_picture()[None] + np.float32(8 / 255), _picture()[None])
    assert fidelity.psnr_db == pytest.approx(30.07, abs=0.005)
    assert fidelity.ssim > 0.99


def test_a_shift_by_one_pixel_is_seen_by_both() -> None:
    reference = _uniform((1, 64, 96, 3), seed=10)
    noise = compare(np.roll(reference, 1, axis=2), reference)
    waves = compare(_picture(1.0)[None], _picture()[None])
    assert noise.psnr_db == pytest.approx(7.78, abs=0.1)  # the neighbour of a random pixel is unrelated
    assert noise.ssim < 0.1
    assert waves.psnr_db == pytest.approx(31.73, abs=0.01)
    assert waves.ssim == pytest.approx(0.9814, abs=0.0005)


def test_ssim_is_the_formula_of_wang_2004_over_an_11_by_11_gaussian_window() -> None:
    measured, reference = _uniform((1, 11, 11, 3), seed=5), _uniform((1, 11, 11, 3), seed=6)
    bell = np.exp(-(np.arange(-5, 6) ** 2) / (2 * 1.5**2))
    window = (np.outer(bell, bell) / bell.sum() ** 2)[..., None]

    def mean(values: np.ndarray) -> np.ndarray:
        weighted: np.ndarray = window * values
        return np.asarray(weighted.sum(axis=(0, 1)))

    x, y = measured[0].astype(np.float64), reference[0].astype(np.float64)
    c1, c2 = 0.01**2, 0.03**2
    covariance = mean(x * y) - mean(x) * mean(y)
    variances = mean(x * x) - mean(x) ** 2 + mean(y * y) - mean(y) ** 2
    luminance = (2 * mean(x) * mean(y) + c1) / (mean(x) ** 2 + mean(y) ** 2 + c1)
    expected = (luminance * (2 * covariance + c2) / (variances + c2)).mean()
    assert compare(measured, reference).ssim == pytest.approx(expected, abs=1e-9)


def test_identical_images_have_no_psnr() -> None:
    images = _uniform(IMAGES, seed=6)
    fidelity = compare(images, images.copy())
    assert (fidelity.psnr_db, fidelity.identical) == (None, True)
    assert fidelity.ssim == pytest.approx(1.0)


def test_the_worst_frame_of_a_video_counts() -> None:
    reference = _uniform(VIDEO, seed=7, low=0.2, high=0.7)
    measured = reference.copy()
    measured[0, 3] += 0.01
    measured[0, 5] += 0.1
    fidelity = compare(measured, reference)
    assert fidelity.psnr_db == pytest.approx(20.0, abs=0.001)
    assert not fidelity.identical


def test_the_worst_image_of_a_batch_counts() -> None:
    reference = _uniform((2, 64, 96, 3), seed=8)
    measured = reference.copy()
    measured[1] = _uniform((64, 96, 3), seed=9)
    assert compare(measured, reference).ssim < 0.1


def test_arrays_of_different_shapes_are_refused() -> None:
    with pytest.raises(PerfError, match=r"shape \(1, 128, 128, 3\) and the reference \(1, 64, 96, 3\)"):
        compare(_uniform(IMAGES, seed=1), _uniform((1, 64, 96, 3), seed=1))


@pytest.mark.parametrize("shape", [(128, 128, 3), (1, 3, 128, 128), (0, 64, 96, 3)])
def test_an_array_of_another_layout_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(PerfError, match="the measured output has shape"):
        compare(_uniform(shape, seed=1), _uniform(shape, seed=1))


@pytest.mark.parametrize("value", [np.nan, np.inf, -0.5, 255.0])
def test_values_that_are_not_pixels_are_refused(value: float) -> None:
    broken = _uniform(IMAGES, seed=1)
    broken[0, 5, 5, 1] = value
    with pytest.raises(PerfError, match=r"the reference output holds values that are NaN or outside"):
        compare(_uniform(IMAGES, seed=1), broken)


# Pairs, and other values than the lowest


def _rounded(psnrs_db: Iterable[float | None]) -> list[float | None]:
    return [None if psnr_db is None else round(psnr_db, 2) for psnr_db in psnrs_db]


def test_an_image_of_a_batch_has_values_of_its_own() -> None:
    reference = np.stack([_picture()] * 3)
    measured = reference.copy()
    measured[1] += np.float32(0.1)
    measured[2] += np.float32(0.01)
    fidelity = compare(measured, reference)
    assert _rounded(fidelity.pair_psnrs_db) == [None, 20.0, 40.0]
    assert fidelity.psnr_db == fidelity.pair_psnrs_db[1]
    assert fidelity.pair_ssims[0] == pytest.approx(1.0)
    assert fidelity.ssim == fidelity.pair_ssims[1] < fidelity.pair_ssims[2]
    assert not fidelity.identical


def test_images_lack_the_values_of_videos() -> None:
    fidelity = compare(_picture(1.0)[None], _picture()[None])
    assert (fidelity.psnr_mean_db, fidelity.psnr_p05_db, fidelity.ssim_mean, fidelity.ssim_p05) == (None,) * 4
    assert (fidelity.frame_difference_error, fidelity.flicker_ratio) == (None, None)


def test_mean_and_5th_percentile_are_over_the_frames() -> None:
    reference = np.stack([_picture()] * 21)[None]
    errors = np.full(21, 0.01, dtype=np.float32)
    errors[[4, 5]] = (0.1, 0.05)  # of 21 values the second lowest lies at 5 %
    fidelity = compare(reference + errors[None, :, None, None, None], reference)
    assert fidelity.psnr_db == pytest.approx(20.0, abs=0.001)
    assert fidelity.psnr_p05_db == pytest.approx(26.0206, abs=0.001)
    assert fidelity.psnr_mean_db == pytest.approx((20.0 + 26.0206 + 19 * 40.0) / 21, abs=0.001)
    ssims = [compare(frames, reference[:, 0]).ssim for frames in (reference[:, 0] + e for e in errors)]
    assert fidelity.ssim == pytest.approx(sorted(ssims)[0])
    assert fidelity.ssim_p05 == pytest.approx(sorted(ssims)[1])
    assert fidelity.ssim_mean == pytest.approx(sum(ssims) / 21)


def test_a_video_of_a_batch_is_a_pair_and_its_frames_are_not_compared_with_the_next_video() -> None:
    reference = np.concatenate([_video(), 1.0 - _video()])
    measured = reference.copy()
    measured[1] += np.float32(0.1)  # a video that is brighter in every frame changes as it should
    fidelity = compare(measured, reference)
    assert _rounded(fidelity.pair_psnrs_db) == [None, 20.0]
    assert fidelity.frame_difference_error == pytest.approx(0.0, abs=1e-6)
    assert fidelity.flicker_ratio == pytest.approx(1.0, abs=1e-5)


# Motion


def test_an_identical_video_changes_as_its_reference_does() -> None:
    fidelity = compare(_video(), _video())
    assert (fidelity.identical, fidelity.psnr_db) == (True, None)
    assert (fidelity.frame_difference_error, fidelity.flicker_ratio) == (0.0, 1.0)
    assert fidelity.psnr_mean_db == fidelity.psnr_p05_db == pytest.approx(144.4944, abs=1e-4)


def test_a_duplicated_frame_is_seen() -> None:
    measured = _video()
    measured[0, 5] = measured[0, 4]
    fidelity = compare(measured, _video())
    assert fidelity.psnr_db is not None
    assert fidelity.psnr_db < 24.0
    assert fidelity.frame_difference_error is not None
    assert fidelity.frame_difference_error > 0.01
    assert fidelity.flicker_ratio is not None
    assert fidelity.flicker_ratio < 0.99


def test_a_swapped_pair_of_frames_is_seen() -> None:
    measured = _video()
    measured[0, [3, 4]] = measured[0, [4, 3]]
    fidelity = compare(measured, _video())
    assert fidelity.psnr_db is not None
    assert fidelity.psnr_db < 24.0
    assert fidelity.frame_difference_error is not None
    assert fidelity.frame_difference_error > 0.02
    assert fidelity.flicker_ratio is not None
    assert fidelity.flicker_ratio > 1.2


def test_the_frame_difference_error_is_the_mean_over_pixels_and_pairs_of_frames() -> None:
    reference = np.full((1, 5, 16, 16, 3), 0.5, dtype=np.float32)
    reference[0, :, 0, 0] += np.linspace(0.0, 0.4, 5)[:, None]
    measured = reference.copy()
    measured[0, 2] += 0.1  # into the frame and out of it: two of four differences
    fidelity = compare(measured, reference)
    assert fidelity.frame_difference_error == pytest.approx(0.05, abs=1e-6)
    # 255 pixels move by 0.1 twice, one by 0.1 + 0.1 and by nothing, and as the reference for the rest.
    assert fidelity.flicker_ratio == pytest.approx((255 * 0.2 + 0.2 + 0.0 + 0.2) / 0.4, rel=1e-4)


def test_a_reference_whose_frames_do_not_change_has_no_flicker_ratio() -> None:
    still = np.stack([_picture()] * 4)[None]
    fidelity = compare(_video()[:, :4], still)
    assert fidelity.flicker_ratio is None
    assert fidelity.frame_difference_error is not None
    assert fidelity.frame_difference_error > 0.01


def test_a_video_of_one_frame_has_no_motion() -> None:
    fidelity = compare(_video()[:, :1] + np.float32(0.1), _video()[:, :1])
    assert (fidelity.frame_difference_error, fidelity.flicker_ratio) == (None, None)
    assert fidelity.psnr_mean_db == pytest.approx(20.0, abs=0.001)


# Catastrophes


def _batch() -> np.ndarray:
    return np.stack([_picture(float(number)) for number in range(4)])


@pytest.mark.parametrize("images", [pytest.param(_batch(), id="images"), pytest.param(_video(), id="video")])
def test_pictures_are_not_a_catastrophe(images: np.ndarray) -> None:
    assert catastrophe(images, images.shape) is None


@pytest.mark.parametrize(
    ("value", "says"),
    [
        pytest.param(0.0, "is black", id="black"),
        pytest.param(0.5, "is of one colour", id="grey"),
        pytest.param((0.9, 0.5, 0.1), "is of one colour", id="orange"),
    ],
)
def test_a_constant_image_in_a_batch_of_four_is_a_catastrophe(value: object, says: str) -> None:
    images = _batch()
    images[2] = value
    assert catastrophe(images, images.shape) == (
        f"the measured output {says} in image 2 (of 0 to 3): it is not a picture"
    )


@pytest.mark.parametrize(
    ("value", "says"),
    [
        pytest.param(np.nan, "holds NaN", id="nan"),
        pytest.param(np.inf, "holds infinite values", id="infinite"),
        pytest.param(-np.inf, "holds infinite values", id="minus-infinite"),
        pytest.param(1.001, "holds values outside [0, 1]", id="above"),
        pytest.param(-0.001, "holds values outside [0, 1]", id="below"),
    ],
)
def test_a_single_value_that_is_not_a_pixel_is_a_catastrophe(value: float, says: str) -> None:
    images = _batch()
    images[3, 5, 5, 1] = value
    assert catastrophe(images, images.shape) == (
        f"the measured output {says} in image 3 (of 0 to 3): it is not a picture"
    )


def test_a_black_frame_is_a_catastrophe_and_named_with_its_video() -> None:
    videos = np.concatenate([_video(), _video()])
    videos[1, 7] = 0.0
    said = "the measured output is black in frame 7 (of 0 to 8) of video 1 (of 0 to 1): it is not a picture"
    assert catastrophe(videos, videos.shape) == said
    assert catastrophe(videos[1:], (1, 9, 64, 96, 3)) == said.replace(" of video 1 (of 0 to 1)", "")


@pytest.mark.parametrize(
    ("std", "is_one"), [pytest.param(1.8 / 255, True, id="below"), pytest.param(2.2 / 255, False, id="above")]
)
def test_an_image_that_varies_by_less_than_two_levels_is_constant(std: float, is_one: bool) -> None:
    noise = np.random.default_rng(11).normal(0.5, std, (1, 64, 96, 3))
    assert (catastrophe(noise, noise.shape) is not None) == is_one


def test_a_frame_that_is_constant_in_the_reference_may_be_constant() -> None:
    reference = _video()
    reference[0, 0] = 0.0
    constant = constant_frames(reference)
    assert constant == {0}
    assert catastrophe(reference, reference.shape, constant) is None
    measured = reference.copy()
    measured[0, 1] = 0.0
    assert "is black in frame 1 " in (catastrophe(measured, reference.shape, constant) or "")
    measured[0, 0] = np.nan
    assert "holds NaN in frame 0 " in (catastrophe(measured, reference.shape, constant) or "")


def test_a_video_with_another_frame_count_is_a_catastrophe() -> None:
    assert catastrophe(_video()[:, :8], (1, 9, 64, 96, 3)) == (
        "the measured video has 8 frames and the reference 9: "
        "only outputs of the same workload can be compared"
    )


@pytest.mark.parametrize("shape", [(4, 64, 48, 3), (3, 64, 96, 3), (4, 1, 64, 96, 3)])
def test_an_output_of_another_shape_is_a_catastrophe(shape: tuple[int, ...]) -> None:
    said = catastrophe(_batch(), shape)
    assert said is not None
    assert said.startswith(f"the measured output has shape (4, 64, 96, 3) and the reference {shape}: ")


# Floors


def _is_loose(floor: FidelityFloor) -> bool:
    """Whether an unrelated picture passes."""
    return floor.psnr_db < UNRELATED.psnr_db or floor.ssim < UNRELATED.ssim


def test_floors_let_no_unrelated_picture_pass() -> None:
    of_schemes = {scheme.id: scheme.floor for scheme in SCHEMES}
    of_cases = {case.id: floor_of(case) for case in (row.case(each) for row in MATRIX for each in Weights)}
    floors = {name: floor for name, floor in (of_schemes | of_cases).items() if floor is not None}
    assert len(floors) > 300
    assert {name: floor for name, floor in floors.items() if _is_loose(floor)} == {}


@pytest.mark.parametrize("floor", [(11.9, 0.4), (12.0, 0.39), (0.0, 0.0)])
def test_a_floor_below_what_unrelated_pictures_reach_is_refused(floor: tuple[float, float]) -> None:
    assert _is_loose(FidelityFloor(psnr_db=floor[0], ssim=floor[1], source="a test"))


def test_unrelated_pictures_fall_below_every_floor() -> None:
    fidelity = compare(_uniform((1, 64, 96, 3), seed=12), _picture()[None])
    assert fidelity.psnr_db is not None
    assert fidelity.psnr_db < UNRELATED.psnr_db
    assert fidelity.ssim < UNRELATED.ssim
