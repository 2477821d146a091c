"""Every product with a 2:4 sparse weight leaves memory of the host behind.

    python tools/repro/sparse_mm_host_memory.py                      # a sparse product beside a dense one
    python tools/repro/sparse_mm_host_memory.py --bytes_per_product  # one line of JSON

An int8 weight of 512 x 512, compressed for cuSPARSELt, is multiplied 20,000 times by the same matrix. Memory
of the process is read before and after; the dense product shows what a loop that keeps nothing grows by.
Needs a GPU with cuSPARSELt.

`torch._cslt_sparse_mm` sets up cuSPARSELt's descriptors and its plan anew for each product; which of them it
keeps is not known.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch  # else where it is needed, so that --help is quick

SIZE = 512
WARMUP = 1_000
PRODUCTS = 20_000
BYTES_PER_KIB = 1024


def main() -> None:
    """Print by how many bytes the process grows with each product, sparse and dense."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--bytes_per_product", action="store_true")
    arguments = parser.parse_args()
    sparse, dense = growth_bytes(sparse_product()), growth_bytes(dense_product())
    if arguments.bytes_per_product:
        print(json.dumps({"bytes_per_product": sparse, "dense": dense}))
        return
    print(f"sparse: {sparse:.0f} bytes a product\ndense:  {dense:.0f} bytes a product")


def growth_bytes(product: Callable[[], object]) -> float:
    """Growth of the resident memory of this process with each call of `product`, in bytes."""
    import torch

    for _ in range(WARMUP):
        product()
    torch.cuda.synchronize()
    before = _resident_bytes()
    for _ in range(PRODUCTS):
        product()
    torch.cuda.synchronize()
    return (_resident_bytes() - before) / PRODUCTS


def sparse_product() -> Callable[[], object]:
    """Multiplies a compressed 2:4 sparse weight by a matrix."""
    import torch

    weight, matrix = _operands()
    weight[:, 0::4] = weight[:, 1::4] = 0  # two of four neighbours are left
    compressed = torch._cslt_compress(weight)
    return lambda: torch._cslt_sparse_mm(compressed, matrix.t(), out_dtype=torch.bfloat16)


def dense_product() -> Callable[[], object]:
    """Multiplies the same matrices without cuSPARSELt."""
    import torch

    weight, matrix = _operands()
    return lambda: torch._int_mm(weight, matrix.t())


def _operands() -> tuple[torch.Tensor, torch.Tensor]:
    import torch

    torch.manual_seed(0)
    weight, matrix = (
        torch.randint(-127, 128, (SIZE, SIZE), dtype=torch.int8, device="cuda") for _ in range(2)
    )
    return weight, matrix


def _resident_bytes() -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * BYTES_PER_KIB
    raise OSError("/proc/self/status has no VmRSS")


if __name__ == "__main__":
    main()
