"""floatx weight-only: weights in 2 to 8 bits of sign, exponent and mantissa, multiplied in their own dtype.

torchao offered it as `FPXWeightOnlyConfig(ebits, mbits)`, earlier `fpx_weight_only`, until 0.15.
"""

from __future__ import annotations

import functools
import operator
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import nn
from torchao.core.config import AOBaseConfig
from torchao.quantization.transform_module import register_quantize_module_handler
from torchao.utils import TorchAOBaseTensor

BYTE = 8
PLANE_WIDTHS = (8, 4, 2, 1)
FLOAT32_BIAS, FLOAT32_MBITS = 127, 23


@dataclass(frozen=True, kw_only=True)  # no slots: torchao writes the `__dict__` of a config as JSON
class FloatxWeightOnlyConfig(AOBaseConfig):  # type: ignore[misc] # torchao is untyped
    """Round each linear weight to floats of one sign bit, `ebits` exponent bits and `mbits` mantissa bits
    (1 + ebits + mbits <= 8), with one scale per row; activations are not quantized.

    Raises ValueError for other widths.
    """

    ebits: int
    mbits: int

    def __post_init__(self) -> None:
        require_format(self.ebits, self.mbits)


@dataclass(frozen=True, kw_only=True, slots=True)
class Carrier:
    """A wider float with room for a code's exponent: the bits of a code, moved to their places in it, are a
    float that is too small by a power of two."""

    dtype: torch.dtype
    storage: torch.dtype
    """The integer dtype of the same size."""
    word: torch.dtype
    """The integer dtype in which bits are moved. The `spare` lowest bits are cut off at the end, so that no
    byte has to be shifted to the right first."""
    wide: torch.dtype
    """The float dtype in which the power of two is multiplied back."""
    ebits: int
    mbits: int
    spare: int

    @property
    def sign(self) -> int:
        """Position of the sign bit in a word."""
        return self.spare + self.mbits + self.ebits

    @property
    def bias(self) -> int:
        """Bias of its exponents."""
        return int(2 ** (self.ebits - 1)) - 1


# Not float32: the smallest codes would be subnormals of it, which compiled GPU code may flush to zero.
# Conversion from float16 keeps its subnormals, and nothing flushes those of float64.
CARRIERS = (
    Carrier(
        dtype=torch.float16,
        storage=torch.int16,
        word=torch.int32,
        wide=torch.float32,
        ebits=5,
        mbits=10,
        spare=16,
    ),
    Carrier(
        dtype=torch.float64,
        storage=torch.int64,
        word=torch.int64,
        wide=torch.float64,
        ebits=11,
        mbits=52,
        spare=0,
    ),
)
"""The first one with more exponent bits than the code is used, because all ones mean infinity there."""


class FloatxTensor(TorchAOBaseTensor):  # type: ignore[misc] # torchao is untyped
    """A weight of shape (out_features, in_features) in floats of `1 + ebits + mbits` bits, without infinities
    or NaN.

    `qdata` holds the packed codes, `scale` is (out_features, 1) in the dtype of the weight: a weight is the
    value of its code times the scale of its row.
    """

    tensor_data_names = ["qdata", "scale"]  # noqa: RUF012 # torchao reads and copies them as lists
    tensor_attribute_names = ["ebits", "mbits", "in_features"]  # noqa: RUF012 # torchao reads and copies them as lists

    def __new__(
        cls, qdata: torch.Tensor, scale: torch.Tensor, ebits: int, mbits: int, in_features: int
    ) -> Self:
        shape = (qdata.shape[0], in_features)
        made: Self = torch.Tensor._make_wrapper_subclass(
            cls, shape, dtype=scale.dtype, device=qdata.device, requires_grad=False
        )
        return made

    def __init__(
        self, qdata: torch.Tensor, scale: torch.Tensor, ebits: int, mbits: int, in_features: int
    ) -> None:
        super().__init__()
        self.qdata = qdata
        self.scale = scale
        self.ebits = ebits
        self.mbits = mbits
        self.in_features = in_features

    @property
    def target_dtype(self) -> str:
        """The format by its usual name, `fp6_e3m2`; torch has no dtype for most of them."""
        return f"fp{1 + self.ebits + self.mbits}_e{self.ebits}m{self.mbits}"

    @classmethod
    def from_hp(cls, weight: torch.Tensor, ebits: int, mbits: int) -> FloatxTensor:
        """Quantize a weight of shape (out_features, in_features) in any float dtype.

        Raises ValueError for widths that are not a format.
        """
        require_format(ebits, mbits)
        exact = weight.detach().float()
        # At least the smallest normal number: rows of zeros divide by it, and float16 represents no smaller
        # scale well; a format with many exponent bits needs no smaller one.
        scale = exact.abs().amax(dim=1, keepdim=True) / largest(ebits, mbits)
        scale = scale.clamp(min=torch.finfo(weight.dtype).tiny).to(weight.dtype)
        codes = encode(exact / scale.float(), ebits, mbits)
        return cls(pack(codes, 1 + ebits + mbits), scale, ebits, mbits, weight.shape[1])

    def dequantize(self, output_dtype: torch.dtype | None = None) -> torch.Tensor:
        """The weight, multiplied in float32 and rounded once, to `output_dtype`, by default its old dtype."""
        values = decode(self.qdata, self.ebits, self.mbits)[:, : self.in_features]
        return (values * self.scale.float()).to(output_dtype or self.dtype)


torch.serialization.add_safe_globals([FloatxTensor])


def require_format(ebits: int, mbits: int) -> None:
    """Raises ValueError unless `ebits` and `mbits` are a format: one exponent bit or more, at most 8 bits."""
    if ebits < 1 or mbits < 0 or 1 + ebits + mbits > BYTE:
        raise ValueError(
            f"{ebits} exponent bits and {mbits} mantissa bits are not a floatx format: use at least 1 and 0 "
            f"of them, and at most {BYTE - 1} together, as the sign takes the eighth"
        )


def exponent_bias(ebits: int) -> int:
    """Bias of the exponent field, as in IEEE 754 and OCP MX."""
    return int(2 ** (ebits - 1)) - 1


def largest(ebits: int, mbits: int) -> float:
    """The largest value of the format: its exponent and mantissa bits are all ones, as none mean infinity."""
    return float(2.0 ** (2**ebits - 1 - exponent_bias(ebits)) * (2.0 - 2.0**-mbits))


def encode(values: torch.Tensor, ebits: int, mbits: int) -> torch.Tensor:
    """float32 -> uint8 codes: sign, exponent and mantissa in the lowest `1 + ebits + mbits` bits.

    Rounds like OCP Microscaling Formats (MX) 1.0: to nearest, ties to the even code; values that are too
    large become the largest; zeros keep their sign. Values must not be NaN.
    """
    bias = exponent_bias(ebits)
    magnitude = values.abs().clamp(max=largest(ebits, mbits))
    exponent = (magnitude.view(torch.int32) >> FLOAT32_MBITS) - FLOAT32_BIAS
    # Subnormals have the same spacing as the smallest normal numbers.
    exponent = exponent.clamp(min=1 - bias)
    # 2 ** (mbits - exponent), exact on every device.
    steps_per_one = (((FLOAT32_BIAS + mbits) - exponent) << FLOAT32_MBITS).view(torch.float32)
    steps = magnitude * steps_per_one
    below = steps.floor()
    # The leading one of a normal number adds one to the exponent, and so does a carry.
    code = ((exponent + (bias - 1)) << mbits) + below.to(torch.int32)
    rest = steps - below
    # Not `round`: without mantissa bits, an even number of steps is not an even code.
    code = code + ((rest > 0.5) | ((rest == 0.5) & (code & 1 == 1)))
    return (code | (values.signbit().to(torch.int32) << (ebits + mbits))).to(torch.uint8)


def plane_widths(bits: int) -> list[int]:
    """Powers of two that add up to `bits`, widest first: 6 bits are 4 + 2."""
    return [width for width in PLANE_WIDTHS if bits & width]


def columns_multiple(bits: int) -> int:
    """Columns are padded to a multiple of this: as many as fill a byte of the narrowest plane."""
    return BYTE // plane_widths(bits)[-1]


def pack(codes: torch.Tensor, bits: int) -> torch.Tensor:
    """uint8 codes (rows, columns) -> uint8 (rows, padded columns * bits / 8).

    A packed row is a sequence of planes, the one with the highest bits of all codes first. A byte of a plane
    holds neighbouring columns, the first in the lowest bits.
    """
    padded = nn.functional.pad(codes, (0, -codes.shape[1] % columns_multiple(bits)))
    planes, low = [], bits
    for width in plane_widths(bits):
        low -= width
        shifts = torch.arange(0, BYTE, width, dtype=torch.uint8, device=codes.device)
        fields = ((padded >> low) & ((1 << width) - 1)).unflatten(1, (-1, BYTE // width))
        planes.append((fields << shifts).sum(-1, dtype=torch.uint8))
    return torch.cat(planes, dim=1)


def decode(packed: torch.Tensor, ebits: int, mbits: int) -> torch.Tensor:
    """Packed codes -> their exact float32 values (rows, padded columns).

    Shifts, masks and one product: inductor fuses them into the kernel that writes the weight. This runs over
    every weight in every denoise step, so each instruction matters.
    """
    carrier = next(each for each in CARRIERS if each.ebits > ebits)
    bits = 1 + ebits + mbits
    columns = packed.shape[1] * BYTE // bits
    widths = plane_widths(bits)
    planes = packed.split([columns * width // BYTE for width in widths], dim=1)
    lows = [sum(widths[index + 1 :]) for index in range(len(widths))]
    fields = [
        _place(plane, width, low, ebits, mbits, carrier)
        for plane, width, low in zip(planes, widths, lows, strict=True)
    ]
    word = functools.reduce(operator.or_, fields) >> carrier.spare
    carried = word.to(carrier.storage).view(carrier.dtype)
    too_small = 2.0 ** (carrier.bias - exponent_bias(ebits))
    return (carried.to(carrier.wide) * too_small).float()


def _place(
    plane: torch.Tensor, width: int, low: int, ebits: int, mbits: int, carrier: Carrier
) -> torch.Tensor:
    """A plane (rows, bytes) with bits `low` to `low + width - 1` of each code -> words (rows, columns) with
    these bits at their places in the carrier."""
    exponent_end = carrier.spare + carrier.mbits - mbits
    positions = [*(exponent_end + bit for bit in range(ebits + mbits)), carrier.sign][low : low + width]
    # The sign does not adjoin the other bits: the plane is shifted until the sign is in its place, and the
    # arithmetic shift back to the right leaves a copy of it there.
    right = positions[-1] - positions[0] - (width - 1)
    left = positions[0] + right
    shifts = torch.arange(left, left - BYTE, -width, dtype=carrier.word, device=plane.device)
    moved = (plane.to(carrier.word).unsqueeze(-1) << shifts) >> right
    return (moved & _signed(sum(1 << position for position in positions), carrier)).flatten(1)


def _signed(mask: int, carrier: Carrier) -> int:
    """The signed integer with the bits of `mask`."""
    return mask - ((mask >> carrier.sign) << (carrier.sign + 1))


def _linear(activations: torch.Tensor, weight: Any, bias: torch.Tensor | None = None) -> torch.Tensor:
    return nn.functional.linear(activations, weight.dequantize(), bias)


def _dispatch_linear(_func: Any, _types: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> torch.Tensor:
    return _linear(*args, **kwargs)


FloatxTensor.implements(torch.ops.aten.linear.default)(_dispatch_linear)
FloatxTensor.implements_torch_function(nn.functional.linear)(_dispatch_linear)


def _quantize_module(
    module: nn.Module, config: FloatxWeightOnlyConfig, *, parameter_name: str = "weight"
) -> nn.Module:
    weight = FloatxTensor.from_hp(getattr(module, parameter_name), config.ebits, config.mbits)
    setattr(module, parameter_name, nn.Parameter(weight, requires_grad=False))
    return module


register_quantize_module_handler(FloatxWeightOnlyConfig)(_quantize_module)
