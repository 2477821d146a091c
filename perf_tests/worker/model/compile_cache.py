"""Compile-cache artifacts in a file: what one process compiled, another need not compile again.

A file is valid for the same graphs under the same torch, triton and device; the caller names one for each of
them. With any other file nothing is found in the cache, which its counters show.
"""

from __future__ import annotations

from pathlib import Path
from typing import NoReturn

import torch

from perf_tests.protocol.errors import WorkerError
from perf_tests.protocol.files import replace_atomically
from perf_tests.protocol.messages import Failure, FailureKind, Phase

LOADED = "loaded"
SAVED = "saved"
GRAPH_FOLDERS = ("fxgraph", "aotautograd")
"""Where inductor and AOTAutograd keep graphs, in the folder of the cache."""
EMPTY = "empty"
"""Compiling left nothing to save; the counter of bypasses tells why."""


def is_empty() -> bool:
    """Whether no graph is in this process's compile caches. Imports inductor, which takes seconds."""
    from torch._inductor.runtime.cache_dir_utils import cache_dir

    return not any(any(Path(cache_dir(), name).glob("*")) for name in GRAPH_FOLDERS)


def load(file: Path) -> str | None:
    """Fill this process's compile caches from `file`: `LOADED`, or None where it does not exist yet.

    Call it before anything is compiled. Raises WorkerError(load) for a file that cannot be read, or does not
    hold artifacts of this torch. Artifacts are pickles: trust the folder as you would trust code.
    """
    try:
        content = file.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        _refuse(f"cannot read the compile-cache artifacts {file}: {error.strerror}; make it readable", error)
    try:
        info = torch.compiler.load_cache_artifacts(content)
    except Exception as error:  # noqa: BLE001 - a pickle of another version can raise anything
        _refuse(f"{_broken(file, content)} ({type(error).__name__}: {error}); delete it", error)
    if info is None or info.empty():
        _refuse(f"{_broken(file, content)}; delete it, and the next run writes it again")
    return LOADED


def save(file: Path) -> str:
    """Write everything that this process compiled to `file`, atomically: `SAVED`, or `EMPTY`.

    Raises WorkerError(load) where the disk refuses.
    """
    saved = torch.compiler.save_cache_artifacts()
    if saved is None:
        return EMPTY
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        replace_atomically(file, saved[0])
    except OSError as error:
        advice = "make room, or choose another folder"
        _refuse(f"cannot write the compile-cache artifacts {file}: {error.strerror}; {advice}", error)
    return SAVED


def _broken(file: Path, content: bytes) -> str:
    return (
        f"the compile-cache artifacts {file} ({len(content)} bytes) are truncated, or were not saved by "
        f"torch {torch.__version__}"
    )


def _refuse(message: str, cause: Exception | None = None) -> NoReturn:
    raise WorkerError(Failure(kind=FailureKind.LOAD, phase=Phase.COMPILE, message=message)) from cause
