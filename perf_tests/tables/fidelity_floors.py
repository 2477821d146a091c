"""TABLE: how close the pictures of a pipeline and scheme come to the bf16 twin; the floor of each case."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from perf_tests.tables.cases import Case, Weights
from perf_tests.tables.metrics.rows import METRIC_BY_NAME
from perf_tests.tables.pipelines.auraflow import AURAFLOW
from perf_tests.tables.pipelines.cogvideox import COGVIDEOX_2B, COGVIDEOX_5B, COGVIDEOX_MINI
from perf_tests.tables.pipelines.flux import FLUX1_DEV, FLUX1_DEV_SLIM, FLUX1_SCHNELL, FLUX_MINI
from perf_tests.tables.pipelines.pixart import PIXART_SIGMA
from perf_tests.tables.pipelines.sd3 import SD3_MEDIUM
from perf_tests.tables.pipelines.spec import PipelineSpec
from perf_tests.tables.recipes import Decoding
from perf_tests.tables.schemes.rows import (
    AUTOQUANT,
    FP4_E2M1,
    FP6_E3M2,
    FP8DQ,
    FP8DQROW,
    FP8WO,
    INT4DQ,
    INT4WO,
    INT8DQ,
    INT8DQ_SPARSE24,
    INT8WO,
)
from perf_tests.tables.schemes.spec import FidelityFloor, Scheme

TOLERANCES_BELOW: Final = 2
"""How many tolerances of a pair lie between the lowest that was measured and the floor. Against a baseline
one passes, and may be accepted: two leave room for that, but not for accepting it again and again."""


def _margin(metric_name: str) -> float:
    """`TOLERANCES_BELOW` of the metric's tolerances, the widest of any device, in its unit."""
    gates = METRIC_BY_NAME[metric_name].gates
    return TOLERANCES_BELOW * max(gate.tolerance.absolute for gate in gates.values())


PSNR_MARGIN_DB: Final = _margin("psnr_db")
SSIM_MARGIN: Final = _margin("ssim")


@dataclass(frozen=True, kw_only=True, slots=True)
class LowestPair:
    """The lowest pair that a pipeline with synthetic weights gave under a scheme, among all accepted
    baselines, over batch sizes, compile modes and toggles."""

    pipeline: PipelineSpec
    scheme: Scheme
    psnr_db: float
    """Rounded down, to 0.1."""
    ssim: float
    """Rounded down, to 0.001; possibly that of another pair."""
    on: str
    """The processor, and the versions of the packages that pictures depend on."""


ON_H100: Final = "an NVIDIA H100 80GB HBM3 with torch 2.11.0+cu130 and torchao 0.18.0"
ON_H200: Final = "an NVIDIA H200 with torch 2.11.0+cu130 and torchao 0.18.0"
ON_AVX2_CPU: Final = "an AMD EPYC family 25 model 17 with torch 2.13.0+cpu and torchao 0.18.0"
ON_CPU: Final = "an AMD EPYC family 26 model 2 with torch 2.13.0+cpu and torchao 0.18.0"

LOWEST_PAIRS = tuple(
    LowestPair(pipeline=pipeline, scheme=scheme, psnr_db=psnr_db, ssim=ssim, on=on)
    for pipeline, scheme, psnr_db, ssim, on in (
        (FLUX1_DEV, INT8WO, 42.9, 0.999, ON_H100),
        (FLUX1_DEV, INT8DQ, 45.1, 0.999, ON_H100),
        (FLUX1_DEV, INT4WO, 20.8, 0.899, ON_H100),
        (FLUX1_DEV, INT4DQ, 21.4, 0.908, ON_H100),
        (FLUX1_DEV, FP6_E3M2, 28.4, 0.979, ON_H100),
        (FLUX1_DEV, FP4_E2M1, 21.0, 0.899, ON_H100),
        (FLUX1_DEV, FP8WO, 34.4, 0.994, ON_H100),
        (FLUX1_DEV, FP8DQ, 31.2, 0.989, ON_H100),
        (FLUX1_DEV, FP8DQROW, 32.4, 0.991, ON_H100),
        (FLUX1_DEV, AUTOQUANT, 34.5, 0.994, ON_H100),
        (FLUX1_DEV, INT8DQ_SPARSE24, 13.7, 0.560, ON_H100),
        (FLUX1_DEV_SLIM, FP8DQROW, 34.3, 0.994, ON_H200),
        (FLUX1_SCHNELL, INT8DQ, 43.8, 0.999, ON_H200),
        (FLUX1_SCHNELL, FP8WO, 34.1, 0.994, ON_H200),
        (FLUX1_SCHNELL, FP8DQ, 32.3, 0.992, ON_H200),
        (FLUX1_SCHNELL, FP8DQROW, 31.9, 0.991, ON_H200),
        (COGVIDEOX_2B, INT8DQ, 29.5, 0.986, ON_H200),
        (COGVIDEOX_5B, FP8DQROW, 23.3, 0.950, ON_H100),
        (COGVIDEOX_5B, INT8WO, 27.2, 0.978, ON_H200),
        (SD3_MEDIUM, INT8WO, 40.5, 0.998, ON_H200),
        (SD3_MEDIUM, INT8DQ, 43.0, 0.999, ON_H200),
        (SD3_MEDIUM, FP8WO, 29.0, 0.987, ON_H200),
        (SD3_MEDIUM, FP8DQ, 27.5, 0.977, ON_H200),
        (SD3_MEDIUM, FP8DQROW, 28.8, 0.984, ON_H200),
        (PIXART_SIGMA, INT8WO, 38.1, 0.998, ON_H200),
        (PIXART_SIGMA, INT8DQ, 33.7, 0.995, ON_H200),
        (PIXART_SIGMA, FP8WO, 32.7, 0.992, ON_H200),
        (PIXART_SIGMA, FP8DQROW, 30.2, 0.986, ON_H200),
        (AURAFLOW, INT8DQ, 36.2, 0.996, ON_H200),
        (AURAFLOW, FP8DQROW, 31.2, 0.989, ON_H200),
        (FLUX_MINI, INT8WO, 44.4, 0.999, ON_CPU),
        (FLUX_MINI, INT8DQ, 46.0, 0.999, ON_CPU),
        (FLUX_MINI, INT4DQ, 26.5, 0.962, ON_CPU),
        (FLUX_MINI, FP8WO, 34.0, 0.993, ON_CPU),
        (COGVIDEOX_MINI, INT8WO, 37.3, 0.997, ON_CPU),
        (COGVIDEOX_MINI, INT8DQ, 35.4, 0.996, ON_CPU),
        (COGVIDEOX_MINI, FP8WO, 29.1, 0.985, ON_AVX2_CPU),
    )
)
_ROWS = {(row.pipeline.id, row.scheme.id): row for row in LOWEST_PAIRS}


TILED_FLOOR = FidelityFloor(
    psnr_db=12.1,
    ssim=0.82,
    source=(
        f"{PSNR_MARGIN_DB:g} dB and {SSIM_MARGIN:g} below the 18.1 dB and 0.882 of cogvideox-mini in bf16, "
        "whose VAE was given tiles of 48 by 80 pixels, in place of one decode"
    ),
)
"""Of pictures that were decoded in tiles, whatever the scheme: each knows nothing of what lies beyond it."""


def floor_of(case: Case) -> FidelityFloor | None:
    """The lowest PSNR and SSIM that the pictures of `case` may have; None where its scheme has no floor, and
    they are not tiled.

    That of the scheme, raised where the pipeline was measured to be far above it. Only synthetic weights were
    measured: others give other pictures, and keep the floor of the scheme.
    """
    build = case.build
    if build.recipe.decoding is Decoding.TILED:
        return TILED_FLOOR
    floor = build.recipe.scheme.floor
    row = _ROWS.get((build.pipeline.id, build.recipe.scheme.id))
    if floor is None or row is None or build.weights is not Weights.SYNTHETIC:
        return floor
    return _raised(floor, row)


def _raised(floor: FidelityFloor, row: LowestPair) -> FidelityFloor:
    # Rounded, so that the error of the subtraction is not printed.
    psnr_db = max(floor.psnr_db, round(row.psnr_db - PSNR_MARGIN_DB, 1))
    ssim = max(floor.ssim, round(row.ssim - SSIM_MARGIN, 3))
    if (psnr_db, ssim) == (floor.psnr_db, floor.ssim):
        return floor
    return FidelityFloor(psnr_db=psnr_db, ssim=ssim, source=_source(floor, row))


def _source(floor: FidelityFloor, row: LowestPair) -> str:
    return (
        f"{PSNR_MARGIN_DB:g} dB and {SSIM_MARGIN:g} below the {row.psnr_db:g} dB and {row.ssim:g} of the "
        f"lowest pair of {row.pipeline.id} {row.scheme.id} on {row.on}, and not below the "
        f"{floor.psnr_db:g} dB and {floor.ssim:g} of the scheme, which are {floor.source}"
    )
