from __future__ import annotations

import numpy as np
import pytest

from perf_tests.harness.errors import PerfError
from perf_tests.harness.fidelity import compare

IMAGES = (1, 128, 128, 3)
VIDEO = (1, 9, 64, 96, 3)


def _uniform(shape: tuple[int, ...], seed: int, low: float = 0.0, high: float = 1.0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(low, high, shape).astype(np.float32)


@pytest.mark.parametrize("shape", [pytest.param(IMAGES, id="images"), pytest.param(VIDEO, id="video")])
def test_unrelated_images_have_less_than_12_db(shape: tuple[int, ...]) -> None:
    fidelity = compare(_uniform(shape, seed=1), _uniform(shape, seed=2))
    assert fidelity.psnr_db is not None
    assert 7.0 < fidelity.psnr_db < 12.0
    assert fidelity.ssim < 0.1


@pytest.mark.parametrize("sigma", [0.01, 0.03125, 0.1])
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


def test_different_shapes_are_refused() -> None:
    with pytest.raises(PerfError, match=r"shape \(1, 128, 128, 3\) and the reference \(1, 64, 96, 3\)"):
        compare(_uniform(IMAGES, seed=1), _uniform((1, 64, 96, 3), seed=1))


@pytest.mark.parametrize("shape", [(128, 128, 3), (1, 3, 128, 128), (0, 64, 96, 3)])
def test_an_array_of_another_layout_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(PerfError, match="the measured output has shape"):
        compare(_uniform(shape, seed=1), _uniform(shape, seed=1))


@pytest.mark.parametrize("value", [np.nan, np.inf, -0.5, 255.0])
def test_values_that_are_no_pixels_are_refused(value: float) -> None:
    broken = _uniform(IMAGES, seed=1)
    broken[0, 5, 5, 1] = value
    with pytest.raises(PerfError, match=r"the reference output holds values which are NaN or outside"):
        compare(_uniform(IMAGES, seed=1), broken)
