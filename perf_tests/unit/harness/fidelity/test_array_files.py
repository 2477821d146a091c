"""fidelity/array_files.py: files as a worker may leave them, and what is said of them unread."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path

import numpy as np
import pytest

from perf_tests.harness.fidelity import array_files
from perf_tests.harness.fidelity.array_files import load, load_answers
from perf_tests.protocol.errors import PerfError

ONES = np.ones((1, 4, 4, 3), dtype=np.float32)


def npy(shape: str, descr: str = "<f4", content: bytes = b"") -> bytes:
    """A .npy file whose header claims `shape`."""
    header = f"{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}}}".encode().ljust(117) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + content


def test_an_array_is_read_as_it_was_saved(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", ONES)
    np.testing.assert_array_equal(load(tmp_path / "a.npy"), ONES)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        pytest.param(
            npy("(1000000, 1000000, 3)"),
            r"claims an array of shape \(1000000, 1000000, 3\), 12,000,000,000,000 bytes, and has 0",
            id="11-TiB",
        ),
        pytest.param(
            npy("(2,)", content=b"0123"), r"claims an array of shape \(2,\), 8 bytes, and has 4", id="short"
        ),
        pytest.param(npy("(1,)", content=b"01234567"), "4 bytes, and has 8", id="long"),
        pytest.param(npy("(-1, -1)", content=b"0123"), r"float32 of shape \(-1, -1\)", id="negative"),
        pytest.param(npy("(1,)", "<f8", bytes(8)), r"it holds float64 of shape \(1,\)", id="float64"),
        pytest.param(npy("(1,)", "|O", bytes(8)), "it holds object of shape", id="pickle"),
        pytest.param(b"\x93NUMPY\x03\x00", r"version \(3, 0\), not \(1, 0\)", id="version"),
        pytest.param(npy("(1,")[:30], "cannot read the captured output", id="half-a-header"),
        pytest.param(b"", "cannot read the captured output", id="empty"),
    ],
)
def test_a_file_that_is_not_what_its_header_claims_is_one_sentence(
    tmp_path: Path, content: bytes, says: str
) -> None:
    (tmp_path / "a.npy").write_bytes(content)
    with pytest.raises(PerfError, match=says):
        load(tmp_path / "a.npy")


@pytest.mark.parametrize(
    ("members", "says"),
    [
        pytest.param({"answers.npy": npy("(1000000, 1000000, 3)")}, "12,000,000,000,000 bytes", id="11-TiB"),
        pytest.param({"answers.npy": npy("(1,)", content=b"0123")}, "latents", id="no-latents"),
    ],
)
def test_answers_that_are_not_what_they_claim_are_one_sentence(
    tmp_path: Path, members: dict[str, bytes], says: str
) -> None:
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as opened:
        for name, content in members.items():
            opened.writestr(name, content)
    with pytest.raises(PerfError, match=f"cannot read the transformer's answers in .*{says}"):
        load_answers(tmp_path / "a.npz")


def test_a_compressed_member_is_not_unpacked_beyond_the_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(array_files, "MAX_BYTES", 1 << 20)
    np.savez_compressed(tmp_path / "a.npz", answers=np.zeros(1 << 20, np.float32), latents=ONES)
    with pytest.raises(PerfError, match=r"answers\.npy claims 4,194,432 bytes"):
        load_answers(tmp_path / "a.npz")


def test_a_file_that_is_too_large_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / "a.npy").open("wb") as sparse:
        sparse.truncate(12 << 40)
    with pytest.raises(PerfError, match=r"has 13,194,139,533,312 bytes, and at most 2,147,483,648 are read"):
        load(tmp_path / "a.npy", "0" * 64)


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.npy")
    with pytest.raises(PerfError, match=r"cannot read .*a\.npy: it is a pipe or a device"):
        load(tmp_path / "a.npy")
