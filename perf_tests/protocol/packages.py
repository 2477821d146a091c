"""Compiled blocks in files: what one worker reports of making them, and another of loading them."""

from __future__ import annotations

from perf_tests.protocol.base import Struct


class Packages(Struct):
    """What a worker made: one package for each class of repeated blocks."""

    export_s: float
    """Of capturing the graphs (`torch.export`)."""
    compile_s: float
    """Of compiling them, and writing the packages."""
    files: dict[str, int]
    """Name -> bytes."""


class CompiledHere(Struct):
    """What the first image takes without packages, where the same blocks are compiled at run time."""

    first_image_s: float
    """Of compiling with empty caches, and of the first image."""
    step_ms: float | None
    """Median of its steady denoise steps; None where all of them were disturbed."""
    cached_first_image_s: float | None = None
    """As `first_image_s`, of another process, which reads what this one has compiled from a file; None where
    nothing could be saved."""


class LoadedPackages(Struct):
    """What a worker loaded."""

    seconds: float
    first_s: float
    """Of these, until a first package was open: what is done once, however many blocks there are."""
    blocks: dict[str, int]
    """Class -> blocks that are called in packages."""
    constant_mib: float
    """Weights that the packages were given."""
    added_mib: float
    """Memory that loading took: of the whole device, or on a CPU of the host's allocator."""
