"""How the captures of a process differ from those of its reference, as `run.json` holds it."""

from __future__ import annotations

from perf_tests.protocol.base import Struct


class Fidelity(Struct, omit_defaults=True):
    """How the captures of a process differ from those of its reference."""

    psnr_db: float | None
    """Lowest of all images or frames; None where they are identical (infinite)."""
    ssim: float
    """Lowest of all images or frames."""
    identical: bool
    pair_psnrs_db: tuple[float | None, ...] = ()
    """For each pair of prompt and seed the lowest of its images or frames; None where they are identical."""
    pair_ssims: tuple[float, ...] = ()
    """Of each pair of prompt and seed, the lowest of its images or frames."""
    psnr_mean_db: float | None = None
    """Over all frames, an identical one counting `tables.metrics.IDENTICAL_DB`; None for images, like every
    field below that is about frames."""
    psnr_p05_db: float | None = None
    """The 5th percentile over all frames."""
    ssim_mean: float | None = None
    ssim_p05: float | None = None
    frame_difference_error: float | None = None
    """Mean absolute difference between the changes from frame to frame and those of the reference, in [0, 2];
    also None for videos of one frame."""
    step_sqnrs_db: tuple[float, ...] = ()
    """Of the timed transformer's outputs for the inputs of each of five timesteps, against its outputs before
    it was quantized and compiled."""
    latents_sqnr_db: float | None = None
    """SQNR of the latents after four steps, against the reference's."""
    flicker_ratio: float | None = None
    """Mean change from frame to frame / that of the reference; also None where the reference's frames do not
    change."""
    reference_arrays: tuple[str, ...] = ()
    """The captures of the reference that were compared, as files of the run directory."""
