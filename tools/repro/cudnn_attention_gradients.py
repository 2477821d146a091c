"""Gradients of cuDNN's attention are wrong once the gradient that comes in has another layout than before.

    python tools/repro/cudnn_attention_gradients.py          # three orders, each in a process of its own
    python tools/repro/cudnn_attention_gradients.py --error  # the order that does not fault; one line of JSON

Attention of FLUX.1-dev's shapes (24 heads of 128, 4608 tokens, bf16) through
`torch.nn.functional.scaled_dot_product_attention`, backwards twice with the same values of the gradient: once
in memory of its own, as in double blocks, and once as columns of a wider one, as in single blocks, whose
output stands beside that of the MLP. Expected are the gradients of flash attention. On an H200 with torch
2.11 and cuDNN 9.19, each layout alone is right to 0.32 %, the wider one after the other is wrong by 141 %,
as noise of their size would be, and the other way round it ends in an illegal memory access.

Cause, as its source reads: torch builds a plan for the strides of that gradient, and finds it again by those
of query, key, value and output alone (aten/src/ATen/native/cudnn/MHA.cpp). The same was seen, and mended,
where sequences have different lengths (pytorch/pytorch pull request 191576).

Workaround: `torch.backends.cuda.enable_cudnn_sdp(False)`, or a gradient made contiguous.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

HEADS, TOKENS, HEAD_WIDTH, MLP_WIDTH = 24, 4608, 128, 12288
WIDTH = HEADS * HEAD_WIDTH
ALONE, BESIDE = "alone", "beside"
ORDERS = ((ALONE, BESIDE, ALONE), (BESIDE,), (BESIDE, ALONE))


def main() -> None:
    """Print the errors of all orders, or of one as a line of JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--error", action="store_true")
    parser.add_argument("--order", nargs="+", choices=(ALONE, BESIDE), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.error:
        first, second = errors((ALONE, BESIDE))
        print(json.dumps({"error": second, "first": first}))
    elif arguments.order:
        print(", ".join(f"{error:.4f}" for error in errors(arguments.order)))
    else:
        for order in ORDERS:
            print(f"{' -> '.join(order):26} {_in_a_process(order)}")


def errors(order: tuple[str, ...]) -> list[float]:
    """How far the gradients of each layout are from those of flash attention, in turn.

    The largest of query, key and value: the norm of the difference, divided by that of the expected one.
    """
    from torch.nn.attention import SDPBackend

    expected = gradients(ALONE, SDPBackend.FLASH_ATTENTION)
    found = (gradients(layout, SDPBackend.CUDNN_ATTENTION) for layout in order)
    return [_distance(each, expected) for each in found]


def gradients(layout: str, backend: Any) -> list[torch.Tensor]:
    """Of query, key and value, in float32, by attention of one backend."""
    import torch
    from torch.nn.attention import sdpa_kernel
    from torch.nn.functional import scaled_dot_product_attention

    generator = torch.Generator("cuda").manual_seed(0)

    def drawn(width: int) -> torch.Tensor:
        return torch.randn(1, TOKENS, width, device="cuda", dtype=torch.bfloat16, generator=generator)

    query, key, value = (by_head(drawn(WIDTH)).detach().requires_grad_() for _ in range(3))
    with sdpa_kernel(backend):
        output = scaled_dot_product_attention(query, key, value)
    output.backward(incoming(drawn(WIDTH + MLP_WIDTH), layout))
    torch.cuda.synchronize()
    return [each.grad.float() for each in (query, key, value) if each.grad is not None]


def incoming(wide: torch.Tensor, layout: str) -> torch.Tensor:
    """The gradient of attention's output, the first columns of `wide`, in one of the two layouts."""
    columns = wide[..., :WIDTH]
    return by_head(columns if layout == BESIDE else columns.contiguous())


def by_head(rows: torch.Tensor) -> torch.Tensor:
    """(batch, tokens, width) as (batch, heads, tokens, head width), in the same memory."""
    heads: torch.Tensor = rows.unflatten(-1, (HEADS, HEAD_WIDTH))
    return heads.transpose(1, 2)


def _distance(found: list[torch.Tensor], expected: list[torch.Tensor]) -> float:
    return max(float((one - other).norm() / other.norm()) for one, other in zip(found, expected, strict=True))


def _in_a_process(order: tuple[str, ...]) -> str:
    command = [sys.executable, __file__, "--order", *order]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode == 0:
        return done.stdout.strip()
    said = [line for line in done.stderr.splitlines() if "rror: " in line]
    return said[-1] if said else f"exit code {done.returncode}"


if __name__ == "__main__":
    main()
