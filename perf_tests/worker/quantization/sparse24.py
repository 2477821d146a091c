"""int8 dynamic activations with 2:4 sparse int8 weights: torch's own kernels behind a torchao config.

torchao offered it as `Int8DynamicActivationInt8WeightConfig(layout=SemiSparseLayout())` until 0.16.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import library, nn
from torchao.core.config import AOBaseConfig
from torchao.quantization import Int8Tensor, PerRow
from torchao.quantization.quantize_.workflows import QuantizeTensorToInt8Kwargs
from torchao.quantization.transform_module import register_quantize_module_handler
from torchao.utils import TorchAOBaseTensor

GROUP, KEPT = 4, 2
WEIGHT_MULTIPLE = 32
"""cuSPARSELt needs rows and columns of a sparse int8 matrix to be multiples of this."""
TOKENS_MULTIPLE = 16
"""cuSPARSELt needs the number of columns of the dense matrix to be a multiple of this."""
HIGHEST = 127
"""Largest magnitude of a quantized value; -128 is not used, so that the range is symmetric."""
SMALLEST_SCALE = torch.finfo(torch.float32).eps
"""The same as torchao's; the scale of a row of zeros."""
PER_ROW = QuantizeTensorToInt8Kwargs(granularity=PerRow())
"""How each row of a weight, and each token of activations, is quantized."""


@dataclass(frozen=True)
class Int8DynamicActivationInt8SemiSparseWeightConfig(AOBaseConfig):  # type: ignore[misc] # torchao is untyped
    """Prune each linear weight to 2:4 by magnitude and quantize it to int8 per row; activations are quantized
    per token when they are multiplied."""


class Int8SemiSparseTensor(TorchAOBaseTensor):  # type: ignore[misc] # torchao is untyped
    """A weight of shape (out_features, in_features), at most two non-zeros in each four neighbours of a row.

    `qdata` is (out_features, in_features * 5 / 8) int8: the kept values, then 2 bits of position for each of
    them, in the order that the kernels of the device type `packed_for` define. `scale` is (out_features, 1)
    float32.
    """

    # Not how activations are quantized, which is always the same: torchao's arguments hold a member of an
    # enumeration, which Python 3.11.0 to 3.11.2 pickle as a call of `getattr`, and `weights_only` refuses.
    tensor_data_names = ["qdata", "scale"]  # noqa: RUF012 # torchao reads and copies them as lists
    tensor_attribute_names = ["packed_for", "dtype"]  # noqa: RUF012 # torchao reads and copies them as lists

    def __new__(
        cls,
        qdata: torch.Tensor,
        scale: torch.Tensor,
        packed_for: str,
        dtype: torch.dtype,
    ) -> Self:
        shape = (qdata.shape[0], _columns(qdata))
        made: Self = torch.Tensor._make_wrapper_subclass(
            cls, shape, dtype=dtype, device=qdata.device, requires_grad=False
        )
        return made

    def __init__(
        self,
        qdata: torch.Tensor,
        scale: torch.Tensor,
        packed_for: str,
        dtype: torch.dtype,
    ) -> None:
        super().__init__()
        self.qdata = qdata
        self.scale = scale
        self.packed_for = packed_for

    @property
    def act_quant_kwargs(self) -> QuantizeTensorToInt8Kwargs:
        """How activations are quantized, under torchao's name for it."""
        return PER_ROW

    @classmethod
    def from_hp(cls, weight: torch.Tensor) -> Int8SemiSparseTensor:
        """Prune, quantize and pack a weight of shape (out_features, in_features) in any float dtype.

        Raises ValueError where a dimension is not a multiple of 32, NotImplementedError where the device has
        no kernels.
        """
        rows, columns = weight.shape
        if rows % WEIGHT_MULTIPLE or columns % WEIGHT_MULTIPLE:
            raise ValueError(
                f"2:4 sparse int8 weights need multiples of {WEIGHT_MULTIPLE} rows and columns, this one has "
                f"{rows} x {columns}: leave its module as it is"
            )
        quantized = _quantize(prune(weight))
        return cls(compress(quantized.qdata), quantized.scale, weight.device.type, weight.dtype)

    def dequantize(self, output_dtype: torch.dtype | None = None) -> torch.Tensor:
        """The dense weight, with its zeros, in `output_dtype`, by default the dtype that it had."""
        # cuSPARSELt can only unpack by multiplying with the identity; int8 is exact in the bfloat16 product.
        identity = torch.eye(self.shape[1], dtype=torch.int8, device=self.qdata.device)
        values: torch.Tensor = product(self.qdata, identity, torch.ones_like(self.scale))
        return (values * self.scale).to(output_dtype or self.dtype)


torch.serialization.add_safe_globals([Int8SemiSparseTensor])


def prune(weight: torch.Tensor) -> torch.Tensor:
    """`weight` (rows, columns) with the two smallest magnitudes of each four neighbours in a row set to zero.

    The rule of torchao's SemiSparseLayout, made reproducible: of equal magnitudes the later ones stay.
    """
    groups = weight.detach().reshape(-1, GROUP)
    smallest = groups.abs().argsort(dim=1, stable=True)[:, : GROUP - KEPT]
    return groups.scatter(1, smallest, 0).reshape(weight.shape)


def _quantize(rows: torch.Tensor) -> Int8Tensor:
    """Each row of a matrix as int8, rounded to nearest even, and float32 scales (rows, 1): its amax / 127."""
    # Not torchao's own choice of scales: uncompiled it divides bfloat16 by bfloat16, and it takes extremes in
    # bfloat16, which inductor of torch 2.13 cannot compile for a CPU where projections share their input
    # ("conflicting declaration 'at_BFloat16_tmp_acc0_vec'").
    scale = (rows.float().abs().amax(dim=1, keepdim=True) / HIGHEST).clamp(min=SMALLEST_SCALE)
    return Int8Tensor.from_hp(rows, PER_ROW.granularity, PER_ROW.mapping_type, scale=scale)


def _columns(packed: torch.Tensor) -> int:
    """Columns (in_features) of the matrix that `packed` holds."""
    return packed.shape[1] * 8 // 5


@library.custom_op("perf_tests::sparse24_compress", mutates_args=(), device_types="cpu")
def compress(weight: torch.Tensor) -> torch.Tensor:
    """Pack a 2:4 sparse int8 matrix (rows, columns) into (rows, columns * 5 / 8) bytes, the size that
    `torch._cslt_compress` produces.

    On a CPU a packed row is its kept values, then their positions, four to a byte, the first in the lowest
    bits. Raises ValueError for a matrix that is not 2:4 sparse, NotImplementedError without kernels.
    """
    rows, columns = weight.shape
    groups = weight.reshape(rows, columns // GROUP, GROUP)
    zero = groups == 0
    if bool((zero.sum(-1) < GROUP - KEPT).any()):
        raise ValueError("the matrix has more than two non-zeros in four neighbours: prune it before packing")
    # A stable sort puts non-zeros first; where there are fewer than two, zeros fill up.
    positions = zero.byte().argsort(dim=-1, stable=True)[..., :KEPT].sort(-1).values
    values = groups.gather(-1, positions).reshape(rows, -1)
    fours = positions.reshape(rows, -1, 4) << torch.arange(0, 8, 2)
    return torch.cat([values, fours.sum(-1).to(torch.uint8).view(torch.int8)], dim=1)


@compress.register_kernel("cuda")
def _compress_cuda(weight: torch.Tensor) -> torch.Tensor:
    if not torch.backends.cusparselt.is_available():
        raise NotImplementedError(
            "2:4 sparse int8 weights need cuSPARSELt on CUDA, and this torch is built without it: use one of "
            "PyTorch's own CUDA builds"
        )
    # Flat in some releases, (rows, ...) in others.
    return torch._cslt_compress(weight.contiguous()).view(weight.shape[0], -1)


@compress.register_fake
def _compress_fake(weight: torch.Tensor) -> torch.Tensor:
    rows, columns = weight.shape
    return weight.new_empty(rows, columns * 5 // 8)


def _decompress(packed: torch.Tensor) -> torch.Tensor:
    """The int8 matrix (rows, columns) that the CPU kernel of `compress` packed."""
    rows, columns = packed.shape[0], _columns(packed)
    values, fours = packed.split([columns // 2, columns // 8], dim=1)
    positions = (fours.contiguous().view(torch.uint8).unsqueeze(-1) >> torch.arange(0, 8, 2)) & 3
    dense: torch.Tensor = values.new_zeros(rows, columns // GROUP, GROUP)
    dense.scatter_(-1, positions.reshape(rows, -1, KEPT).long(), values.reshape(rows, -1, KEPT))
    return dense.reshape(rows, columns)


@library.custom_op("perf_tests::sparse24_product", mutates_args=(), device_types="cpu")
def product(packed: torch.Tensor, tokens: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """`scale * (weight @ tokens.T)`, accumulated in int32 and rounded once, to bfloat16.

    `tokens` is int8 (n, in_features) with n a multiple of 16, `scale` is float32 (out_features, 1), and the
    result (out_features, n): as in cuSPARSELt, the sparse matrix is on the left.
    """
    return (torch._int_mm(_decompress(packed), tokens.t()) * scale).to(torch.bfloat16)


@product.register_kernel("cuda")
def _product_cuda(packed: torch.Tensor, tokens: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    # The int8 kernels need the dense matrix in column-major order: the transposed view of contiguous tokens.
    dense = tokens.contiguous().t()
    return torch._cslt_sparse_mm(packed, dense, alpha=scale.flatten(), out_dtype=torch.bfloat16)


@product.register_fake
def _product_fake(packed: torch.Tensor, tokens: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    return tokens.new_empty(packed.shape[0], tokens.shape[0], dtype=torch.bfloat16)


def _linear(activations: torch.Tensor, weight: Any, bias: torch.Tensor | None = None) -> torch.Tensor:
    """`activations` (..., in_features) times the weight, for any number of tokens.

    As in torchao's former version, the product is rounded to bfloat16 before the scales of the tokens apply.
    The result is contiguous, unlike there: with the strides of the transposed product, attention would have
    to take its unfused kernel.
    """
    _require_packed_for(weight, activations.device.type)
    flat = activations.reshape(-1, activations.shape[-1])
    tokens = _quantize(flat)
    count = flat.shape[0]
    padded = nn.functional.pad(tokens.qdata, (0, 0, 0, -count % TOKENS_MULTIPLE))
    scaled: torch.Tensor = product(weight.qdata, padded, weight.scale).t()[:count] * tokens.scale
    result = scaled.contiguous().to(activations.dtype).reshape(*activations.shape[:-1], weight.shape[0])
    return result if bias is None else result + bias


def _require_packed_for(weight: Any, device_type: str) -> None:
    if weight.packed_for != device_type:
        raise NotImplementedError(
            f"a 2:4 sparse weight packed for {weight.packed_for} cannot be multiplied on {device_type}: "
            "quantize the model on the device it runs on"
        )


def _dispatch_linear(_func: Any, _types: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> torch.Tensor:
    return _linear(*args, **kwargs)


Int8SemiSparseTensor.implements(torch.ops.aten.linear.default)(_dispatch_linear)
Int8SemiSparseTensor.implements_torch_function(nn.functional.linear)(_dispatch_linear)


def _quantize_module(
    module: nn.Linear, _config: Int8DynamicActivationInt8SemiSparseWeightConfig
) -> nn.Module:
    module.weight = nn.Parameter(Int8SemiSparseTensor.from_hp(module.weight), requires_grad=False)
    return module


register_quantize_module_handler(Int8DynamicActivationInt8SemiSparseWeightConfig)(_quantize_module)
