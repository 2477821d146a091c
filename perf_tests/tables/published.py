"""TABLE: how the published measurements of diffusers-torchao map to cases of ours, and how they differ.

The rows themselves are in baselines/published/, whose README.md names their source.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from fnmatch import fnmatchcase

from perf_tests.tables.cases import Build, Case
from perf_tests.tables.matrix import gpu_recipe, gpu_workload
from perf_tests.tables.pipelines.cogvideox import COGVIDEOX_2B, COGVIDEOX_5B
from perf_tests.tables.pipelines.rows import PIPELINES
from perf_tests.tables.platforms import A100, H100
from perf_tests.tables.recipes import CompileMode, Recipe
from perf_tests.tables.schemes.rows import FP8DQ, SCHEMES

MAX_LATENCY_RATIO = 1.25
"""Ours / theirs on the same GPU model, beyond which a row needs an explanation."""
MAX_MODEL_MEMORY_DIFFERENCE_PCT = 2.0
"""In either direction, and on any GPU, on which bytes do not depend."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PublishedRow:
    """One line of a published table: its columns, then the case that it is, or why there is none."""

    gpu: str
    pipeline: str
    batch_size: int
    fuse_qkv: bool
    compile: bool
    compile_vae: bool
    quantize_vae: bool = False
    """The table of FLUX.1-dev has no such column."""
    scheme: str
    """As the table calls it."""
    model_memory_gib: float | None
    """After loading; None where it was not published."""
    peak_memory_gib: float | None
    """None where it was not published."""
    latency_s: float
    case: str | None
    reason: str | None


# The mapping

PIPELINE_BY_ID = {pipeline.id: pipeline for pipeline in PIPELINES}
SCHEME_BY_ID = {scheme.id: scheme for scheme in SCHEMES}
ALIASES = {"fp8": FP8DQ.id, "fp6": "fp6_e3m2", "sparsify": "int8dq-sparse24"}
"""Names that only the tables of CogVideoX use -> the scheme's."""
QUANTIZED_TOGETHER = dict.fromkeys((COGVIDEOX_5B.id, COGVIDEOX_2B.id), ("transformer", "text_encoder"))
"""Pipelines whose published quantized rows quantize more than the transformer."""
PLATFORM_OF_GPU = {"A100": A100.id, "H100": H100.id}
"""Published GPU -> our platform of the same model."""

UNMAPPED: dict[str, str] = {}
"""Schemes without a case -> why. Those that torchao has dropped live on in worker/quantization/."""


def reason(row: PublishedRow) -> str | None:
    """Why no case of ours is this row; None where one is."""
    return UNMAPPED.get(_scheme_id(row))


def case_id(row: PublishedRow) -> str | None:
    """The id of our case with the attributes of `row`; None where there is a `reason`.

    KeyError for a pipeline or a scheme that no table knows.
    """
    if reason(row) is not None:
        return None
    pipeline = PIPELINE_BY_ID[row.pipeline]
    workload = gpu_workload(pipeline, recipe(row), row.batch_size)
    return Case(build=Build(pipeline=pipeline, recipe=gpu_recipe(recipe(row))), workload=workload).id


def recipe(row: PublishedRow) -> Recipe:
    """What was done to the published pipeline, as far as a recipe can say it; see `DIFFERENCES` for the rest.

    KeyError for an unknown scheme.
    """
    plain = Recipe(
        scheme=SCHEME_BY_ID[_scheme_id(row)],
        compile=CompileMode.REGIONAL if row.compile else CompileMode.EAGER,
        fuse_qkv=row.fuse_qkv,
        compile_vae=row.compile_vae,
    )
    if plain.scheme.config is None:
        return plain
    together = QUANTIZED_TOGETHER.get(row.pipeline, plain.quantized_components)
    vae = ("vae",) if row.quantize_vae else ()
    return dataclasses.replace(plain, quantized_components=(*together, *vae))


def _scheme_id(row: PublishedRow) -> str:
    return ALIASES.get(row.scheme, row.scheme)


# The differences of definition


@dataclass(frozen=True, kw_only=True, slots=True)
class Difference:
    """Something in which a published row and the case that it is mapped to differ."""

    subject: str
    theirs: str
    ours: str
    applies: Callable[[PublishedRow], bool]


def _every(_row: PublishedRow) -> bool:
    return True


def _compiled(row: PublishedRow) -> bool:
    return row.compile


def _compiled_and_quantized(row: PublishedRow) -> bool:
    return row.compile and recipe(row).scheme.config is not None


def _compiled_vae(row: PublishedRow) -> bool:
    return row.compile_vae


DIFFERENCES = (
    Difference(
        subject="compiled",
        theirs='the whole transformer, mode="max-autotune", fullgraph=True',
        ours="its repeated blocks (regional), default mode, dynamic=False",
        applies=_compiled,
    ),
    Difference(
        subject="memory format of compiled rows",
        theirs="torch.channels_last",
        ours="as it was created",
        applies=_compiled,
    ),
    Difference(
        subject="inductor settings of quantized compiled rows",
        theirs="torchao's (coordinate descent, int8 products fused with their scales)",
        ours="inductor's defaults (set_inductor_config=False), but int8dq's GEMMs are tuned",
        applies=_compiled_and_quantized,
    ),
    Difference(
        subject="compiled VAE",
        theirs="quantized as well, and fused where fuse_qkv is on",
        ours="compiled only",
        applies=_compiled_vae,
    ),
    Difference(
        subject="latency",
        theirs="the mean over whole generations",
        ours="the median; composed from measured stages where it says projected",
        applies=_every,
    ),
    Difference(
        subject="peak memory",
        theirs="loading and warm-up included",
        ours="of compiling and generating",
        applies=_every,
    ),
)


def differences(row: PublishedRow) -> tuple[Difference, ...]:
    """In what the row and its case differ."""
    return tuple(each for each in DIFFERENCES if each.applies(row))


# What is known of measured rows


class Column(StrEnum):
    """The columns of a published row from which ours may differ only with an explanation."""

    LATENCY = "latency"
    MODEL_MEMORY = "model memory"


@dataclass(frozen=True, kw_only=True, slots=True)
class Explanation:
    """Why measured rows are slower or larger than the published ones."""

    cases: str
    """Glob over case ids."""
    of: Column
    ratios: tuple[float, float]
    """The lowest and the highest ratio, ours / theirs, that it explains: one outside is news."""
    text: str
    link: str | None = None


EXPLANATIONS = (
    Explanation(
        cases="flux1-dev-b*-fp8dq*-eager*",
        of=Column.LATENCY,
        ratios=(1.0, 1.7),
        text=(
            "bound by the host: at batch 1 the card drew 380 W at its full 1980 MHz (bf16: 680 W, power "
            "capped) while float8 tensor subclasses were dispatched from Python (torch 2.11, torchao 0.18)"
        ),
    ),
    Explanation(
        cases="flux1-dev-b1-int8dq-regional*",
        of=Column.LATENCY,
        ratios=(1.0, 1.5),
        text=(
            "int8 products are slower than float8 ones today: on an H200 a denoise step takes 132.6 ms where "
            "inductor tunes them (`tuned`), 155.8 ms where it leaves them to cuBLAS, 133.8 ms in bf16 and "
            "100.4 ms in fp8dqrow (torch 2.11, torchao 0.18); the layers that see one row per image are not "
            "quantized"
        ),
    ),
    Explanation(
        cases="*-int8dq-*",
        of=Column.MODEL_MEMORY,
        ratios=(1.0, 1.2),
        text="the layers that see one row per image stay bf16: int8 kernels need at least 17 rows",
    ),
)


def explanation(case: str, of: Column, ratio: float) -> Explanation | None:
    """Why column `of` of the case with the id `case` is `ratio` times the published one; None if
    unexplained."""
    for each in EXPLANATIONS:
        lowest, highest = each.ratios
        if each.of is of and lowest <= ratio <= highest and fnmatchcase(case, each.cases):
            return each
    return None
