"""Two images or videos in, PSNR and SSIM out; and whether an output is a picture at all."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Container, Iterator, Sequence
from itertools import pairwise

import msgspec
import numpy as np

from perf_tests.harness.records.fidelity import Fidelity
from perf_tests.protocol.errors import PerfError
from perf_tests.tables.metrics.spec import CONSTANT_STD, IDENTICAL_DB

DATA_RANGE = 1.0
LOW_PERCENTILE = 5.0


def sqnr_db(measured: np.ndarray, reference: np.ndarray) -> float:
    """20 log10(||ref|| / ||ref - y||), like torchao's `compute_error`; `IDENTICAL_DB` for no difference.

    Raises PerfError for different shapes, for NaN or infinity, and for a reference that is all zeros.
    """
    if measured.shape != reference.shape:
        raise PerfError(f"answers of shape {measured.shape} cannot be compared with {reference.shape}")
    wanted, got = reference.astype(np.float64), measured.astype(np.float64)
    energy, error = float(np.square(wanted).sum()), float(np.square(wanted - got).sum())
    if not np.isfinite(energy + error) or energy == 0:
        raise PerfError("the transformer's answers hold NaN or infinity, or its reference is all zeros")
    return IDENTICAL_DB if error == 0 else 10.0 * float(np.log10(energy / error))


def compare_pairs(pairs: Sequence[tuple[np.ndarray, np.ndarray]]) -> Fidelity:
    """`compare` each (measured, reference), one per prompt and seed, and sum them up. Raises PerfError."""
    return over_pairs([compare(measured, reference) for measured, reference in pairs])


def over_pairs(compared: Sequence[Fidelity]) -> Fidelity:
    """The lowest PSNR and SSIM of pairs of prompt and seed, and all of them.

    Fields that describe all frames of a video are averaged over the pairs.
    """
    return msgspec.structs.replace(
        compared[0],
        psnr_db=_lowest([each.psnr_db for each in compared]),
        ssim=min(each.ssim for each in compared),
        identical=all(each.identical for each in compared),
        pair_psnrs_db=tuple(each.psnr_db for each in compared),
        pair_ssims=tuple(each.ssim for each in compared),
        **{name: _mean([getattr(each, name) for each in compared]) for name in OF_ALL_FRAMES},
    )


def _mean(values: Sequence[float | None]) -> float | None:
    """None where any value is None: the mean of the others would mean something else."""
    known = [value for value in values if value is not None]
    return statistics.fmean(known) if len(known) == len(values) else None


OF_ALL_FRAMES = (
    "psnr_mean_db",
    "psnr_p05_db",
    "ssim_mean",
    "ssim_p05",
    "frame_difference_error",
    "flicker_ratio",
)
"""Fields that describe all frames of a video."""


def compare(measured: np.ndarray, reference: np.ndarray) -> Fidelity:
    """The lowest PSNR and SSIM of all images or frames, each pair's, and for videos how their frames change.

    Both arrays are float32 in [0, 1], (batch, height, width, 3) or (batch, frames, height, width, 3). SSIM is
    that of Wang et al. 2004 (Gaussian window, sigma 1.5), which is not scikit-image's default. Raises
    PerfError for arrays of different or other shapes, and for values that are not pixels.
    """
    _require_pixels(measured, "measured")
    _require_pixels(reference, "reference")
    if mismatch := _mismatch(measured.shape, reference.shape):
        raise PerfError(mismatch)
    psnrs_db: list[float | None] = []
    ssims: list[float] = []
    for got, wanted in zip(_frames(measured), _frames(reference), strict=True):
        ssims.append(_ssim(got, wanted))
        # The PSNR of an identical frame is infinite, and so never the lowest.
        psnrs_db.append(None if np.array_equal(got, wanted) else _psnr_db(got, wanted))
    frames = len(ssims) // len(measured)
    pairs = [slice(start, start + frames) for start in range(0, len(ssims), frames)]
    compared = Fidelity(
        psnr_db=_lowest(psnrs_db),
        ssim=min(ssims),
        identical=_lowest(psnrs_db) is None,
        pair_psnrs_db=tuple(_lowest(psnrs_db[pair]) for pair in pairs),
        pair_ssims=tuple(min(ssims[pair]) for pair in pairs),
    )
    if measured.ndim == 4:
        return compared
    finite_db = [IDENTICAL_DB if psnr_db is None else psnr_db for psnr_db in psnrs_db]
    difference_error, flicker_ratio = _motion(measured, reference)
    return msgspec.structs.replace(
        compared,
        psnr_mean_db=float(np.mean(finite_db)),
        psnr_p05_db=float(np.percentile(finite_db, LOW_PERCENTILE)),
        ssim_mean=float(np.mean(ssims)),
        ssim_p05=float(np.percentile(ssims, LOW_PERCENTILE)),
        frame_difference_error=difference_error,
        flicker_ratio=flicker_ratio,
    )


def catastrophe(
    images: np.ndarray, reference_shape: tuple[int, ...], constant: Container[int] = frozenset()
) -> str | None:
    """Why `images` are not pictures of the shape `reference_shape`, in one sentence; None if they are.

    They are not where the shape or the number of frames differs, where a single value is NaN, infinite or
    outside [0, 1], and where a single image or frame is black or of one colour. The images or frames in
    `constant` may be of one colour: those for which `constant_frames` says so of the reference.
    """
    if mismatch := _mismatch(images.shape, reference_shape):
        return mismatch
    for index, frame in enumerate(_frames(images)):
        fault = _no_pixels(frame) or (None if index in constant else _no_content(frame))
        if fault is not None:
            return f"the measured output {fault} in {place(index, images.shape)}: it is not a picture"
    return None


def constant_frames(images: np.ndarray) -> frozenset[int]:
    """Indices of the images or frames of a single colour, counted from 0 through the whole batch."""
    return frozenset(index for index, frame in enumerate(_frames(images)) if _no_content(frame))


def place(index: int, shape: tuple[int, ...]) -> str:
    """The image or frame with this index through a batch of the shape `shape`, in words, counting from 0."""
    if len(shape) != 5:
        return f"image {index} (of 0 to {shape[0] - 1})"
    video, frame = divmod(index, shape[1])
    whose = f" of video {video} (of 0 to {shape[0] - 1})" if shape[0] > 1 else ""
    return f"frame {frame} (of 0 to {shape[1] - 1}){whose}"


def psnr_of(squared_error: float) -> float:
    """PSNR in dB of values in [0, 1] with this mean squared error; `IDENTICAL_DB` where it is zero."""
    return IDENTICAL_DB if squared_error == 0 else -10.0 * float(np.log10(squared_error))


# Frames


def _frames(images: np.ndarray) -> Iterator[np.ndarray]:
    for frame in images.reshape(-1, *images.shape[-3:]):
        # To float64 before subtracting: in float32, squares of small differences are lost.
        yield frame.astype(np.float64)


def _lowest(psnrs_db: Sequence[float | None]) -> float | None:
    return min((psnr_db for psnr_db in psnrs_db if psnr_db is not None), default=None)


# scikit-image annotates only some of its functions, hence the ignores.


def _psnr_db(measured: np.ndarray, reference: np.ndarray) -> float:
    # Not scikit-image's: importing it imports scipy.stats, which takes most of a second.
    return float(10 * np.log10(DATA_RANGE**2 / np.mean((reference - measured) ** 2)))


def _ssim(measured: np.ndarray, reference: np.ndarray) -> float:
    # Importing it takes half a second, in which a session without pictures to compare would have ended.
    from skimage.metrics import structural_similarity

    return float(
        structural_similarity(  # type: ignore[no-untyped-call]  # scikit-image annotates only some functions
            reference,
            measured,
            data_range=DATA_RANGE,
            channel_axis=-1,
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
        )
    )


def _motion(measured: np.ndarray, reference: np.ndarray) -> tuple[float | None, float | None]:
    """Frame-difference error, mean |dx - dr|, and flicker ratio, mean |dx| / mean |dr|, of batches of videos.

    dx and dr are the differences between neighbouring frames of a measured video and its reference. Both are
    None for videos of one frame, the ratio also for references whose frames do not change.
    """
    errors, moved, meant = [], [], []
    for video, original in zip(measured, reference, strict=True):
        for dx, dr in zip(_changes(video), _changes(original), strict=True):
            errors.append(np.abs(dx - dr).mean())
            moved.append(np.abs(dx).mean())
            meant.append(np.abs(dr).mean())
    if not errors:
        return None, None
    flicker_ratio = float(np.sum(moved) / np.sum(meant)) if any(meant) else None
    return float(np.mean(errors)), flicker_ratio


def _changes(video: np.ndarray) -> Iterator[np.ndarray]:
    return (after - before for before, after in pairwise(_frames(video)))


# What is not a picture

NO_PIXELS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "holds NaN": np.isnan,
    "holds infinite values": np.isinf,
    "holds values outside [0, 1]": lambda frame: (frame < 0.0) | (frame > 1.0),
}


def _no_pixels(frame: np.ndarray) -> str | None:
    return next((fault for fault, found in NO_PIXELS.items() if found(frame).any()), None)


def _no_content(frame: np.ndarray) -> str | None:
    # The variance around the mean of each channel: an orange frame is as constant as a grey one.
    if np.sqrt(frame.var(axis=(0, 1)).mean()) >= CONSTANT_STD:
        return None
    return "is black" if frame.mean() < CONSTANT_STD else "is of one colour"


def _mismatch(shape: tuple[int, ...], reference_shape: tuple[int, ...]) -> str | None:
    if shape == reference_shape:
        return None
    others = [(*each[:1], *each[2:]) for each in (shape, reference_shape)]
    if len(shape) == len(reference_shape) == 5 and others[0] == others[1]:
        return (
            f"the measured video has {shape[1]} frames and the reference {reference_shape[1]}: "
            "only outputs of the same workload can be compared"
        )
    return (
        f"the measured output has shape {shape} and the reference {reference_shape}: "
        "only outputs of the same workload can be compared"
    )


def _require_pixels(images: np.ndarray, name: str) -> None:
    if images.ndim not in (4, 5) or images.shape[-1] != 3 or images.size == 0:
        raise PerfError(
            f"the {name} output has shape {images.shape}, not (batch, height, width, 3) "
            "or (batch, frames, height, width, 3)"
        )
    # False for NaN as well.
    if not bool(np.all((images >= 0.0) & (images <= 1.0))):
        raise PerfError(f"the {name} output holds values that are NaN or outside [0, 1]: it is not an image")
