"""TABLE: which rows a pull request measures on a GPU, and why others have never been recorded.

A night takes all rows except those that were never recorded: `pytest -m "h100 and not unrecorded"`. On a
platform that has no baselines at all it takes every row, which is red until the first are recorded.
"""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase

from perf_tests.tables.platforms import A100, B200, H100, H200, Platform


@dataclass(frozen=True, kw_only=True, slots=True)
class SmokeRow:
    """A row of the tier `smoke`, which a pull request can afford: minutes on one GPU."""

    case: str
    """Its id, with synthetic weights."""
    catches: str
    """The kind of failure for which it stands."""


SMOKE = (
    SmokeRow(
        case="flux1-dev-slim-b1-bf16-eager",
        catches="what the host does for each kernel; a bf16 model that is wrong itself, by its anchor",
    ),
    SmokeRow(
        case="flux1-dev-slim-b1-bf16-regional",
        catches="graph breaks, recompiles, slow compiling, a compile that fell back",
    ),
    SmokeRow(
        case="flux1-dev-b1-bf16-regional",
        catches="slower kernels and larger peaks of a whole pipeline without quantization",
    ),
    SmokeRow(
        case="flux1-dev-b1-fp8dqrow-regional",
        catches="a lost speed-up, layers that are not quantized or have wrong scales, other pictures",
    ),
    SmokeRow(
        case="flux1-dev-b1-int8wo-regional-noonednn",
        catches="weight-only layers that inductor no longer fuses with their GEMM",
    ),
    SmokeRow(
        case="cogvideox-5b-b1-bf16-eager-s4",
        catches="frames of a video, guidance, the memory of decoding them",
    ),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Unrecorded:
    """Rows of a platform without a baseline, which are no failure as long as they have never had one."""

    platform: Platform
    cases: str
    """Glob of case ids; those that have been recorded meanwhile are not meant (`recorded.txt`)."""
    reason: str


UNRECORDED = (
    Unrecorded(
        platform=H100,
        cases="flux1-dev-b1-*fp[48]-regional",
        reason="UNSUPPORTED: needs compute capability 10.0",
    ),
    *(
        Unrecorded(
            platform=H100,
            cases=glob,
            reason="recorded on an H200, which rounds as its CPU does; no H100 has measured them yet",
        )
        for glob in (
            "flux1-dev-b1-int8wo-eager-onhost",
            "flux1-dev-b1-int8wo-eager-bymodule",
            "llama-7b-*",
        )
    ),
    Unrecorded(
        platform=H100,
        cases="flux1-dev*-lora*",
        reason="an H200 has recorded all six, without cuDNN's attention, whose gradients fault",
    ),
    Unrecorded(
        platform=H100,
        cases="flux1-dev*-reshaped*",
        reason="recorded on an H200; no H100 has changed its shapes yet",
    ),
    *(
        Unrecorded(platform=H100, cases=glob, reason="several GPU hours: until they have been recorded")
        for glob in ("flux1-dev-b[148]-*", "flux1-dev-b16-*", "cogvideox-5b-*", "cogvideox-2b-*")
    ),
    *(
        Unrecorded(
            platform=H100,
            cases=glob,
            reason="their costs are guessed: one row of each family is recorded",
        )
        for glob in ("sd3-medium-*", "pixart-sigma-*", "auraflow-*")
    ),
    Unrecorded(
        platform=H100,
        cases="flux1-schnell-*-torchsave",
        reason="published as 0.660 and 0.735 s of an unnamed scope; an H200 has recorded both",
    ),
    Unrecorded(
        platform=H100,
        cases="flux1-schnell-*",
        reason="its rows add little to FLUX.1-dev's; to be recorded last",
    ),
    Unrecorded(
        platform=H100,
        cases="flux1-dev-slim-b1-*-maxautotune-*",
        reason="tuned for 6 minutes and more, which gained an H200 nothing (whole FLUX.1-dev: 130.3 ms)",
    ),
    Unrecorded(
        platform=H100,
        cases="flux1-dev-slim-b1-*-graphed",
        reason="recorded on an H200, as are those of flux1-dev and flux1-schnell; by no H100 yet",
    ),
    Unrecorded(
        platform=H100,
        cases="flux1-dev-slim-b1-*-aoti",
        reason="an H200 has recorded the one in fp8 rows, whose generations had scattered by 11.8 % before",
    ),
    Unrecorded(
        platform=H100,
        cases="flux1-dev-slim-b1-fp8dqrow-regional",
        reason="bound by the host: generations of one process scatter by 10.9 %, and by up to 37 % before",
    ),
    *(
        Unrecorded(platform=platform, cases="*", reason="recorded on an H100 first: here, as it is needed")
        for platform in (H200, A100, B200)
    ),
)


def why_unrecorded(case_id: str, platform: Platform) -> str | None:
    """The reason for which the case may never have been recorded on `platform`; None where there is none."""
    found = (
        each.reason for each in UNRECORDED if each.platform == platform and fnmatchcase(case_id, each.cases)
    )
    return next(found, None)
