"""TABLE: quantization schemes, by the names the field uses for them."""

from __future__ import annotations

import dataclasses

from perf_tests.tables.lazy import Lazy
from perf_tests.tables.schemes.spec import (
    FidelityFloor,
    QuantizedWeight,
    Range,
    ScaleShape,
    Scheme,
    Search,
    Unsteady,
)

EIGHT_BIT_FLOOR = FidelityFloor(
    psnr_db=20.0,
    ssim=0.75,
    source=(
        "below what is published of 8 bits: 27.0 dB for W8A8 on FLUX.1-dev and 22.9 dB on FLUX.1-schnell "
        "(SVDQuant, arXiv 2411.05007), an SSIM of 0.943 for per-tensor FP8 on FLUX (TensorRT-LLM, pull "
        "request 13567)"
    ),
)
FOUR_BIT_FLOOR = FidelityFloor(
    psnr_db=15.0,
    ssim=0.55,
    source=(
        "below what is published of 4 bits: 19.5 dB for W4A16 NF4 on FLUX.1-dev and 18.2 dB on "
        "FLUX.1-schnell (SVDQuant, arXiv 2411.05007), an SSIM of 0.902 for FP4 on FLUX (TensorRT-LLM, pull "
        "request 13567)"
    ),
)
PRUNED_FLOOR = FidelityFloor(
    psnr_db=12.0,
    ssim=0.4,
    source=(
        "between the 18.0 to 20.3 dB and 0.78 to 0.87 of the FLUX miniatures and the 10.3 dB and 0.17 that "
        "pictures from other seeds reach: half the weights pruned and nothing trained afterwards leave a "
        "draft, and a full-size transformer has ten times their layers, which costs more"
    ),
)

MARGIN_DB = 1.5
"""Margin around what was measured on the miniatures: a batch of 4 moves it by 0.3 dB, and other processors
round differently."""
DEPTH_DB = 10.0
"""How much worse than one layer all layers of a transformer are together, at most."""


def _measured(lowest_db: float, highest_db: float, *, gemm_db: float) -> Range:
    """The range around what the miniatures gave; `gemm_db` is that of one GEMM (`tools/gemm_sqnr.py`)."""
    return Range(
        low=lowest_db - MARGIN_DB,
        high=highest_db + MARGIN_DB,
        source=(
            f"one GEMM of 3072 Gaussian channels gives {gemm_db:g} dB, and the miniatures, whose layers add "
            f"their errors up, gave {lowest_db:g} to {highest_db:g} dB"
        ),
    )


def _estimated(gemm_db: float) -> Range:
    """The range for a scheme that no miniature has run yet; `gemm_db` as for `_measured`."""
    return Range(
        low=gemm_db - DEPTH_DB,
        high=gemm_db + MARGIN_DB,
        source=(
            f"one GEMM of 3072 Gaussian channels gives {gemm_db:g} dB, and layers that add their errors up "
            f"at most {DEPTH_DB:g} dB less; estimated, not measured"
        ),
    )


INT8_WEIGHT = QuantizedWeight(
    subclass="Int8Tensor",
    dtype="int8",
    scale=ScaleShape.PER_ROW,
    dynamic_activation=False,
    bits=8,
    scale_bytes=5,
)
FLOAT8_WEIGHT = QuantizedWeight(
    subclass="Float8Tensor",
    dtype="float8_e4m3fn",
    scale=ScaleShape.PER_ROW,
    dynamic_activation=False,
    bits=8,
    scale_bytes=4,
)

# `set_inductor_config=False` everywhere: with True, torchao changes inductor's process-global settings
# (coordinate descent), which costs eight times the compile time for 2 % at run time on FLUX.1-dev.
BF16 = Scheme(id="bf16")
FP16 = Scheme(id="fp16", dtype="float16")
INT8WO = Scheme(
    id="int8wo",
    config=Lazy(target="torchao.quantization:Int8WeightOnlyConfig", kwargs={"set_inductor_config": False}),
    weight=INT8_WEIGHT,
    floor=EIGHT_BIT_FLOOR,
    output_sqnr_db=_measured(35.2, 40.1, gemm_db=41.4),
)
INT8DQ = Scheme(
    id="int8dq",
    config=Lazy(
        target="torchao.quantization:Int8DynamicActivationInt8WeightConfig",
        kwargs={"set_inductor_config": False},
    ),
    weight=dataclasses.replace(INT8_WEIGHT, dynamic_activation=True, activation="int8 per-row"),
    floor=EIGHT_BIT_FLOOR,
    # torch._int_mm, which int8 activations are multiplied with, refuses 16 rows or fewer under torch.compile.
    min_rows=17,
    output_sqnr_db=_measured(34.4, 38.8, gemm_db=38.3),
)
INT8DQ_SPARSE24 = Scheme(
    id="int8dq-sparse24",
    config=Lazy(
        target="perf_tests.worker.quantization.sparse24:Int8DynamicActivationInt8SemiSparseWeightConfig"
    ),
    weight=QuantizedWeight(
        subclass="Int8SemiSparseTensor",
        dtype="int8",
        scale=ScaleShape.PER_ROW,
        dynamic_activation=True,
        activation="int8 per-row",
        # Half the values, with 2 bits of position each.
        bits=5,
        scale_bytes=4,
    ),
    floor=PRUNED_FLOOR,
    unsteady=Unsteady(
        slower_pct=100.0,
        reason=(
            "host-bound, each product sets up cuSPARSELt anew in 0.4 ms or more: steps of one process took "
            "480 to 1140 ms"
        ),
    ),
    # What cuSPARSELt takes. Activations are padded to a multiple of 16 rows, so one row will do.
    in_features_multiple=32,
    out_features_multiple=32,
    output_sqnr_db=Range(
        low=4.4 - MARGIN_DB,
        high=12.3 + MARGIN_DB,
        source=(
            "the two largest of every four Gaussian weights keep 86.8 % of their energy, which gives one "
            "GEMM 8.8 dB, and the miniatures, where errors add up and residuals pass by, gave 4.4 to 12.3 dB"
        ),
    ),
    fastest_gemm="int8-2:4",
)
INT4WO = Scheme(
    id="int4wo",
    config=Lazy(
        target="torchao.quantization:Int4WeightOnlyConfig",
        kwargs={
            "group_size": 128,
            # Needs no further package, unlike torchao's default, `plain`.
            "int4_packing_format": "tile_packed_to_4d",
            "set_inductor_config": False,
        },
    ),
    weight=QuantizedWeight(
        subclass="Int4TilePackedTo4dTensor",
        dtype="int32",
        scale=ScaleShape.PER_GROUP,
        group_size=128,
        dynamic_activation=False,
        bits=4,
        scale_bytes=4,
        tile=(8, 1024),
        scale_tile=(8, 1024),
    ),
    min_capability=(8, 0),
    floor=FOUR_BIT_FLOOR,
    in_features_multiple=128,
    output_sqnr_db=_estimated(20.0),
)
INT4DQ = Scheme(
    id="int4dq",
    config=Lazy(
        target="torchao.quantization:Int8DynamicActivationIntxWeightConfig",
        named={"weight_dtype": "torch:int4"},
    ),
    weight=QuantizedWeight(
        subclass="IntxUnpackedToInt8Tensor",
        dtype="int4",
        scale=ScaleShape.PER_GROUP,
        group_size=32,
        dynamic_activation=True,
        activation="int8 per-row",
        # Each int4 takes an int8: this format is made for export, which packs them.
        bits=8,
        scale_bytes=3,
    ),
    floor=FOUR_BIT_FLOOR,
    in_features_multiple=32,
    output_sqnr_db=_measured(12.8, 19.1, gemm_db=20.4),
)
FLOATX_CONFIG = "perf_tests.worker.quantization.floatx:FloatxWeightOnlyConfig"
FLOATX_WEIGHT = QuantizedWeight(
    subclass="FloatxTensor",
    dtype="fp6_e3m2",
    scale=ScaleShape.PER_ROW,
    dynamic_activation=False,
    # Two bits of four columns fill a byte.
    bits=6,
    tile=(1, 4),
    # Of the weight's dtype.
    scale_bytes=2,
)
FP6_E3M2 = Scheme(
    id="fp6_e3m2",
    config=Lazy(target=FLOATX_CONFIG, kwargs={"ebits": 3, "mbits": 2}),
    weight=FLOATX_WEIGHT,
    # 6 and 5 bits, two of them mantissa, are closer to fp8dq (28.5 dB in one GEMM) than to int4dq (20.4 dB).
    floor=EIGHT_BIT_FLOOR,
    output_sqnr_db=_measured(18.2, 24.1, gemm_db=25.6),
)
FP5_E2M2 = Scheme(
    id="fp5_e2m2",
    config=Lazy(target=FLOATX_CONFIG, kwargs={"ebits": 2, "mbits": 2}),
    weight=dataclasses.replace(FLOATX_WEIGHT, dtype="fp5_e2m2", bits=5, tile=(1, 8)),
    floor=EIGHT_BIT_FLOOR,
    output_sqnr_db=_measured(17.6, 24.0, gemm_db=24.8),
)
FP4_E2M1 = Scheme(
    id="fp4_e2m1",
    config=Lazy(target=FLOATX_CONFIG, kwargs={"ebits": 2, "mbits": 1}),
    weight=dataclasses.replace(FLOATX_WEIGHT, dtype="fp4_e2m1", bits=4, tile=(1, 2)),
    # Below int4dq, which has a scale for each 32 weights instead of one for a row.
    floor=FOUR_BIT_FLOOR,
    output_sqnr_db=_measured(10.5, 17.4, gemm_db=18.6),
)
FP8WO = Scheme(
    id="fp8wo",
    config=Lazy(target="torchao.quantization:Float8WeightOnlyConfig", kwargs={"set_inductor_config": False}),
    weight=FLOAT8_WEIGHT,
    floor=EIGHT_BIT_FLOOR,
    output_sqnr_db=_measured(22.9, 29.6, gemm_db=31.5),
)
# When activations are float8 as well, torchao skips weights with a dimension that is not a multiple of 16. No
# pipeline has one; the build checks would name it.
FP8DQ = Scheme(
    id="fp8dq",
    config=Lazy(
        target="torchao.quantization:Float8DynamicActivationFloat8WeightConfig",
        kwargs={"set_inductor_config": False},
        nested={"granularity": Lazy(target="torchao.quantization:PerTensor")},
    ),
    weight=dataclasses.replace(
        FLOAT8_WEIGHT,
        scale=ScaleShape.PER_TENSOR,
        dynamic_activation=True,
        activation="float8_e4m3fn per-tensor",
    ),
    min_capability=(8, 9),
    floor=EIGHT_BIT_FLOOR,
    output_sqnr_db=_estimated(28.5),
)
FP8DQROW = Scheme(
    id="fp8dqrow",
    config=Lazy(
        target="torchao.quantization:Float8DynamicActivationFloat8WeightConfig",
        kwargs={"set_inductor_config": False},
        nested={"granularity": Lazy(target="torchao.quantization:PerRow")},
    ),
    weight=dataclasses.replace(FLOAT8_WEIGHT, dynamic_activation=True, activation="float8_e4m3fn per-row"),
    min_capability=(8, 9),
    floor=EIGHT_BIT_FLOOR,
    output_sqnr_db=_estimated(28.6),
)
NVFP4 = Scheme(
    id="nvfp4",
    config=Lazy(target="torchao.prototype.mx_formats:NVFP4DynamicActivationNVFP4WeightConfig"),
    weight=QuantizedWeight(
        subclass="NVFP4Tensor",
        dtype="uint8",
        scale=ScaleShape.PER_GROUP,
        group_size=16,
        dynamic_activation=True,
        activation="float4_e2m1fn_x2 per-group-16",
        bits=4,
        scale_bytes=1,
        scale_tile=(128, 64),
    ),
    min_capability=(10, 0),
    fastest_gemm="float4_e2m1",
    floor=FOUR_BIT_FLOOR,
    # torch._scaled_mm wants rows of a multiple of 16 bytes, at two elements a byte.
    in_features_multiple=32,
    out_features_multiple=16,
    output_sqnr_db=_estimated(17.4),
)
MXFP8 = Scheme(
    id="mxfp8",
    config=Lazy(target="torchao.prototype.mx_formats:MXDynamicActivationMXWeightConfig"),
    weight=QuantizedWeight(
        subclass="MXTensor",
        dtype="float8_e4m3fn",
        scale=ScaleShape.PER_GROUP,
        group_size=32,
        dynamic_activation=True,
        activation="float8_e4m3fn per-group-32",
        bits=8,
        scale_bytes=1,
        scale_tile=(128, 128),
    ),
    min_capability=(10, 0),
    floor=EIGHT_BIT_FLOOR,
    in_features_multiple=32,
    out_features_multiple=16,
    output_sqnr_db=_estimated(27.6),
)

AUTOQUANT_MIN_SQNR_DB = 25.0
"""Per-tensor fp8, the coarsest of the candidates, reaches 28.5 dB with one GEMM of Gaussian channels: a layer
whose outliers cost more than 3.5 dB, which is half as much error again, is left to a finer candidate."""
AUTOQUANT = Scheme(
    id="autoquant",
    config=Lazy(target="torchao.quantization:FqnToConfig"),
    search=Search(
        candidates=(BF16, INT8DQ, FP8DQROW, FP8DQ, FP8WO, INT8WO),
        min_sqnr_db=AUTOQUANT_MIN_SQNR_DB,
        # Above the noise: the steps of one process on an H100 scatter by 1.2 to 3.4 %.
        margin_pct=5.0,
    ),
    floor=EIGHT_BIT_FLOOR,
    output_sqnr_db=Range(
        low=AUTOQUANT_MIN_SQNR_DB - DEPTH_DB,
        high=150.0,
        source=(
            f"each layer keeps {AUTOQUANT_MIN_SQNR_DB:g} dB, layers that add their errors up at most "
            f"{DEPTH_DB:g} dB less, and a layer that stays as it is errs by nothing"
        ),
    ),
    # int8 is multiplied just as fast.
    fastest_gemm="float8_e4m3fn",
)

SCHEMES = tuple(row for row in tuple(globals().values()) if isinstance(row, Scheme))
"""Every scheme above, in the order of this module, which is the order of the tests."""

# Below `SCHEMES`, as nobody asks for it: the reference that CPU time ratios are taken against.
FP32 = Scheme(id="fp32", dtype="float32")
