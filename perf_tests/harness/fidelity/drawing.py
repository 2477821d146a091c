"""Two images or videos in, heat maps of where they differ out: PNGs, and an MP4 of videos."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from PIL import Image

from perf_tests.harness.fidelity import array_files, image_metrics
from perf_tests.harness.fidelity.heatmaps import HeatMaps
from perf_tests.harness.runs.record import Process
from perf_tests.protocol.errors import PerfError

QUARTERS = ("upper left", "upper right", "lower left", "lower right")
FRAMES_PER_S = 8
"""The rate CogVideoX was published with: captures do not record how fast they should be shown."""
ENCODER: Final = "libx264"  # H.264: every browser plays it, and the wheels of PyAV contain it
ENCODING = {
    "crf": "18",  # visually close to lossless; the PNGs are there for exact pixels
    # The test run waits for it: takes a tenth of the time of x264's default preset, for files a third larger.
    "preset": "ultrafast",
    # FFmpeg's default conversion from RGB, stated: without it, players guess another matrix for large frames.
    "colorspace": "smpte170m",
    "color_range": "tv",
    "color_primaries": "bt709",
    "color_trc": "iec61966-2-1",
}
"""Options of `ENCODER`."""


def draw(candidate: np.ndarray, reference: np.ndarray, folder: Path, stem: str) -> HeatMaps:
    """Write `<stem>.reference.png`, `<stem>.candidate.png` and `<stem>.heatmap.png` into `folder`, and for
    videos `<stem>.frames.png` and `<stem>.mp4`.

    Both arrays are in [0, 1], (batch, height, width, 3) or (batch, frames, height, width, 3). Raises
    PerfError for arrays of different or other shapes, and for a PNG that cannot be written; an MP4 that
    cannot be written leaves the PNGs in place, and `no_video` says why.
    """
    if candidate.shape != reference.shape or candidate.ndim not in (4, 5) or candidate.shape[-1] != 3:
        raise PerfError(
            f"no heat map of outputs of shape {candidate.shape} and {reference.shape}: give two of the same "
            "workload, (batch, height, width, 3) or (batch, frames, height, width, 3)"
        )
    pairs = np.stack([each.reshape(-1, *each.shape[-3:]) for each in (reference, candidate)], axis=1)
    worst = int(np.argmax([_squared_error(pair).mean() for pair in pairs]))
    shown = slice(worst, worst + 1) if candidate.ndim == 4 else _neighbours(worst, candidate.shape[1])
    amplification = _amplification(pairs[worst])
    # (frames, 3 rows, height, width, 3)
    rows = np.stack([_rows(pair, amplification) for pair in pairs[shown]])
    paths = [folder / f"{stem}.{name}.png" for name in ("reference", "candidate", "heatmap")]
    sheet = folder / f"{stem}.frames.png" if candidate.ndim == 5 else None
    for path, picture in zip(paths, rows[worst - shown.start], strict=True):
        _write(path, picture)
    if sheet is not None:
        _write(sheet, np.concatenate([np.concatenate(list(frame), axis=0) for frame in rows], axis=1))
    video, no_video = (
        _film(folder / f"{stem}.mp4", pairs[_whole(worst, candidate.shape[1])], amplification)
        if candidate.ndim == 5
        else (None, None)
    )
    return HeatMaps(
        reference=paths[0],
        candidate=paths[1],
        heatmap=paths[2],
        frames=sheet,
        video=video,
        no_video=no_video,
        amplification=amplification,
        where=_where(pairs[worst], image_metrics.place(worst, candidate.shape)),
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class HeatMap:
    """Where two pictures differ."""

    picture: np.ndarray
    """|difference|, averaged over the channels, from black through red and yellow to white; uint8 RGB."""
    amplification: float
    """Factor applied to all differences: the largest one becomes white."""
    where: str
    """The quarter that differs most, and its PSNR."""


def heat_map(candidate: np.ndarray, reference: np.ndarray, place: str) -> HeatMap:
    """Where two pictures in [0, 1], (height, width, 3), differ; `place` is what `where` calls them."""
    pair = np.stack([reference, candidate])
    amplification = _amplification(pair)
    return HeatMap(
        picture=pixels(_coloured(_difference(pair) * amplification)),
        amplification=amplification,
        where=_where(pair, place),
    )


def draw_worst_pair(process: Process, out: Path) -> HeatMaps:
    """`draw` the capture of `process` with the lowest PSNR, next to it in the run directory `out`.

    Raises PerfError where the capture or its reference is gone, and where the record does not name the
    reference.
    """
    assert process.captures, "only a process with captures was compared"
    assert process.fidelity is not None, "the caller has made sure that the process was compared"
    pairs = list(zip(process.captures, process.fidelity.reference_arrays, strict=False))
    if not pairs:
        raise PerfError("the record does not say what the output was compared with: measure it again")
    finite = {n: each for n, each in enumerate(process.fidelity.pair_psnrs_db) if each is not None}
    capture, reference = pairs[min(finite, key=finite.__getitem__, default=0)]
    array = out / capture.array
    return draw(array_files.load(array), array_files.load(out / reference), array.parent, array.stem)


def _neighbours(index: int, frames: int) -> slice:
    """The frame before, the frame itself and the one after, where the video has them."""
    video = _whole(index, frames)
    return slice(max(index - 1, video.start), min(index + 2, video.stop))


def _whole(index: int, frames: int) -> slice:
    """All frames of the video that contains the frame `index`."""
    first = index - index % frames
    return slice(first, first + frames)


def _squared_error(pair: np.ndarray) -> np.ndarray:
    reference, candidate = pair.astype(np.float64)
    return np.asarray((candidate - reference) ** 2)


def _difference(pair: np.ndarray) -> np.ndarray:
    reference, candidate = pair.astype(np.float64)
    return np.asarray(np.abs(candidate - reference).mean(axis=-1))


def _amplification(pair: np.ndarray) -> float:
    largest = float(_difference(pair).max())
    return 1.0 / largest if largest > 0 else 1.0


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
    psnr_db = image_metrics.psnr_of(float(quarters[worst].mean()))
    return f"changed most in the {QUARTERS[worst]} quarter of {frame}: {psnr_db:.1f} dB"


def pixels(picture: np.ndarray) -> np.ndarray:
    """Values in [0, 1] as uint8; what is none of them as the nearest."""
    return np.asarray((np.clip(np.nan_to_num(picture), 0.0, 1.0) * 255).round().astype(np.uint8))


def _film(path: Path, pairs: np.ndarray, amplification: float) -> tuple[Path, None] | tuple[None, str]:
    """Write the MP4 of one video, whose frames are `pairs` (frames, 2, height, width, 3).

    Returns `path`, or in one phrase why there is no MP4.
    """
    # Frame by frame: the heat maps of a whole video in float64 would take a gigabyte.
    pictures = [pixels(np.concatenate(list(_rows(pair, amplification)), axis=1)) for pair in pairs]
    try:
        path.write_bytes(_encoded(np.stack(pictures)))
    except PerfError as error:
        return None, f"no MP4 ({error})"
    except OSError as error:
        return None, f"no MP4 (cannot write {path}: {error.strerror})"
    return path, None


def _encoded(pictures: np.ndarray) -> bytes:
    """`pictures`, uint8 (frames, height, width, 3), as an MP4 that browsers play: H.264, yuv420p.

    Encoded in memory, so that a failure leaves no partial file. Raises PerfError where PyAV is not installed
    or cannot encode.
    """
    try:
        import av  # here, because only a video that regressed needs it
    except ImportError as error:
        raise PerfError(f"PyAV cannot be imported: {error}") from error
    _, height, width, _ = pictures.shape
    # yuv420p stores one colour for 2 x 2 pixels. Odd sides are padded with black, which in a heat map means
    # no difference; cropping could hide one.
    even = np.pad(pictures, ((0, 0), (0, height % 2), (0, width % 2), (0, 0)))
    encoded = io.BytesIO()
    try:
        with av.open(encoded, "w", format="mp4") as film:
            stream = film.add_stream(ENCODER, rate=FRAMES_PER_S, options=ENCODING)
            stream.height, stream.width = even.shape[1:3]
            stream.pix_fmt = "yuv420p"
            for picture in even:
                film.mux(stream.encode(av.VideoFrame.from_ndarray(picture)))
            film.mux(stream.encode())
    except (av.FFmpegError, ValueError) as error:  # ValueError: FFmpeg was built without x264
        raise PerfError(f"cannot encode H.264: {error}") from error
    return encoded.getvalue()


def _write(path: Path, picture: np.ndarray) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels(picture)).save(path)
    except OSError as error:
        raise PerfError(f"cannot write {path}: {error.strerror}") from error
