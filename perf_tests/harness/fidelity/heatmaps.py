"""Where a picture differs from its reference: both of them and a heat map as files, and a line of words."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from PIL import Image

from perf_tests.harness.fidelity import image_metrics
from perf_tests.harness.runs.record import Process
from perf_tests.protocol.errors import PerfError

QUARTERS = ("upper left", "upper right", "lower left", "lower right")
FRAMES_PER_S = 8
"""What CogVideoX is published with: captures do not know how fast they are to be shown."""
ENCODER: Final = "libx264"  # H.264, which every browser plays; the wheels of PyAV hold it
ENCODING = {
    "crf": "18",  # close to what the eye tells apart; exact pixels are what the PNGs are for
    # A test run waits for it: a tenth of the seconds of x264's own preset, files a third larger.
    "preset": "ultrafast",
    # How FFmpeg converts RGB if it is not asked: players guess another matrix for large frames without these.
    "colorspace": "smpte170m",
    "color_range": "tv",
    "color_primaries": "bt709",
    "color_trc": "iec61966-2-1",
}
"""Options of `ENCODER`."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Blame:
    """The pictures of one comparison, all of the image or frame with the lowest PSNR."""

    reference: Path
    candidate: Path
    heatmap: Path
    """|difference|, mean over the channels, from black over red and yellow to white."""
    frames: Path | None
    """For videos: the frame between its neighbours, with rows reference, candidate and heat map."""
    video: Path | None
    """For videos: all frames of the one with that frame, as MP4: reference, candidate and heat map, from left
    to right. None also where it could not be written."""
    no_video: str | None
    """Why a video has no MP4, in one phrase; None where it has one, and for images."""
    amplification: float
    """What the differences are multiplied by in the heat maps: the largest of the worst frame is white."""
    where: str
    """The quarter in which it moved most, with the PSNR of that quarter."""

    @property
    def files(self) -> Path:
        """A pattern that only the PNGs of this comparison match."""
        return self.heatmap.with_name(self.heatmap.name.replace(".heatmap.", ".*."))

    @property
    def listed(self) -> str:
        """`files`, then for videos the MP4 or why there is none: for one line of text."""
        return ", ".join(str(each) for each in (self.files, self.video, self.no_video) if each)


def save(candidate: np.ndarray, reference: np.ndarray, folder: Path, stem: str) -> Blame:
    """Write `<stem>.reference.png`, `<stem>.candidate.png` and `<stem>.heatmap.png` into `folder`, and
    `<stem>.frames.png` and `<stem>.mp4` for videos.

    Both in [0, 1], (batch, height, width, 3) or (batch, frames, height, width, 3). Raises PerfError for
    arrays of different or other shapes, and where the disk refuses; an MP4 that cannot be written takes
    nothing from the PNGs, `no_video` says why.
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
    video, no_video = (
        _film(folder / f"{stem}.mp4", pairs[_whole(worst, candidate.shape[1])], amplification)
        if candidate.ndim == 5
        else (None, None)
    )
    return Blame(
        reference=paths[0],
        candidate=paths[1],
        heatmap=paths[2],
        frames=sheet,
        video=video,
        no_video=no_video,
        amplification=amplification,
        where=_where(pairs[worst], image_metrics.place(worst, candidate.shape)),
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
    return save(image_metrics.load(array), image_metrics.load(out / reference), array.parent, array.stem)


def _neighbours(index: int, frames: int) -> slice:
    """The frame before, the frame itself and the one after, as far as its video has them."""
    video = _whole(index, frames)
    return slice(max(index - 1, video.start), min(index + 2, video.stop))


def _whole(index: int, frames: int) -> slice:
    """All frames of the video that holds the frame `index`."""
    first = index - index % frames
    return slice(first, first + frames)


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
    psnr_db = image_metrics.psnr_of(float(quarters[worst].mean()))
    return f"moved most in the {QUARTERS[worst]} quarter of {frame}: {psnr_db:.1f} dB"


def _pixels(picture: np.ndarray) -> np.ndarray:
    return np.asarray((np.clip(np.nan_to_num(picture), 0.0, 1.0) * 255).round().astype(np.uint8))


def _film(path: Path, pairs: np.ndarray, amplification: float) -> tuple[Path, None] | tuple[None, str]:
    """Write the MP4 of one video, whose frames are `pairs` (frames, 2, height, width, 3).

    The answer is `path`, or why there is no MP4, in one phrase.
    """
    # Frame by frame: the heat maps of a whole video in float64 would take a gigabyte.
    pictures = [_pixels(np.concatenate(list(_rows(pair, amplification)), axis=1)) for pair in pairs]
    try:
        path.write_bytes(_encoded(np.stack(pictures)))
    except PerfError as error:
        return None, f"no MP4 ({error})"
    except OSError as error:
        return None, f"no MP4 (cannot write {path}: {error.strerror})"
    return path, None


def _encoded(pictures: np.ndarray) -> bytes:
    """`pictures`, uint8 (frames, height, width, 3), as an MP4 that browsers play: H.264, yuv420p.

    In memory: what fails leaves no half of a file. Raises PerfError where PyAV is not installed or cannot
    encode.
    """
    try:
        import av  # here: only a failed video needs it
    except ImportError as error:
        raise PerfError(f"PyAV cannot be imported: {error}") from error
    _, height, width, _ = pictures.shape
    # yuv420p has one colour for 2 x 2 pixels. An odd side gets a black edge, which is no difference in a heat
    # map; a cut edge could hide one.
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
    except (av.FFmpegError, ValueError) as error:  # ValueError: a build of FFmpeg without x264
        raise PerfError(f"cannot encode H.264: {error}") from error
    return encoded.getvalue()


def _write(path: Path, picture: np.ndarray) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(_pixels(picture)).save(path)
    except OSError as error:
        raise PerfError(f"cannot write {path}: {error.strerror}") from error
