"""Pictures of red and changed cases: which, from where, and how many fit."""

from __future__ import annotations

import base64
import io
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from PIL import Image

from perf_tests.harness.page.pictures import FILM_LIMIT_BYTES, Album, albums, of_run
from perf_tests.harness.runs.record import Progress, Run, RunRecord, Status
from perf_tests.protocol.reports import Capture
from perf_tests.unit.builders import (
    make_process,
    make_record,
    make_reference,
    make_run,
    make_verdict,
)

ROOM = 1_000_000
RED = (make_verdict("psnr_db", Status.REGRESSED),)


def run_with(stem: str, **changes: Any) -> Run:
    capture = Capture(array=f"captures/{stem}.npy", sha256="a" * 64, image=f"captures/{stem}.png")
    made = make_run(processes=(make_process(captures=(capture,)),), progress=Progress.JUDGED, **changes)
    return msgspec.structs.replace(made, status=Status.REGRESSED, verdicts=RED)


def draw(folder: Path, *names: str, side: int = 64) -> None:
    (folder / "captures").mkdir(exist_ok=True)
    noise = np.random.default_rng(0).integers(0, 255, (side, side, 3), dtype=np.uint8)
    for name in names:
        Image.fromarray(noise).save(folder / "captures" / name)


def is_red(run: Run) -> bool:
    return not run.status.is_green


def shown(folder: Path, record: RunRecord, limit_bytes: int) -> dict[str, Album]:
    return albums(record.cases, is_red, partial(of_run, folder, record), limit_bytes)


def captions(folder: Path, *runs: Run, limit_bytes: int = ROOM) -> list[str]:
    record = make_record(*runs)
    found = shown(folder, record, limit_bytes)
    return [picture.caption for run in runs if run.id in found for picture in found[run.id].pictures]


def test_what_was_drawn_of_a_red_case_is_shown_in_its_order(tmp_path: Path) -> None:
    draw(tmp_path, "a.png", "a.reference.png", "a.candidate.png", "a.heatmap.png")

    assert captions(tmp_path, run_with("a")) == ["reference", "this run", "where they differ"]


def test_without_drawings_the_pictures_of_run_and_reference_stand_side_by_side(tmp_path: Path) -> None:
    draw(tmp_path, "a.png", "r.png")
    reference = make_reference(
        processes=(
            make_process(captures=(Capture(array="captures/r.npy", sha256="", image="captures/r.png"),)),
        )
    )
    run = run_with("a")
    found = shown(tmp_path, make_record(run, references=(reference,)), ROOM)

    assert [picture.caption for picture in found[run.id].pictures] == ["reference", "this run"]


def test_picture_is_a_jpeg_of_at_most_512_pixels_inside_the_page(tmp_path: Path) -> None:
    draw(tmp_path, "a.png", side=700)
    run = run_with("a")
    (picture,) = shown(tmp_path, make_record(run, references=()), ROOM)[run.id].pictures

    kind, _, content = picture.url.partition(",")
    assert kind == "data:image/jpeg;base64"
    with Image.open(io.BytesIO(base64.b64decode(content))) as image:
        assert (image.format, image.size) == ("JPEG", (512, 512))


def test_green_case_shows_no_picture_unless_its_output_improved(tmp_path: Path) -> None:
    draw(tmp_path, "a.png")
    green = msgspec.structs.replace(run_with("a"), status=Status.PASS, verdicts=())
    improved = msgspec.structs.replace(
        green, status=Status.IMPROVED, verdicts=(make_verdict("psnr_db", Status.IMPROVED),)
    )

    assert captions(tmp_path, green) == []
    assert captions(tmp_path, improved) == ["this run"]


def test_what_no_longer_fits_is_named_and_the_red_pictures_come_first(tmp_path: Path) -> None:
    draw(tmp_path, "a.png", "b.png", side=256)
    crashed = msgspec.structs.replace(run_with("b", id="another"), status=Status.CRASH, verdicts=())
    picture = run_with("a")

    record = make_record(crashed, picture, references=())
    (one,) = shown(tmp_path, make_record(picture, references=()), ROOM)[picture.id].pictures

    found = shown(tmp_path, record, len(one.url) * 3 // 2)

    assert len(found[picture.id].pictures) == 1
    assert found[crashed.id].pictures == ()
    assert found[crashed.id].note == "no room is left here: they are in captures of the run directory"


@pytest.mark.parametrize(
    "name", ["../secret.png", "/etc/hostname", "captures/none.png", "x" * 5000, "a\0b", ""]
)
def test_file_that_is_missing_or_lies_elsewhere_is_not_read(tmp_path: Path, name: str) -> None:
    out = tmp_path / "run"
    out.mkdir()
    draw(tmp_path, "other.png")
    Image.new("RGB", (8, 8)).save(tmp_path / "secret.png")
    run = run_with("a")
    capture = Capture(array=name, sha256="", image=name)
    edited = msgspec.structs.replace(run, processes=(make_process(captures=(capture,)),))

    assert captions(out, edited) == []


def test_link_out_of_the_run_directory_is_not_followed(tmp_path: Path) -> None:
    out = tmp_path / "run"
    (out / "captures").mkdir(parents=True)
    Image.new("RGB", (8, 8)).save(tmp_path / "secret.png")
    (out / "captures" / "a.png").symlink_to(tmp_path / "secret.png")

    assert captions(out, run_with("a")) == []


@pytest.mark.parametrize("content", [b"", b"\x89PNG\r\n\x1a\n", b"<svg onload='alert(1)'/>", b"GIF89a"])
def test_file_that_is_no_picture_costs_itself_only(tmp_path: Path, content: bytes) -> None:
    draw(tmp_path, "a.reference.png", "a.heatmap.png")
    (tmp_path / "captures" / "a.candidate.png").write_bytes(content)

    assert captions(tmp_path, run_with("a")) == ["reference", "where they differ"]


def test_small_film_is_inside_the_page_and_a_large_one_is_not(tmp_path: Path) -> None:
    draw(tmp_path, "a.reference.png")
    film = tmp_path / "captures" / "a.mp4"
    film.write_bytes(b"film")
    run = run_with("a")

    *_, last = shown(tmp_path, make_record(run, references=()), ROOM)[run.id].pictures
    assert (last.is_film, last.url) == (True, "data:video/mp4;base64,ZmlsbQ==")
    film.write_bytes(b"0" * (FILM_LIMIT_BYTES + 1))
    assert captions(tmp_path, run) == ["reference"]
