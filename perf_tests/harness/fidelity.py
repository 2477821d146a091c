"""Two images or videos in, PSNR and SSIM out."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from perf_tests.harness.errors import PerfError
from perf_tests.harness.records import Fidelity

DATA_RANGE = 1.0


def compare(measured: np.ndarray, reference: np.ndarray) -> Fidelity:
    """The lowest PSNR and SSIM over all images, or over all frames of all videos.

    Both float32 in [0, 1], (batch, height, width, 3) or (batch, frames, height, width, 3). SSIM as in
    Wang et al. 2004 (Gaussian window, sigma 1.5), which is not scikit-image's default. Raises PerfError
    for arrays of different or other shapes and for values that are no pixels.
    """
    _require_pixels(measured, "measured")
    _require_pixels(reference, "reference")
    if measured.shape != reference.shape:
        raise PerfError(
            f"the measured output has shape {measured.shape} and the reference {reference.shape}: "
            "only outputs of one workload can be compared"
        )
    psnrs_db, ssims = [], []
    for got, wanted in zip(_frames(measured), _frames(reference), strict=True):
        ssims.append(_ssim(got, wanted))
        # An identical frame has an infinite PSNR, which is never the lowest.
        if not np.array_equal(got, wanted):
            psnrs_db.append(_psnr_db(got, wanted))
    return Fidelity(psnr_db=min(psnrs_db, default=None), ssim=min(ssims), identical=not psnrs_db)


def _frames(images: np.ndarray) -> Iterator[np.ndarray]:
    for frame in images.reshape(-1, *images.shape[-3:]):
        # float64 before anything is subtracted: squared differences of float32 lose the small ones.
        yield frame.astype(np.float64)


# The ignores: scikit-image annotates only a part of its functions.


def _psnr_db(measured: np.ndarray, reference: np.ndarray) -> float:
    return float(
        peak_signal_noise_ratio(reference, measured, data_range=DATA_RANGE)  # type: ignore[no-untyped-call]
    )


def _ssim(measured: np.ndarray, reference: np.ndarray) -> float:
    return float(
        structural_similarity(  # type: ignore[no-untyped-call]
            reference,
            measured,
            data_range=DATA_RANGE,
            channel_axis=-1,
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
        )
    )


def _require_pixels(images: np.ndarray, name: str) -> None:
    if images.ndim not in (4, 5) or images.shape[-1] != 3 or images.size == 0:
        raise PerfError(
            f"the {name} output has shape {images.shape}, not (batch, height, width, 3) "
            "or (batch, frames, height, width, 3)"
        )
    # Also false for NaN.
    if not bool(np.all((images >= 0.0) & (images <= 1.0))):
        raise PerfError(f"the {name} output holds values which are NaN or outside [0, 1]: it is no image")
