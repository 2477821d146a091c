"""TABLE: quantization schemes, by the names the field uses for them."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from perf_tests.tables.identity import NEVER
from perf_tests.tables.lazy import Lazy


class ScaleShape(StrEnum):
    """How many scales a quantized weight of shape (rows, columns) carries."""

    PER_ROW = "per-row"
    PER_TENSOR = "per-tensor"


@dataclass(frozen=True, kw_only=True, slots=True)
class QuantizedWeight:
    """What a weight looks like once a scheme was really applied to it."""

    subclass: str
    """Class name of the tensor subclass, as `type(module.weight).__name__`."""
    dtype: str
    """dtype of the stored data, as `str(dtype)` without the prefix `torch.`."""
    scale: ScaleShape
    dynamic_activation: bool
    """Whether the activations are quantized, too."""

    def describes(self, subclass: str, dtype: str, scale: str | None, dynamic_activation: bool) -> bool:
        """Whether a weight that looks like this is quantized exactly as the scheme says."""
        asked = (self.subclass, self.dtype, self.scale, self.dynamic_activation)
        return asked == (subclass, dtype, scale, dynamic_activation)


@dataclass(frozen=True, kw_only=True, slots=True)
class FidelityFloor:
    """The lowest PSNR (dB) and SSIM against the bf16 twin that still count as the same picture.

    Absolute floors of 8-bit schemes on a full trajectory: 20 dB and 0.75, below every published
    8-bit measurement (27.0 dB for W8A8 on FLUX.1-dev, SVDQuant, arXiv 2411.05007).
    """

    psnr_db: float
    ssim: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Scheme:
    """A quantization: a short id and the torchao config it stands for."""

    id: str
    dtype: str = "bfloat16"
    """dtype of everything that is not quantized, weights and activations."""
    config: Lazy | None = None
    """The torchao config; None where nothing is quantized."""
    weight: QuantizedWeight | None = None
    """The evidence a quantized module must show; None where nothing is quantized."""
    min_capability: tuple[int, int] | None = field(default=None, metadata=NEVER)
    """The lowest CUDA compute capability with the kernels; None where any device will do."""
    floor: FidelityFloor | None = field(default=None, metadata=NEVER)
    """None for a scheme which is itself the reference."""
    exclusions: dict[str, str] = field(default_factory=dict, metadata=NEVER)
    """Linear modules left alone in every pipeline: pattern of qualified names (`fnmatch`) -> the reason.
    `Build.exclusions` are those that count."""
    min_rows: int = field(default=1, metadata=NEVER)
    """The fewest activation rows its kernels take: with more than 1, the modules that a pipeline names as
    seeing one row per image are left alone."""


EIGHT_BIT_FLOOR = FidelityFloor(psnr_db=20.0, ssim=0.75)

# `set_inductor_config=False` everywhere: with True, torchao changes inductor's process-global settings
# (coordinate descent), which costs eight times the compile time for 2 % at run time on FLUX.1-dev.
BF16 = Scheme(id="bf16")
INT8WO = Scheme(
    id="int8wo",
    config=Lazy(target="torchao.quantization:Int8WeightOnlyConfig", kwargs={"set_inductor_config": False}),
    weight=QuantizedWeight(
        subclass="Int8Tensor", dtype="int8", scale=ScaleShape.PER_ROW, dynamic_activation=False
    ),
    floor=EIGHT_BIT_FLOOR,
)
INT8DQ = Scheme(
    id="int8dq",
    config=Lazy(
        target="torchao.quantization:Int8DynamicActivationInt8WeightConfig",
        kwargs={"set_inductor_config": False},
    ),
    weight=QuantizedWeight(
        subclass="Int8Tensor", dtype="int8", scale=ScaleShape.PER_ROW, dynamic_activation=True
    ),
    floor=EIGHT_BIT_FLOOR,
    # torch._int_mm, which int8 activations are multiplied with, refuses 16 rows or fewer under torch.compile.
    min_rows=17,
)
FP8WO = Scheme(
    id="fp8wo",
    config=Lazy(target="torchao.quantization:Float8WeightOnlyConfig", kwargs={"set_inductor_config": False}),
    weight=QuantizedWeight(
        subclass="Float8Tensor", dtype="float8_e4m3fn", scale=ScaleShape.PER_ROW, dynamic_activation=False
    ),
    floor=EIGHT_BIT_FLOOR,
)
FP8DQ = Scheme(
    id="fp8dq",
    config=Lazy(
        target="torchao.quantization:Float8DynamicActivationFloat8WeightConfig",
        kwargs={"set_inductor_config": False},
        nested={"granularity": Lazy(target="torchao.quantization:PerTensor")},
    ),
    weight=QuantizedWeight(
        subclass="Float8Tensor", dtype="float8_e4m3fn", scale=ScaleShape.PER_TENSOR, dynamic_activation=True
    ),
    min_capability=(8, 9),
    floor=EIGHT_BIT_FLOOR,
)
FP8DQROW = Scheme(
    id="fp8dqrow",
    config=Lazy(
        target="torchao.quantization:Float8DynamicActivationFloat8WeightConfig",
        kwargs={"set_inductor_config": False},
        nested={"granularity": Lazy(target="torchao.quantization:PerRow")},
    ),
    weight=QuantizedWeight(
        subclass="Float8Tensor", dtype="float8_e4m3fn", scale=ScaleShape.PER_ROW, dynamic_activation=True
    ),
    min_capability=(8, 9),
    floor=EIGHT_BIT_FLOOR,
)

# Not a quantization anyone asks for: the reference that CPU time ratios are taken against.
FP32 = Scheme(id="fp32", dtype="float32")

SCHEMES = (BF16, INT8WO, INT8DQ, FP8WO, FP8DQ, FP8DQROW)
