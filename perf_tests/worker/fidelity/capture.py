"""Saves a generation's output as files."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from perf_tests.protocol.reports import Capture


def save(output: torch.Tensor, path: str) -> Capture:
    """Write `<path>.npy` (float32, channels last) and `<path>.png` (the first image or frame).

    `output` is (batch, 3, height, width) or (batch, frames, 3, height, width), in [0, 1].
    """
    array = output.detach().float().movedim(-3, -1).contiguous().cpu().numpy()
    array_path, image_path = Path(f"{path}.npy"), Path(f"{path}.png")
    array_path.parent.mkdir(parents=True, exist_ok=True)
    np.save(array_path, array)
    first = array.reshape(-1, *array.shape[-3:])[0]
    Image.fromarray((first * 255).round().astype(np.uint8)).save(image_path)
    sha256 = hashlib.sha256(array_path.read_bytes()).hexdigest()
    return Capture(array=str(array_path), sha256=sha256, image=str(image_path))
