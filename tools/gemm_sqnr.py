"""What a scheme costs one GEMM of 3072 Gaussian channels, in dB: the `gemm_db` of its row.

python tools/gemm_sqnr.py SCHEME [--device cuda]
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

# The checkout's own package, also where it is not installed: `python tools/x.py` looks in tools/ only.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from perf_tests.tables.schemes.rows import SCHEMES
from perf_tests.tables.schemes.spec import Scheme

CHANNELS, TOKENS = 3072, 512


def main(argv: Sequence[str] | None = None) -> int:
    """Exit code: 0 printed; 2, by argparse, for a scheme that is not one or quantizes nothing."""
    schemes = {scheme.id: scheme for scheme in SCHEMES if scheme.config is not None and scheme.search is None}
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("scheme", choices=schemes, metavar="SCHEME")
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args(argv)
    print(f"{options.scheme}: {gemm_db(schemes[options.scheme], options.device):.1f} dB")
    return 0


def gemm_db(scheme: Scheme, device: str) -> float:
    """SQNR of the quantized product against the product in float32 of the same rounded operands."""
    # The stack is imported here, so that --help needs none.
    import torch
    from torchao.quantization import quantize_

    from perf_tests.worker.model.lazy import construct

    generator = torch.Generator().manual_seed(0)
    linear = torch.nn.Linear(CHANNELS, CHANNELS, bias=False)
    torch.nn.init.normal_(linear.weight, std=CHANNELS**-0.5, generator=generator)
    model = torch.nn.Sequential(linear).to(device, getattr(torch, scheme.dtype))
    rows = torch.randn(TOKENS, CHANNELS, generator=generator).to(device, getattr(torch, scheme.dtype))
    with torch.no_grad():
        exact = rows.float() @ linear.weight.float().T
        assert scheme.config is not None
        quantize_(model, construct(scheme.config), filter_fn=None)
        error = model(rows).float() - exact
    return float(10 * torch.log10(exact.square().sum() / error.square().sum()))


if __name__ == "__main__":
    sys.exit(main())
