"""The environment variables of a worker: which of the parent's it gets, and which never."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path

from perf_tests.tables.cases import Weights

REPOSITORY = Path(__file__).resolve().parents[3]


@dataclass(frozen=True, kw_only=True, slots=True)
class Inherited:
    """Environment variables of the parent that a worker gets as well."""

    names: tuple[str, ...]
    """Patterns (`fnmatch`)."""
    reason: str


INHERITED = (
    Inherited(names=("PATH", "LD_LIBRARY_PATH"), reason="where compilers and the CUDA libraries are"),
    Inherited(names=("PYTHONPATH", "VIRTUAL_ENV"), reason="where the stack under test is"),
    Inherited(names=("HOME", "USER", "TMPDIR"), reason="folders that libraries insist on"),
    Inherited(names=("LANG", "LC_ALL"), reason="encoding of logs"),
    Inherited(names=("CUDA_*", "NVIDIA_*"), reason="which GPUs this session may use"),
    Inherited(names=("HF_*",), reason="where pretrained weights are stored"),
    Inherited(names=("TRITON_*",), reason="where Triton finds ptxas and libcuda"),
)
NOT_INHERITED = {
    "CUDA_CACHE_PATH": "a cache of another run would turn a cold compilation warm",
    "TRITON_CACHE_DIR": "a cache of another run would turn a cold compilation warm",
    "TRITON_CACHE_MANAGER": "a remote cache would turn a cold compilation warm",
}
SECRET_NAMES = ("*TOKEN*", "*KEY*", "*SECRET*", "*PASSWORD*", "*CREDENTIAL*")
"""Patterns of variables that are never inherited, because a worker runs code that nobody has reviewed."""
SECRETS: Mapping[Weights, tuple[str, ...]] = {
    Weights.SYNTHETIC: (),
    Weights.PRETRAINED: ("HF_TOKEN",),  # some of the models are gated
}
"""Where the weights come from -> the secrets that loading them needs, and that a worker gets nevertheless."""
ALWAYS = {
    "PYTHONFAULTHANDLER": "1",  # the Python stack of a segmentation fault in the log
    "PYTHONUNBUFFERED": "1",  # the last words of a killed worker in the log
    "DIFFUSERS_ATTN_BACKEND": "native",  # torch's attention, even if diffusers comes to prefer another
}


def worker_environment(
    parent: Mapping[str, str], variables: Mapping[str, str], secrets: Collection[str] = ()
) -> dict[str, str]:
    """The environment of a worker: the variables of `parent` that it may have, overridden by `variables`.

    Of the variables that hold secrets it gets those named in `secrets` only. This repository comes first on
    its PYTHONPATH.
    """
    allowed = {name: value for name, value in parent.items() if name in secrets or _is_allowed(name)}
    search_path = os.pathsep.join(filter(None, (str(REPOSITORY), allowed.get("PYTHONPATH"))))
    return {**allowed, **ALWAYS, "PYTHONPATH": search_path, **variables}


@cache
def _is_allowed(name: str) -> bool:
    if name in NOT_INHERITED or any(fnmatchcase(name.upper(), pattern) for pattern in SECRET_NAMES):
        return False
    return any(fnmatchcase(name, pattern) for group in INHERITED for pattern in group.names)
