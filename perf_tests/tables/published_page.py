"""TABLE: what diffusers-torchao says beside its tables, figure by figure, and what of ours stands beside it.

Rows of its tables are in baselines/published/, and `tables.published` maps them to cases. Nothing here is
judged: most of these figures lack a scope, a GPU or a unit that means what it says, as the remarks point out.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from perf_tests.tables.platforms import A100, H100


class Chapter(StrEnum):
    """Where on the page a figure stands."""

    HEADLINES = "headlines"
    SNIPPET = "snippet"
    MEMORY = "memory ladder"
    QUANTIZING = "quantizing where"
    SERIALIZATION = "serialization"
    AHEAD_OF_TIME = "ahead of time"
    TRAINING = "FP8 training"
    ADVICE = "advice"


class FigureUnit(StrEnum):
    """What a figure counts, by our reading."""

    SECONDS = "s"
    GIB = "GiB"
    GB = "GB"
    SAVED_PCT = "% saved"
    PSNR = "dB"
    MILLISECONDS = "ms"
    """Published in seconds."""
    TIMES_AS_FAST = "x"


@dataclass(frozen=True, kw_only=True, slots=True)
class Measured:
    """One metric of one case, with synthetic weights in its id."""

    case: str
    metric: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Saving:
    """The share of the time of `base` that `case` saves, which the page calls a speedup."""

    base: str
    case: str
    metric: str = "latency_s"


@dataclass(frozen=True, kw_only=True, slots=True)
class Nothing:
    """There is nothing of ours."""

    reason: str


@dataclass(frozen=True, kw_only=True, slots=True)
class PageFigure:
    """One figure, or one claim without a figure."""

    chapter: Chapter
    text: str
    """What it is said to be."""
    gpu: str | None
    """As the page calls it; None where it names none."""
    theirs: float | None
    """None where it gives no figure."""
    unit: FigureUnit | None
    """None where there is no figure on either side."""
    ours: Measured | Saving | Nothing
    remark: str | None = None
    """How the two differ, or what is known of theirs."""


LATENCY, LOADED, PEAK = "latency_s", "model_memory_mib", "peak_allocated_mib"
A100_NAME, H100_NAME = A100.id.upper(), H100.id.upper()

HEADLINE_REMARK = "1 - compiled and quantized / eager, of rows of the tables: 53.88 % is 6.57 to 3.03 s"
BEST_REMARK = "the fastest row of each table, autoquant compiled: 22.8 and 31.7 %"
HEADLINES = (
    PageFigure(
        chapter=Chapter.HEADLINES,
        text="speedup of FLUX.1-dev",
        gpu=H100_NAME,
        theirs=53.88,
        unit=FigureUnit.SAVED_PCT,
        ours=Saving(base="flux1-dev-b1-bf16-eager", case="flux1-dev-b1-fp8dqrow-regional-fused"),
        remark=HEADLINE_REMARK,
    ),
    PageFigure(
        chapter=Chapter.HEADLINES,
        text="speedup of CogVideoX-5b",
        gpu=A100_NAME,
        theirs=27.33,
        unit=FigureUnit.SAVED_PCT,
        ours=Saving(
            base="cogvideox-5b-b1-bf16-eager", case="cogvideox-5b-b1-autoquant-regional-qte-noonednn"
        ),
        remark="243.3 to 176.8 s with autoquant",
    ),
    PageFigure(
        chapter=Chapter.HEADLINES,
        text="speedup of CogVideoX-5b",
        gpu=H100_NAME,
        theirs=33.04,
        unit=FigureUnit.SAVED_PCT,
        ours=Saving(base="cogvideox-5b-b1-bf16-eager-fused", case="cogvideox-5b-b1-fp8dq-regional-fused-qte"),
        remark="112.4 to 75.3 s with fp8 per tensor, both with fused projections",
    ),
    PageFigure(
        chapter=Chapter.HEADLINES,
        text="speedup of CogVideoX-2b in fp16, about",
        gpu=A100_NAME,
        theirs=23.0,
        unit=FigureUnit.SAVED_PCT,
        ours=Saving(
            base="cogvideox-2b-b1-fp16-eager", case="cogvideox-2b-b1-autoquant-regional-fused-qte-noonednn"
        ),
        remark=BEST_REMARK,
    ),
    PageFigure(
        chapter=Chapter.HEADLINES,
        text="speedup of CogVideoX-5b in fp16, about",
        gpu=A100_NAME,
        theirs=32.0,
        unit=FigureUnit.SAVED_PCT,
        ours=Saving(
            base="cogvideox-5b-b1-fp16-eager", case="cogvideox-5b-b1-autoquant-regional-qte-noonednn"
        ),
        remark=BEST_REMARK,
    ),
)

STEPS_REMARK = (
    "the snippet asks for 50 steps, and the figures fit the 28 of ours: 50 steps of 182 ms would take 9.1 s"
)
SNIPPET = (
    PageFigure(
        chapter=Chapter.SNIPPET,
        text="FLUX.1-dev before autoquant and compile",
        gpu=H100_NAME,
        theirs=6.431,
        unit=FigureUnit.SECONDS,
        ours=Measured(case="flux1-dev-b1-bf16-eager", metric=LATENCY),
        remark=STEPS_REMARK,
    ),
    PageFigure(
        chapter=Chapter.SNIPPET,
        text="FLUX.1-dev after",
        gpu=H100_NAME,
        theirs=3.483,
        unit=FigureUnit.SECONDS,
        ours=Measured(case="flux1-dev-b1-autoquant-regional-noonednn", metric=LATENCY),
        remark=STEPS_REMARK,
    ),
)

LADDER_REMARK = (
    'published in "GB", which are bytes / 1024^3 in its script, of one step; our peaks are of compiling and '
    "generating, and the undivided decode takes 2.8 GiB more than in 2024"
)
LADDER_VAE = (
    "theirs has its VAE quantized as well, which has no Linear module, so that it makes no difference"
)
LADDER_VAE_PEAK = f"{LADDER_VAE}; as in bf16, the undivided decode takes 2.8 GiB more than in 2024"
LADDER_OFFLOADED = (
    "ours quantizes no VAE, which has no Linear module, and is of six steps, where theirs is of one; its "
    "twin without offload must have the same picture, bit by bit"
)
LADDER_SEQUENTIAL = (
    "in ours both peaks are the decoder's tiles (3.84 GiB), not denoising (2.69), and quantizing changes "
    "neither; the page does not say why its two differ"
)


def _rung(text: str, theirs: float, recipe: str, metric: str, remark: str = LADDER_OFFLOADED) -> PageFigure:
    return PageFigure(
        chapter=Chapter.MEMORY,
        text=f"CogVideoX-5b: {text}",
        gpu=A100_NAME,
        theirs=theirs,
        unit=FigureUnit.GIB,
        ours=Measured(case=f"cogvideox-5b-b1-{recipe}", metric=metric),
        remark=remark,
    )


MEMORY = (
    _rung("bf16, loaded", 19.7, "bf16-eager", LOADED, LADDER_REMARK),
    _rung("bf16, peak", 31.7, "bf16-eager", PEAK, LADDER_REMARK),
    _rung("int8wo, loaded", 10.3, "int8wo-eager-qte", LOADED, LADDER_VAE),
    _rung("int8wo, peak", 22.2, "int8wo-eager-qte", PEAK, LADDER_VAE_PEAK),
    _rung(
        "int8wo with model offload, on the host", 10.3, "int8wo-eager-qte-modeloffload", "host_weights_mib"
    ),
    _rung(
        "int8wo with model offload, peak",
        12.4,
        "int8wo-eager-qte-modeloffload",
        PEAK,
        "the decoder's 11.98 GiB, 2.8 more in ours, and the VAE's 0.40, neither of which quantizing changes",
    ),
    _rung("int8wo with model offload and tiling, peak", 7.9, "int8wo-eager-qte-modeloffload-tiled", PEAK),
    _rung(
        "bf16 with sequential offload and tiling, peak",
        4.8,
        "bf16-eager-seqoffload-tiled",
        PEAK,
        LADDER_SEQUENTIAL,
    ),
    _rung(
        "int8wo with sequential offload and tiling, peak",
        3.1,
        "int8wo-eager-qte-seqoffload-tiled",
        PEAK,
        LADDER_SEQUENTIAL,
    ),
)

LLAMA = "llama-7b-b1-int8wo-eager"
RESERVED_REMARK = (
    'published as "GiB", and max_memory_reserved() / 1e9 in its script: GB, and not what is allocated'
)
LLAMA_TIME_REMARK = (
    "with moving to the GPU, which is not named; theirs is torchao's Llama Transformer(ModelArgs()) with "
    "empty weights (pytorch/ao pull request 699), ours has its shapes"
)
QUANTIZING = tuple(
    PageFigure(
        chapter=Chapter.QUANTIZING,
        text=text,
        gpu=None,
        theirs=theirs,
        unit=unit,
        ours=Measured(case=f"{LLAMA}{suffix}", metric=metric),
        remark=remark,
    )
    for where, seconds, gigabytes, suffix in (
        ("on the CPU", 10.48, 6.99, "-onhost"),
        ("on the GPU", 1.96, 14.50, ""),
        ("moved and quantized module by module", 1.94, 8.29, "-bymodule"),
    )
    for text, theirs, unit, metric, remark in (
        (f"int8wo {where}, time", seconds, FigureUnit.SECONDS, "quantize_s", LLAMA_TIME_REMARK),
        (f"int8wo {where}, peak", gigabytes, FigureUnit.GB, "quantize_peak_reserved_mib", RESERVED_REMARK),
    )
)

LOAD_TIME_REMARK = (
    "the page does not say what its seconds contain: four steps of ours alone take 0.69, and the text "
    "encoders and the decoder come on top"
)
LOADED_INT8WO = "flux1-schnell-b1-int8wo-eager-torchsave"
SERIALIZATION = tuple(
    PageFigure(
        chapter=Chapter.SERIALIZATION,
        text=f"FLUX.1-schnell, 4 steps, {text}",
        gpu=H100_NAME,
        theirs=theirs,
        unit=unit,
        ours=Measured(case=case, metric=metric),
        remark=remark,
    )
    for text, theirs, unit, case, metric, remark in (
        ("bf16, time", 0.660, FigureUnit.SECONDS, "flux1-schnell-b1-bf16-eager", LATENCY, LOAD_TIME_REMARK),
        (
            *("bf16, memory", 31.451, FigureUnit.GIB, "flux1-schnell-b1-bf16-eager", LOADED),
            'published in "GB"; our bytes of loaded weights are the same',
        ),
        (
            *("loaded in int8wo, time", 0.735, FigureUnit.SECONDS, LOADED_INT8WO, LATENCY),
            LOAD_TIME_REMARK,
        ),
        (
            *("loaded in int8wo, memory", 20.517, FigureUnit.GIB, LOADED_INT8WO, LOADED),
            "both are loaded quantized, by torch.load",
        ),
    )
)

AHEAD_OF_TIME = (
    PageFigure(
        chapter=Chapter.AHEAD_OF_TIME,
        text="FLUX.1-dev's transformer compiled just in time, one call",
        gpu=A100_NAME,
        theirs=1.776,
        unit=FigureUnit.SECONDS,
        ours=Nothing(
            reason="ours is the first image of a process (first_image_s), not one call of its transformer"
        ),
        remark="no steady state: 74.4 TFLOP take 0.24 s at the peak of an A100, so compiling must be in it",
    ),
    PageFigure(
        chapter=Chapter.AHEAD_OF_TIME,
        text="the same ahead of time",
        gpu=A100_NAME,
        theirs=421.0,
        unit=FigureUnit.MILLISECONDS,
        ours=Measured(case="flux1-dev-b1-bf16-aoti", metric="denoise_step_ms"),
        remark="published as 0.421 s, 57 % of the peak of an A100: a step, which compiling ahead of time "
        "makes no faster",
    ),
)

TRAINING = (
    PageFigure(
        chapter=Chapter.TRAINING,
        text="DreamBooth LoRA of FLUX.1-dev over float8 layers",
        gpu=None,
        theirs=None,
        unit=FigureUnit.TIMES_AS_FAST,
        ours=Measured(case="flux1-dev-b1-bf16-regional-lora-fp8tensor-ckpt", metric="train_speedup_vs_bf16"),
        remark="no figure was published",
    ),
)

ADVICE = (
    PageFigure(
        chapter=Chapter.ADVICE,
        text="quantize_vae: fp8dqrow with a VAE compiled and quantized",
        gpu=H100_NAME,
        theirs=2.981,
        unit=FigureUnit.SECONDS,
        ours=Measured(case="flux1-dev-b1-fp8dqrow-regional-cvae-qvae", metric=LATENCY),
        remark="the column quantize_vae is False in every row that has it; FLUX.1-dev's tables have none, "
        "and what they compile of a VAE is quantized as well",
    ),
    PageFigure(
        chapter=Chapter.ADVICE,
        text="fp4_e2m1 on the VAE ruins the picture",
        gpu=H100_NAME,
        theirs=None,
        unit=FigureUnit.PSNR,
        ours=Measured(case="flux1-dev-b1-fp4_e2m1-regional-qvae", metric="psnr_db"),
        remark="against bf16, transformer and VAE together; synthetic weights have no picture to be ruined, "
        "so whether it looks bad is not for us to say",
    ),
    PageFigure(
        chapter=Chapter.ADVICE,
        text="fp6_e3m2 on the VAE, beside it",
        gpu=H100_NAME,
        theirs=None,
        unit=FigureUnit.PSNR,
        ours=Measured(case="flux1-dev-b1-fp6_e3m2-regional-qvae", metric="psnr_db"),
        remark="against bf16, transformer and VAE together",
    ),
    PageFigure(
        chapter=Chapter.ADVICE,
        text="Turing and Volta: no memory saved, or an error",
        gpu=None,
        theirs=None,
        unit=None,
        ours=Nothing(
            reason="it gives no figure, no platform of ours is one (tables/platforms.py), and float8 needs "
            "compute capability 8.9; on a platform, weights that quantizing makes no smaller are red"
        ),
    ),
)

PAGE = (*HEADLINES, *SNIPPET, *MEMORY, *QUANTIZING, *SERIALIZATION, *AHEAD_OF_TIME, *TRAINING, *ADVICE)
