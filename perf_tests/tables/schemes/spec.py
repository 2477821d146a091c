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
    """One for each `QuantizedWeight.group_size` neighbours in a row."""


@dataclass(frozen=True, kw_only=True, slots=True)
class QuantizedWeight:
    """What a weight looks like once a scheme was really applied to it, and what it then takes."""

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
    bits: int = field(metadata=NEVER)
    """Stored bits of one element."""
    scale_bytes: int = field(metadata=NEVER)
    """Bytes of one scale, with its zero point."""
    tile: tuple[int, int] = field(default=(1, 1), metadata=NEVER)
    """(out_features, in_features) are padded to multiples of these before they are packed."""
    scale_tile: tuple[int, int] = field(default=(1, 1), metadata=NEVER)
    """The same for the scales, in elements of the weight."""

    @property
    def granularity(self) -> str:
        """`per-row`, `per-tensor`, or `per-group-32`."""
        return self.scale.value if self.group_size is None else f"{self.scale.value}-{self.group_size}"

    def describes(self, subclass: str, dtype: str, scale: str | None, dynamic_activation: bool) -> bool:
        """Whether a weight that looks like this is quantized exactly as the scheme says."""
        asked = (self.subclass, self.dtype, self.granularity, self.dynamic_activation)
        return asked == (subclass, dtype, scale, dynamic_activation)

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
    """What a measured value must lie between, bounds included, and why."""

    low: float
    high: float
    source: str
    """Where the bounds come from: the end of a sentence."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FidelityFloor:
    """The lowest PSNR (dB) and SSIM against the bf16 twin that still count as the same picture: absolute, of
    whole trajectories."""

    psnr_db: float
    ssim: float
    source: str
    """Where the two come from, a published value or a measured spread: the end of a sentence."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Unsteady:
    """A scheme whose denoise steps take now this long and now that, on a quiet machine, too.

    A test for the noise of the platform would call most of its runs inconclusive. Times that rest on the step
    are held against a limit instead, which sees a change of kind.
    """

    slower_pct: float
    """More than any unchanged process; 100 means twice the time, or half the speed-up."""
    reason: str
    """What the time depends on, with figures: the end of a sentence."""

    @property
    def less_pct(self) -> float:
        """The same change of a ratio in which the time is divided by."""
        return 100.0 * self.slower_pct / (100.0 + self.slower_pct)


@dataclass(frozen=True, kw_only=True, slots=True)
class Search:
    """How a scheme is chosen for each Linear module, by what it costs and what it saves there."""

    candidates: tuple[Scheme, ...]
    """One of them, which quantizes nothing, is what a module stays where none of the others is chosen."""
    min_sqnr_db: float
    """The lowest SQNR of a module's output against its own before quantization, on the same activations."""
    margin_pct: float
    """By how much of the unquantized module's time a candidate must be faster than that. Without a margin
    the noise of the timing would choose."""

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
    """The torchao config; None where nothing is quantized. With a `search` the class that takes one config
    for each module."""
    weight: QuantizedWeight | None = None
    """The evidence a quantized module must show; None where nothing is quantized, or where the candidate
    that was chosen for it says so (`weight_of`)."""
    search: Search | None = field(default=None, metadata=UNLESS_DEFAULT)
    """None where every module is quantized alike."""
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
    in_features_multiple: int = field(default=1, metadata=UNLESS_DEFAULT)
    """Linear modules whose in_features are no multiple of this are left alone: torchao refuses them, or
    returns their weights as they are without a word."""
    out_features_multiple: int = field(default=1, metadata=UNLESS_DEFAULT)
    """The same for out_features."""
    output_sqnr_db: Range | None = field(default=None, metadata=NEVER)
    """SQNR of the transformer's output against its own before quantization, on the same inputs; None where
    nothing is quantized."""
    unsteady: Unsteady | None = field(default=None, metadata=NEVER)
    """None where the noise of the platform is that of the scheme."""
    fastest_gemm: str | None = field(default=None, metadata=NEVER)
    """What its fastest GEMMs multiply, by the names of `Platform.peak_tflops`, where the dtypes do not tell;
    None: `gemm` does."""

    def has_kernels(self, capability: tuple[int, int] | None) -> bool:
        """Whether a GPU of that compute capability has the kernels; None: a CPU."""
        return self.min_capability is None or (capability is not None and capability >= self.min_capability)

    def weight_of(self, chosen: str | None) -> QuantizedWeight | None:
        """The evidence that modules must show for which the candidate with the id `chosen` was chosen, None
        for none; of a scheme without a search all modules show the same. None: that of no quantization."""
        if self.search is None:
            return self.weight
        return next((scheme.weight for scheme in self.search.candidates if scheme.id == chosen), None)

    @property
    def gemm(self) -> str:
        """What its GEMMs multiply: the weight's dtype where activations are quantized, too, else `dtype`."""
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
