"""Arrays that a worker left as files: what they claim is checked before memory is taken for it."""

from __future__ import annotations

import hashlib
import io
import math
import zipfile
from pathlib import Path
from typing import IO

import numpy as np

from perf_tests.protocol.errors import PerfError
from perf_tests.protocol.files import read_regular

MAX_BYTES = 2 << 30
"""The largest file that is read: twice that of 81 frames of 1360 x 768 pixels, the largest video there is."""
NPY_VERSION = (1, 0)
"""What numpy writes for every array whose shape takes less than 64 KiB to write down."""
BROKEN = (ValueError, KeyError, EOFError, zipfile.BadZipFile, NotImplementedError, RuntimeError)
"""What reading a broken file raises, a .zip with a password among them."""


def load(path: Path, sha256: str | None = None) -> np.ndarray:
    """The captured output in the `.npy` file `path`, which has the digest `sha256` (None: any).

    Raises PerfError where it cannot be read, holds something else or was changed.
    """
    content = _content(path, sha256)
    try:
        return _array(io.BytesIO(content), len(content))
    except BROKEN as error:
        raise PerfError(f"cannot read the captured output {path}: {error}") from error


def load_answers(path: Path, sha256: str | None = None) -> tuple[np.ndarray, np.ndarray]:
    """`answers` and `latents` in the `.npz` file `path`, which has the digest `sha256` (None: any).

    Raises PerfError where they cannot be read, are something else or were changed.
    """
    content = _content(path, sha256)
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as members:
            answers, latents = (_member(members, f"{name}.npy") for name in ("answers", "latents"))
    except BROKEN as error:
        raise PerfError(f"cannot read the transformer's answers in {path}: {error}") from error
    return answers, latents


def _content(path: Path, sha256: str | None) -> bytes:
    try:
        size = path.stat().st_size
        if size > MAX_BYTES:
            raise PerfError(
                f"{path} has {size:,} bytes, and at most {MAX_BYTES:,} are read: no case has such an output"
            )
        content = read_regular(path)
    except OSError as error:
        raise PerfError(f"cannot read {path}: {error.strerror}; measure the case again") from error
    found = hashlib.sha256(content).hexdigest()
    if sha256 not in (None, found):
        raise PerfError(
            f"{path} has the sha256 {found[:12]}, its worker wrote {sha256[:12]}: it was damaged or "
            "replaced, measure the case again"
        )
    return content


def _member(members: zipfile.ZipFile, name: str) -> np.ndarray:
    size = members.getinfo(name).file_size
    if size > MAX_BYTES:
        raise ValueError(f"{name} claims {size:,} bytes")
    with members.open(name) as stream:
        return _array(stream, size)


def _array(stream: IO[bytes], size: int) -> np.ndarray:
    """The array in a `.npy` stream of `size` bytes. Raises ValueError where its header claims another."""
    if (version := np.lib.format.read_magic(stream)) != NPY_VERSION:
        raise ValueError(f"it is .npy of version {version}, not {NPY_VERSION}")
    shape, by_columns, dtype = np.lib.format.read_array_header_1_0(stream)
    if dtype != np.float32 or by_columns or min(shape, default=0) < 0:
        raise ValueError(f"it holds {dtype} of shape {shape}, not float32 by rows")
    left, claimed = size - stream.tell(), math.prod(shape) * dtype.itemsize
    if claimed != left:
        raise ValueError(f"it claims an array of shape {shape}, {claimed:,} bytes, and has {left:,}")
    return np.frombuffer(stream.read(claimed), dtype).reshape(shape)
