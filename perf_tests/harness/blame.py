"""Where a picture differs from its reference: both of them and a heat map as files, and a line of words."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from perf_tests.harness import fidelity
from perf_tests.harness.errors import PerfError
from perf_tests.harness.records import Process

QUARTERS = ("upper left", "upper right", "lower left", "lower right")


@dataclass(frozen=True, kw_only=True, slots=True)
class Blame:
    """The pictures of one comparison, all of the image or frame with the lowest PSNR."""

    reference: Path
    candidate: Path
    heatmap: Path
    """|difference|, mean over the channels, from black over red and yellow to white."""
    frames: Path | None
    """For videos: the frame between its neighbours, with rows reference, candidate and heat map."""
    amplification: float
    """What the differences are multiplied by in the heat maps: the largest one is white."""
    where: str
    """The quarter in which it moved most, with the PSNR of that quarter."""

    @property
    def files(self) -> Path:
        """A pattern that only the files of this comparison match."""
        return self.heatmap.with_name(self.heatmap.name.replace(".heatmap.", ".*."))


def save(candidate: np.ndarray, reference: np.ndarray, folder: Path, stem: str) -> Blame:
    """Write `<stem>.reference.png`, `<stem>.candidate.png` and `<stem>.heatmap.png` into `folder`, and
    `<stem>.frames.png` for videos.

    Both in [0, 1], (batch, height, width, 3) or (batch, frames, height, width, 3). Raises PerfError for
    arrays of different or other shapes, and where the disk refuses.
    """
    if candidate.shape != reference.shape or candidate.ndim not in (4, 5) or candidate.shape[-1] != 3:
        raise PerfError(
            f"no heat map of outputs of shape {candidate.shape} and {reference.shape}: give two of one "
            "workload, (batch, height, width, 3) or (batch, frames, height, width, 3)"
        )
    pairs = np.stack([each.reshape(-1, *each.shape[-3:]) for each in (reference, candidate)], axis=1)
    worst = int(np.argmax([_squared_error(pair).mean() for pair in pairs]))
    shown = slice(worst, worst + 1) if candidate.ndim == 4 else _neighbours(worst, candidate.shape[1])
    largest = _difference(pairs[worst]).max()
    amplification = 1.0 / float(largest) if largest > 0 else 1.0
    # (frames, 3 rows, height, width, 3)
    rows = np.stack([_rows(pair, amplification) for pair in pairs[shown]])
    paths = [folder / f"{stem}.{name}.png" for name in ("reference", "candidate", "heatmap")]
    sheet = folder / f"{stem}.frames.png" if candidate.ndim == 5 else None
    for path, picture in zip(paths, rows[worst - shown.start], strict=True):
        _write(path, picture)
    if sheet is not None:
        _write(sheet, np.concatenate([np.concatenate(list(frame), axis=0) for frame in rows], axis=1))
    return Blame(
        reference=paths[0],
        candidate=paths[1],
        heatmap=paths[2],
        frames=sheet,
        amplification=amplification,
        where=_where(pairs[worst], fidelity.place(worst, candidate.shape)),
    )


def keep(process: Process, out: Path) -> Blame:
    """`save` of the worst pair of the captures of `process`, beside them in the run directory `out`.

    Raises PerfError where one of the two captures is gone, or the other one is not known.
    """
    assert process.captures, "a process without captures was compared with nothing"
    assert process.fidelity is not None, "a process that was compared with nothing has nothing to blame"
    pairs = list(zip(process.captures, process.fidelity.reference_arrays, strict=False))
    if not pairs:
        raise PerfError("the record does not say what the output was compared with: measure it again")
    finite = {n: each for n, each in enumerate(process.fidelity.pair_psnrs_db) if each is not None}
    capture, reference = pairs[min(finite, key=finite.__getitem__, default=0)]
    array = out / capture.array
    return save(fidelity.load(array), fidelity.load(out / reference), array.parent, array.stem)


def _neighbours(index: int, frames: int) -> slice:
    """The frame before, the frame itself and the one after, as far as its video has them."""
    first = index - index % frames
    return slice(max(index - 1, first), min(index + 2, first + frames))


def _squared_error(pair: np.ndarray) -> np.ndarray:
    reference, candidate = pair.astype(np.float64)
    return np.asarray((candidate - reference) ** 2)


def _difference(pair: np.ndarray) -> np.ndarray:
    reference, candidate = pair.astype(np.float64)
    return np.asarray(np.abs(candidate - reference).mean(axis=-1))


def _rows(pair: np.ndarray, amplification: float) -> np.ndarray:
    reference, candidate = pair
    return np.stack([reference, candidate, _coloured(_difference(pair) * amplification)])


def _coloured(values: np.ndarray) -> np.ndarray:
    """(height, width) in [0, 1] -> RGB: red fills up first, then green, then blue."""
    return np.asarray(np.clip(3.0 * values[..., None] - np.arange(3.0), 0.0, 1.0))


def _where(pair: np.ndarray, frame: str) -> str:
    errors = _squared_error(pair).mean(axis=-1)
    if not errors.any():
        return "identical to its reference"
    top, left = errors.shape[0] // 2, errors.shape[1] // 2
    quarters = (errors[:top, :left], errors[:top, left:], errors[top:, :left], errors[top:, left:])
    worst = max(range(4), key=lambda number: float(quarters[number].mean()))
    psnr_db = fidelity.psnr_of(float(quarters[worst].mean()))
    return f"moved most in the {QUARTERS[worst]} quarter of {frame}: {psnr_db:.1f} dB"


def _write(path: Path, picture: np.ndarray) -> None:
    pixels = (np.clip(np.nan_to_num(picture), 0.0, 1.0) * 255).round().astype(np.uint8)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)
    except OSError as error:
        raise PerfError(f"cannot write {path}: {error.strerror}") from error
