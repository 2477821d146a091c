"""floatx weight-only: weights in 2 to 8 bits of sign, exponent and mantissa, multiplied in their own dtype.

torchao had it as `FPXWeightOnlyConfig(ebits, mbits)`, before that `fpx_weight_only`, until 0.15.
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
    """Round each linear weight to floats of one sign bit, `ebits` and `mbits` (1 + ebits + mbits <= 8) with
    a scale a row; activations stay as they are.

    Raises ValueError for other widths.
    """

    ebits: int
    mbits: int

    def __post_init__(self) -> None:
        require_format(self.ebits, self.mbits)


@dataclass(frozen=True, kw_only=True, slots=True)
class Carrier:
    """A wider float with room for a code's exponent: code bits, once moved to their place in it, are a float
    that is too small by a power of two."""

    dtype: torch.dtype
    storage: torch.dtype
    """Integers of its size."""
    word: torch.dtype
    """Integers to move bits in. `spare` of their lowest bits are cut off at the end, so that no byte has to
    be shifted to the right first."""
    wide: torch.dtype
    """Where the power of two is made good."""
    ebits: int
    mbits: int
    spare: int

    @property
    def sign(self) -> int:
        """Position of the sign in a word."""
        return self.spare + self.mbits + self.ebits

    @property
    def bias(self) -> int:
        """What its exponents are too high by."""
        return int(2 ** (self.ebits - 1)) - 1


# Not float32: compiled GPU code may flush its subnormals, which the smallest codes are, to zero. Conversion
# from float16 keeps those of float16, and nothing flushes those of float64.
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
"""The first one with more exponent bits than the code carries it: all ones mean infinity there."""


class FloatxTensor(TorchAOBaseTensor):  # type: ignore[misc] # torchao is untyped
    """A weight of shape (out_features, in_features) in floats of `1 + ebits + mbits` bits, without infinities
    and NaN.

    `qdata` is what `pack` makes of the codes, `scale` is (out_features, 1) in the dtype of the weight: a
    weight is its code's value times the scale of its row.
    """

    tensor_data_names = ["qdata", "scale"]  # noqa: RUF012 # torchao reads and copies them as lists
    tensor_attribute_names = ["ebits", "mbits", "in_features"]  # noqa: RUF012 # the same

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

        Raises ValueError for widths that are no format.
        """
        require_format(ebits, mbits)
        exact = weight.detach().float()
        # At least the smallest normal number: rows of zeros divide by it, and float16 holds no smaller scale
        # well, where a format of many exponent bits needs none.
        scale = exact.abs().amax(dim=1, keepdim=True) / largest(ebits, mbits)
        scale = scale.clamp(min=torch.finfo(weight.dtype).tiny).to(weight.dtype)
        codes = encode(exact / scale.float(), ebits, mbits)
        return cls(pack(codes, 1 + ebits + mbits), scale, ebits, mbits, weight.shape[1])

    def dequantize(self, output_dtype: torch.dtype | None = None) -> torch.Tensor:
        """The weight, multiplied in float32 and rounded once, to `output_dtype` or else the dtype it had."""
        values = decode(self.qdata, self.ebits, self.mbits)[:, : self.in_features]
        return (values * self.scale.float()).to(output_dtype or self.dtype)


torch.serialization.add_safe_globals([FloatxTensor])


def require_format(ebits: int, mbits: int) -> None:
    """Raises ValueError unless `ebits` and `mbits` are a format: at least one exponent bit, 8 bits in all."""
    if ebits < 1 or mbits < 0 or 1 + ebits + mbits > BYTE:
        raise ValueError(
            f"{ebits} exponent bits and {mbits} mantissa bits are no floatx format: ask for at least 1 and 0 "
            f"of them, and for at most {BYTE - 1} together, as the sign takes the eighth"
        )


def exponent_bias(ebits: int) -> int:
    """What the exponent field is too high by, as in IEEE 754 and OCP MX."""
    return int(2 ** (ebits - 1)) - 1


def largest(ebits: int, mbits: int) -> float:
    """The largest value of the format: all exponent and mantissa bits are ones, as none mean infinity."""
    return float(2.0 ** (2**ebits - 1 - exponent_bias(ebits)) * (2.0 - 2.0**-mbits))


def encode(values: torch.Tensor, ebits: int, mbits: int) -> torch.Tensor:
    """float32 -> uint8 codes: sign, exponent and mantissa in the lowest `1 + ebits + mbits` bits.

    To nearest, ties to the even code; what is too large becomes the largest value; zeros keep their sign: as
    OCP Microscaling Formats (MX) 1.0 rounds to its elements. Values must not be NaN.
    """
    bias = exponent_bias(ebits)
    magnitude = values.abs().clamp(max=largest(ebits, mbits))
    exponent = (magnitude.view(torch.int32) >> FLOAT32_MBITS) - FLOAT32_BIAS
    # Subnormals are as far apart as the smallest normal numbers.
    exponent = exponent.clamp(min=1 - bias)
    # 2 ** (mbits - exponent), exact on every device.
    steps_per_one = (((FLOAT32_BIAS + mbits) - exponent) << FLOAT32_MBITS).view(torch.float32)
    steps = magnitude * steps_per_one
    below = steps.floor()
    # The leading one of a normal number counts as the exponent's lowest bit, and so does a carry.
    code = ((exponent + (bias - 1)) << mbits) + below.to(torch.int32)
    rest = steps - below
    # Not `round`: without mantissa bits an even number of steps is no even code.
    code = code + ((rest > 0.5) | ((rest == 0.5) & (code & 1 == 1)))
    return (code | (values.signbit().to(torch.int32) << (ebits + mbits))).to(torch.uint8)


def plane_widths(bits: int) -> list[int]:
    """Powers of two that add up to `bits`, the widest first: 6 bits are 4 + 2."""
    return [width for width in PLANE_WIDTHS if bits & width]


def columns_multiple(bits: int) -> int:
    """What columns are padded to a multiple of: those that fill a byte of the narrowest plane."""
    return BYTE // plane_widths(bits)[-1]


def pack(codes: torch.Tensor, bits: int) -> torch.Tensor:
    """uint8 codes (rows, columns) -> uint8 (rows, padded columns * bits / 8).

    A row is its planes, one after the other: the highest bits of all its codes first. A byte of a plane
    holds neighbouring columns, the first in its lowest bits.
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
    """What `pack` packed -> float32 values (rows, padded columns), exactly.

    Shifts, masks and one product: inductor fuses it into the kernel that writes the weight. It runs over
    every weight in every denoise step, so that instructions are counted here.
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
    """A plane (rows, bytes), which holds bits `low` to `low + width - 1` of each code -> words
    (rows, columns) with these bits where they are in the carrier."""
    exponent_end = carrier.spare + carrier.mbits - mbits
    positions = [*(exponent_end + bit for bit in range(ebits + mbits)), carrier.sign][low : low + width]
    # The sign is further up than its neighbours: the plane is put where the sign belongs, and an arithmetic
    # shift to the right leaves a copy of it there.
    right = positions[-1] - positions[0] - (width - 1)
    left = positions[0] + right
    shifts = torch.arange(left, left - BYTE, -width, dtype=carrier.word, device=plane.device)
    moved = (plane.to(carrier.word).unsqueeze(-1) << shifts) >> right
    return (moved & _signed(sum(1 << position for position in positions), carrier)).flatten(1)


def _signed(mask: int, carrier: Carrier) -> int:
    """`mask` as the signed integer with the same bits."""
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
