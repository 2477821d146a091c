"""What a row of the scheme table holds."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from enum import StrEnum

from perf_tests.tables.digest_fields import NEVER, UNLESS_DEFAULT
from perf_tests.tables.lazy import Lazy


class ScaleShape(StrEnum):
    """How many scales a quantized weight of shape (out_features, in_features) carries."""

    PER_ROW = "per-row"
    PER_TENSOR = "per-tensor"
    PER_GROUP = "per-group"
    """One for every `QuantizedWeight.group_size` neighbours in a row."""


@dataclass(frozen=True, kw_only=True, slots=True)
class QuantizedWeight:
    """What a weight looks like once a scheme has really been applied to it, and how many bytes it then
    takes."""

    subclass: str
    """Class name of the tensor subclass, as `type(module.weight).__name__`."""
    dtype: str
    """dtype of the quantized values, as `str(dtype)` without the prefix `torch.`: the one that the subclass
    declares (int4 stored in int8), else that of the stored data."""
    scale: ScaleShape
    dynamic_activation: bool
    """Whether the activations are quantized, too."""
    group_size: int | None = field(default=None, metadata=UNLESS_DEFAULT)
    """Elements that share a scale; None unless `scale` is per-group."""
    activation: str | None = field(default=None, metadata=NEVER)
    """dtype and granularity that activations are quantized to, as `int8 per-row`; None where they are not."""
    bits: int = field(metadata=NEVER)
    """Stored bits of one element."""
    scale_bytes: int = field(metadata=NEVER)
    """Bytes of one scale, with its zero point."""
    tile: tuple[int, int] = field(default=(1, 1), metadata=NEVER)
    """(out_features, in_features) are padded to multiples of these before they are packed."""
    scale_tile: tuple[int, int] = field(default=(1, 1), metadata=NEVER)
    """Before scales are computed, the weight is padded to multiples of these, in elements of the weight."""

    @property
    def granularity(self) -> str:
        """`per-row`, `per-tensor`, or `per-group-32`."""
        return self.scale.value if self.group_size is None else f"{self.scale.value}-{self.group_size}"

    def describes(self, subclass: str, dtype: str, scale: str | None, activation: str | None) -> bool:
        """Whether a weight with these properties is quantized exactly as the scheme says."""
        asked = (self.subclass, self.dtype, self.granularity, self.activation)
        return asked == (subclass, dtype, scale, activation)

    def stored_elements(self, out_features: int, in_features: int) -> int:
        """Elements that a weight of this shape stores, padding included."""
        return math.prod(_padded((out_features, in_features), self.tile))

    def stored_scales(self, out_features: int, in_features: int) -> int:
        """Scales that a weight of this shape carries, padding included."""
        rows, columns = _padded((out_features, in_features), self.scale_tile)
        return {
            ScaleShape.PER_TENSOR: 1,
            ScaleShape.PER_ROW: rows,
            ScaleShape.PER_GROUP: rows * columns // (self.group_size or columns),
        }[self.scale]

    def implied_bytes(self, elements: int, scales: int) -> float:
        """Bytes of that many stored elements and scales."""
        return elements * self.bits / 8 + scales * self.scale_bytes


def _padded(shape: tuple[int, int], tile: tuple[int, int]) -> tuple[int, int]:
    rows, columns = (
        math.ceil(size / multiple) * multiple for size, multiple in zip(shape, tile, strict=True)
    )
    return rows, columns


@dataclass(frozen=True, kw_only=True, slots=True)
class Range:
    """The bounds, inclusive, between which a measured value must lie, and why."""

    low: float
    high: float
    source: str
    """Where the bounds come from: the end of a sentence."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FidelityFloor:
    """The lowest PSNR (dB) and SSIM against the bf16 twin at which pictures still count as the same. Both are
    absolute, and of whole generations."""

    psnr_db: float
    ssim: float
    source: str
    """Where the two come from, a published value or a measured spread: the end of a sentence."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Unsteady:
    """A scheme whose denoise steps vary widely in duration even on a quiet machine.

    A test that assumes the noise of the platform would call most of its runs inconclusive. Times that rest on
    the step are compared with a wide limit instead, which only a change of kind exceeds.
    """

    slower_pct: float
    """The limit, above any unchanged process; 100 means twice the time, or half the speed-up."""
    reason: str
    """What the time depends on, with figures: the end of a sentence."""

    @property
    def less_pct(self) -> float:
        """The limit for a ratio with the time in its denominator: 100 percent slower is 50 percent less."""
        return 100.0 * self.slower_pct / (100.0 + self.slower_pct)


@dataclass(frozen=True, kw_only=True, slots=True)
class Search:
    """How a scheme is chosen for each Linear module: by the time it saves there, and the error it costs."""

    candidates: tuple[Scheme, ...]
    """One of them quantizes nothing: a module for which no other is chosen stays as it is."""
    min_sqnr_db: float
    """The lowest SQNR that the output of a module may have against its output before quantization, on the
    same activations."""
    margin_pct: float
    """How much faster than the unquantized module a candidate must be, in percent of its time. Without a
    margin the noise of the timing would choose."""

    @property
    def unquantized(self) -> Scheme:
        """The candidate that leaves a module as it is."""
        return next(scheme for scheme in self.candidates if scheme.config is None)


@dataclass(frozen=True, kw_only=True, slots=True)
class Scheme:
    """A quantization: a short id and the torchao config it stands for."""

    id: str
    dtype: str = "bfloat16"
    """dtype of everything that is not quantized, weights and activations."""
    config: Lazy | None = None
    """The torchao config; None where nothing is quantized. With a `search`, the class that takes a config for
    each module."""
    weight: QuantizedWeight | None = None
    """What the weight of a quantized module must look like; None where nothing is quantized, and with a
    `search`, where the candidate chosen for the module says it (`weight_of`)."""
    search: Search | None = field(default=None, metadata=UNLESS_DEFAULT)
    """None where every module is quantized alike."""
    min_capability: tuple[int, int] | None = field(default=None, metadata=NEVER)
    """The lowest CUDA compute capability that has the kernels; None where any device, CPUs included, has
    them."""
    floor: FidelityFloor | None = field(default=None, metadata=NEVER)
    """None for a scheme that quantizes nothing."""
    exclusions: dict[str, str] = field(default_factory=dict, metadata=NEVER)
    """Linear modules left alone in every pipeline: pattern of qualified names (`fnmatch`) -> the reason.
    `Build.exclusions` are those that count."""
    min_rows: int = field(default=1, metadata=NEVER)
    """The fewest activation rows that its kernels take. Above 1, the modules that a pipeline names as seeing
    one row per image (`PipelineSpec.single_row`) are left alone."""
    in_features_multiple: int = field(default=1, metadata=UNLESS_DEFAULT)
    """Linear modules whose in_features are not a multiple of this are left alone: torchao refuses them, or
    silently leaves their weights as they are."""
    out_features_multiple: int = field(default=1, metadata=UNLESS_DEFAULT)
    """Linear modules whose out_features are not a multiple of this are left alone."""
    output_sqnr_db: Range | None = field(default=None, metadata=NEVER)
    """SQNR of the transformer's output against its output before quantization, on the same inputs; None where
    nothing is quantized."""
    unsteady: Unsteady | None = field(default=None, metadata=NEVER)
    """None where the scheme is no noisier than its platform."""
    fastest_gemm: str | None = field(default=None, metadata=NEVER)
    """What its fastest GEMMs multiply, as a key of `Platform.peak_tflops`, where the dtypes do not tell; None
    where they do (`gemm`)."""

    def has_kernels(self, capability: tuple[int, int] | None) -> bool:
        """Whether a GPU of that compute capability has the kernels; None: a CPU."""
        return self.min_capability is None or (capability is not None and capability >= self.min_capability)

    def weight_of(self, chosen: str | None) -> QuantizedWeight | None:
        """What the weight of a module must look like for which a search chose the candidate with the id
        `chosen`.

        None: it must not be quantized. Without a search all modules look alike, and `chosen` is not used.
        """
        if self.search is None:
            return self.weight
        return next((scheme.weight for scheme in self.search.candidates if scheme.id == chosen), None)

    @property
    def gemm(self) -> str:
        """What its GEMMs multiply: the weight's dtype if activations are quantized as well, else `dtype`."""
        quantized = self.weight is not None and self.weight.dynamic_activation
        return self.fastest_gemm or (self.weight.dtype if self.weight and quantized else self.dtype)

    @property
    def shape_rules(self) -> dict[str, tuple[str, int]]:
        """What keeps a Linear module from being quantized -> its dimension and what must divide it."""
        multiples = {"in_features": self.in_features_multiple, "out_features": self.out_features_multiple}
        return {
            f"{name} not a multiple of {multiple}": (name, multiple)
            for name, multiple in multiples.items()
            if multiple > 1
        }
