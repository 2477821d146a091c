"""The pictures of two runs: which differ most, where, and what is said where there are none."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from perf_tests.harness.compare.picture_pairs import (
    KeptRun,
    NoPair,
    PictureChange,
    SamePictures,
    change_of,
    drawn,
)
from perf_tests.protocol.errors import PerfError
from perf_tests.protocol.reports import Capture
from perf_tests.unit.builders import make_process, make_run

SIDE = 16


def grey(level: int = 100) -> np.ndarray:
    """A picture with a ramp, so that it is none of a single colour."""
    picture = np.full((SIDE, SIDE, 3), level, dtype=np.uint8)
    picture[:, :, 0] = np.arange(SIDE) * 10
    return picture


def kept(folder: Path, *pictures: np.ndarray, arrays: tuple[np.ndarray, ...] = ()) -> KeptRun:
    """A run whose directory holds these pictures, and these arrays beside them."""
    folder.mkdir(exist_ok=True)
    captures = []
    for number in range(max(len(pictures), len(arrays))):
        name, sha256 = f"{number}.npy", ""
        if number < len(pictures):
            Image.fromarray(pictures[number]).save(folder / f"{number}.png")
        if number < len(arrays):
            np.save(folder / name, arrays[number])
            sha256 = hashlib.sha256((folder / name).read_bytes()).hexdigest()
        captures.append(Capture(array=name, sha256=sha256, image=f"{number}.png"))
    return KeptRun(run=make_run(processes=(make_process(captures=tuple(captures)),)), folder=folder)


def changed(level: int, rows: slice = slice(0, 4)) -> np.ndarray:
    """The picture with another level in some rows of its left half."""
    picture = grey()
    picture[rows, :8, 1:] = level
    return picture


def test_pair_that_differs_most_is_found_and_its_psnr(tmp_path: Path) -> None:
    base = kept(tmp_path / "a", grey(), grey(), grey())
    candidate = kept(tmp_path / "b", grey(), changed(200), changed(110))

    found = change_of(base, candidate)

    # 4 of 16 rows, half of each, two of three channels differ by 100 / 255.
    error = (100 / 255) ** 2 * (4 / 16) * (1 / 2) * (2 / 3)
    assert isinstance(found, PictureChange)
    assert (found.pairs, found.differing, found.number, found.frame) == (3, 2, 1, 0)
    assert found.psnr_db == pytest.approx(-10 * np.log10(error))


def test_heat_map_is_of_the_difference_between_the_runs(tmp_path: Path) -> None:
    base, candidate = kept(tmp_path / "a", grey()), kept(tmp_path / "b", changed(200))
    found = change_of(base, candidate)
    assert isinstance(found, PictureChange)

    pair = drawn(base, candidate, found)

    assert np.array_equal(pair.base, grey())
    assert np.array_equal(pair.candidate, changed(200))
    assert pair.heatmap[0, 0].tolist() == [255, 255, 255]
    assert pair.heatmap[8:].max() == 0
    assert pair.heatmap[:, 8:].max() == 0
    assert pair.amplification == pytest.approx(255 / 100 * 3 / 2)
    assert pair.where.startswith("changed most in the upper left quarter of the picture: ")
    assert pair.ssim is not None
    assert 0 < pair.ssim < 0.9


def test_same_pictures_are_told_from_none(tmp_path: Path) -> None:
    assert change_of(kept(tmp_path / "a", grey(), grey()), kept(tmp_path / "b", grey(), grey())) == (
        SamePictures(pairs=2)
    )


def test_arrays_decide_where_both_runs_have_them(tmp_path: Path) -> None:
    before = np.full((1, 3, SIDE, SIDE, 3), 0.5, dtype=np.float32)
    now = before.copy()
    now[0, 2] += 0.0005  # less than 8 bits tell
    base = kept(tmp_path / "a", grey(), arrays=(before,))

    found = change_of(base, kept(tmp_path / "b", grey(), arrays=(now,)))

    assert isinstance(found, PictureChange)
    assert (found.number, found.frame) == (0, 2)
    assert found.psnr_db == pytest.approx(66.0, abs=0.1)
    assert change_of(base, kept(tmp_path / "c", grey())) == SamePictures(pairs=1)


@pytest.mark.parametrize(
    "array",
    [
        np.full((1, SIDE, SIDE, 3), np.nan, dtype=np.float32),
        np.full((1, SIDE, SIDE, 3), 2.0, dtype=np.float32),
        np.zeros((SIDE, SIDE), dtype=np.float32),
        np.zeros((1, 0, SIDE, 3), dtype=np.float32),
    ],
    ids=["nan", "bright", "flat", "empty"],
)
def test_array_that_is_no_picture_leaves_its_png(tmp_path: Path, array: np.ndarray) -> None:
    base = kept(tmp_path / "a", grey(), arrays=(array,))

    assert change_of(base, kept(tmp_path / "b", grey(), arrays=(array,))) == SamePictures(pairs=1)


@pytest.mark.parametrize(
    ("before", "now", "reason"),
    [
        ((), (), "neither run kept any"),
        ((), (grey(),), "the base kept none"),
        ((grey(),), (), "the candidate kept none"),
        ((grey(),), (grey()[:8],), "they are of different sizes, 16 x 16 and 16 x 8"),
    ],
    ids=["neither", "base", "candidate", "sizes"],
)
def test_what_cannot_be_compared_is_said_in_one_phrase(
    tmp_path: Path, before: tuple[np.ndarray, ...], now: tuple[np.ndarray, ...], reason: str
) -> None:
    assert change_of(kept(tmp_path / "a", *before), kept(tmp_path / "b", *now)) == NoPair(reason=reason)


def test_picture_that_cannot_be_read_costs_its_own_prompt_only(tmp_path: Path) -> None:
    base, candidate = kept(tmp_path / "a", grey(), grey()), kept(tmp_path / "b", grey(), grey())
    (tmp_path / "a" / "0.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    assert change_of(base, candidate) == SamePictures(pairs=1)

    (tmp_path / "b" / "1.png").write_bytes(b"GIF89a")
    assert change_of(base, candidate) == NoPair(reason="no prompt has one in both runs that can be read")


@pytest.mark.parametrize("name", ["../secret.png", "/etc/hostname", "a\0b", "x" * 5000])
def test_file_outside_of_the_run_is_not_read(tmp_path: Path, name: str) -> None:
    Image.fromarray(grey()).save(tmp_path / "secret.png")
    capture = Capture(array=name, sha256="", image=name)
    (tmp_path / "b").mkdir()
    edited = KeptRun(run=make_run(processes=(make_process(captures=(capture,)),)), folder=tmp_path / "b")

    assert change_of(kept(tmp_path / "a", grey()), edited) == NoPair(reason="the candidate kept none")


def test_picture_smaller_than_the_window_of_ssim_has_none(tmp_path: Path) -> None:
    base, candidate = kept(tmp_path / "a", grey()[:8]), kept(tmp_path / "b", changed(200)[:8])
    found = change_of(base, candidate)
    assert isinstance(found, PictureChange)

    assert drawn(base, candidate, found).ssim is None


def test_pictures_that_go_meanwhile_are_an_error_of_one_sentence(tmp_path: Path) -> None:
    base, candidate = kept(tmp_path / "a", grey()), kept(tmp_path / "b", changed(200))
    found: Any = change_of(base, candidate)
    (tmp_path / "a" / "0.png").unlink()

    with pytest.raises(PerfError, match="have gone while they were compared; compare again"):
        drawn(base, candidate, found)
