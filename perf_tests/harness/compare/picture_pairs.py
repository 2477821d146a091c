"""What a case looks like in two runs: the pictures of each that differ most, and where they do."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from perf_tests.harness.fidelity import array_files, drawing, image_metrics
from perf_tests.harness.runs.directory import file_inside
from perf_tests.harness.runs.record import Run
from perf_tests.protocol.errors import PerfError
from perf_tests.protocol.reports import Capture

UNREADABLE = (OSError, ValueError, SyntaxError, Image.DecompressionBombError)
"""What Pillow raises for a file that is cut off, or no picture."""
LEAST_SIDE_PX = 11
"""The window of SSIM."""


@dataclass(frozen=True, kw_only=True, slots=True)
class KeptRun:
    """One of the two runs of a case, and the run directory that its files are in."""

    run: Run
    folder: Path

    @property
    def captures(self) -> tuple[Capture, ...]:
        """Of the first process that has any: one for each pair of prompt and seed."""
        return next((each.captures for each in self.run.processes if each.captures), ())

    @property
    def has_pictures(self) -> bool:
        """Whether the directory still holds any picture of the case."""
        files = (name for each in self.captures for name in (each.image, each.array))
        return any(file_inside(self.folder, name) for name in files)


@dataclass(frozen=True, kw_only=True, slots=True)
class NoPair:
    """The pictures of a case cannot be compared."""

    reason: str
    """One phrase."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PictureChange:
    """How the pictures of a case differ between two runs."""

    pairs: int
    """Prompts of which both runs kept the picture."""
    differing: int
    """Those of them whose pictures differ; at least one."""
    number: int
    """The prompt whose pictures differ most, from 0."""
    frame: int
    """The image or frame of it that differs most, from 0."""
    psnr_db: float
    """Between the two runs, of that one."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SamePictures:
    """The pictures of a case are the same in two runs, to the last bit that was kept."""

    pairs: int
    """Prompts of which both runs kept the picture."""


PictureFinding = PictureChange | SamePictures | NoPair


@dataclass(frozen=True, kw_only=True, slots=True)
class PicturePair:
    """The pictures of both runs that differ most, each uint8 RGB."""

    base: np.ndarray
    candidate: np.ndarray
    heatmap: np.ndarray
    ssim: float | None
    """None for pictures that are smaller than its window."""
    amplification: float
    """Of the differences in the heat map."""
    where: str


def change_of(base: KeptRun, candidate: KeptRun) -> PictureFinding:
    """How the pictures of a case differ: its arrays where both runs still have them, else its PNGs.

    Those hold the first image of a batch, and the first frame of a video.
    """
    kept = [each.has_pictures for each in (base, candidate)]
    if not all(kept):
        missing = {(False, False): "neither run", (False, True): "the base", (True, False): "the candidate"}
        who = missing[kept[0], kept[1]]
        return NoPair(reason=f"{who} kept {'any' if who == 'neither run' else 'none'}")
    errors: list[tuple[float, int, int]] = []
    for number in range(min(len(base.captures), len(candidate.captures))):
        both = _both(base, candidate, number)
        if both is None:
            continue
        if both[0].shape != both[1].shape:
            return NoPair(reason=f"they are of different sizes, {_size(both[0])} and {_size(both[1])}")
        error, frame = _worst_frame(*both)
        errors.append((error, number, frame))
    if not errors:
        return NoPair(reason="no prompt has one in both runs that can be read")
    differing = sum(error > 0 for error, _, _ in errors)
    if not differing:
        return SamePictures(pairs=len(errors))
    error, number, frame = max(errors, key=lambda each: each[0])
    return PictureChange(
        pairs=len(errors),
        differing=differing,
        number=number,
        frame=frame,
        psnr_db=image_metrics.psnr_of(error),
    )


def drawn(base: KeptRun, candidate: KeptRun, change: PictureChange) -> PicturePair:
    """The pictures that `change` is about, and where they differ.

    Raises PerfError where they are gone since `change` was found.
    """
    both = _both(base, candidate, change.number)
    if both is None:
        raise PerfError(f"pictures of {base.run.id} have gone while they were compared; compare again")
    before, now = (each[change.frame] for each in both)
    heat = drawing.heat_map(now, before, "the picture")
    ssim = None
    if min(before.shape[:2]) >= LEAST_SIDE_PX:
        ssim = image_metrics.compare(now[None], before[None]).ssim
    return PicturePair(
        base=drawing.pixels(before),
        candidate=drawing.pixels(now),
        heatmap=heat.picture,
        ssim=ssim,
        amplification=heat.amplification,
        where=heat.where,
    )


def _both(base: KeptRun, candidate: KeptRun, number: int) -> tuple[np.ndarray, np.ndarray] | None:
    """All images or frames of one prompt in both runs, (count, height, width, 3) in [0, 1]; None where one of
    the runs has none that can be read."""
    sides = [(each.folder, each.captures[number]) for each in (base, candidate)]
    with suppress(PerfError):
        before, now = (_from_array(folder, capture) for folder, capture in sides)
        return before, now
    try:
        before, now = (_from_png(folder, capture) for folder, capture in sides)
    except UNREADABLE:
        return None
    return before, now


def _from_array(folder: Path, capture: Capture) -> np.ndarray:
    """Raises PerfError where the array is gone, was changed, or is no picture."""
    path = file_inside(folder, capture.array)
    if path is None:
        raise PerfError("it is gone")
    array = array_files.load(path, capture.sha256)
    if array.ndim not in (4, 5) or array.shape[-1] != 3 or not array.size:
        raise PerfError(f"it has the shape {array.shape}, which is none of pictures")
    if fault := image_metrics.catastrophe(array, array.shape, constant=range(array.size)):
        raise PerfError(fault)
    return array.reshape(-1, *array.shape[-3:])


def _from_png(folder: Path, capture: Capture) -> np.ndarray:
    """Raises one of `UNREADABLE` where it is gone or cannot be read."""
    path = file_inside(folder, capture.image)
    if path is None:
        raise FileNotFoundError(capture.image)
    with Image.open(path, formats=("PNG",)) as image:
        return (np.asarray(image.convert("RGB"), dtype=np.float32) / np.float32(255))[None]


def _worst_frame(before: np.ndarray, now: np.ndarray) -> tuple[float, int]:
    """The largest mean squared error of an image or frame, and which it is of."""
    errors: Sequence[float] = [
        0.0 if np.array_equal(*pair) else float(np.square(pair[1] - pair[0], dtype=np.float64).mean())
        for pair in zip(before, now, strict=True)
    ]
    worst = max(range(len(errors)), key=errors.__getitem__)
    return errors[worst], worst


def _size(frames: np.ndarray) -> str:
    count, height, width, _ = frames.shape
    return f"{width} x {height}" if count == 1 else f"{count} of {width} x {height}"
