"""Dynamically quantized float8 rows of zeros become NaN.

    python tools/repro/fp8_zero_rows.py             # both variants
    python tools/repro/fp8_zero_rows.py --nan_rows  # rows of NaN by default; one line of JSON

Two rows of activations, one of them zeros, as AuraFlow's padded tokens are, quantized per row with torchao's
Float8Tensor as Float8DynamicActivationFloat8WeightConfig does it; needs no GPU.

Cause: `_choose_scale_float8` (torchao/quantization/quant_primitives.py) divides the largest value of a row by
that of the format, which gives 0 for a row of zeros, and `_quantize_affine_float8` divides 0 by it.

Workaround: `activation_value_lb=1e-12`, the least that the largest value of a row is taken to be.
"""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

COLUMNS = 64
LOWER_BOUND = 1e-12


def main() -> None:
    """Print how many of the two rows are NaN, with and without the workaround."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--nan_rows", action="store_true")
    arguments = parser.parse_args()
    if arguments.nan_rows:
        print(json.dumps({"nan_rows": nan_rows(None), "with_lower_bound": nan_rows(LOWER_BOUND)}))
        return
    for lower_bound in (None, LOWER_BOUND):
        print(f"activation_value_lb={lower_bound}: {nan_rows(lower_bound)} of 2 rows are NaN")


def nan_rows(lower_bound: float | None) -> int:
    """Rows with NaN after quantizing a row of zeros and one of ones."""
    import torch

    rows = torch.stack([torch.zeros(COLUMNS), torch.ones(COLUMNS)]).bfloat16()
    return int(_quantized(rows, lower_bound).dequantize().isnan().any(dim=1).sum())


def _quantized(rows: torch.Tensor, lower_bound: float | None) -> Any:
    """As torchao quantizes activations. Before 0.14 it had another way, without a lower bound."""
    import torch
    from torchao import quantization

    float8 = getattr(quantization, "Float8Tensor", None)
    if float8 is not None and hasattr(float8, "from_hp"):
        return float8.from_hp(rows, granularity=quantization.PerRow(), hp_value_lb=lower_bound)
    from torchao.quantization.quant_api import _input_activation_quant_func_fp8

    return _input_activation_quant_func_fp8(rows, quantization.PerRow(), torch.float8_e4m3fn)


if __name__ == "__main__":
    main()
