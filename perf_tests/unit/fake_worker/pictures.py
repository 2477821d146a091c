"""The pictures that the worker makes, and the files in which it hands them over, without numpy.

Importing numpy takes longer than all else that the worker does.
"""

from __future__ import annotations

import functools
import hashlib
import math
import random
import struct
import zipfile
import zlib
from array import array
from pathlib import Path

from perf_tests.protocol.reports import Arrays

SIDE = 16
NOISE = 0.004
"""Standard deviation of what quantization does to a picture with values in [0, 1]."""


@functools.cache
def picture(noise: float) -> array[float]:
    """Ramps of SIDE by SIDE pixels plus normal noise with a standard deviation of `noise`, all in (0, 1)."""
    chance = random.Random(0)
    ramp = [0.1 + 0.8 * step / (SIDE - 1) for step in range(SIDE)]
    clean = (value for down in ramp for right in ramp for value in (0.1 + 0.8 * down * right, down, right))
    return array("f", (value + noise * chance.gauss() for value in clean))


def warm_up() -> None:
    """Compute what every worker computes, once for all that are forked from this process."""
    for noise in (0.0, NOISE):
        picture(noise)


def write_arrays(file: str, noise: float) -> Arrays:
    """Write the transformer's answers and latents, which are pictures with that noise."""
    path, shape = Path(file), (SIDE, SIDE, 3)
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as opened:
        for name, copies in (("answers.npy", (5,)), ("latents.npy", ())):
            # Its time is fixed: the same content has the same hash whenever it is written.
            opened.writestr(zipfile.ZipInfo(name), npy(picture(noise), copies, shape))
    return Arrays(file=file, sha256=hashlib.sha256(path.read_bytes()).hexdigest())


def npy(values: array[float], copies: tuple[int, ...], shape: tuple[int, ...]) -> bytes:
    """`values` as a .npy file, version 1.0.

    https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html
    """
    header = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {(*copies, *shape)}}}".encode()
    header = header.ljust(118 - 1) + b"\n"  # with magic, version and length a multiple of 64
    content = values.tobytes() * math.prod(copies)
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + content


def png(rgb: bytes, height: int, width: int) -> bytes:
    """An 8-bit RGB image as a .png file, rows without filter (https://www.w3.org/TR/png-3)."""
    rows = b"".join(b"\0" + rgb[row * width * 3 : (row + 1) * width * 3] for row in range(height))
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        for name, data in chunks
    )
