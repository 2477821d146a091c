"""Several int8 dynamic projections of one channels-first activation cannot be compiled for a CPU.

    python tools/repro/int8dq_shared_input.py                  # one projection, and three
    python tools/repro/int8dq_shared_input.py --uncompilable   # three alone; one line of JSON

The start of PixArt's first block: LayerNorm of bfloat16 patches whose channels lie together last in memory,
then projections quantized with Int8DynamicActivationInt8WeightConfig. inductor fuses the extremes that each
projection needs of its activations; g++ refuses the result. Needs no GPU; a C++ compiler.

Cause: the C++ kernel stores the minimum three times, and declares its conversion to bfloat16
(`at_BFloat16_tmp_acc0_vec`) for each of them under the same name.

Workaround: none; on a CPU, such rows stay eager (`UNCOMPILABLE` in perf_tests/tables/matrix.py).
"""

from __future__ import annotations

import argparse
import json

CHANNELS, PATCHES = 64, 64
REFUSED = "conflicting declaration"


def main() -> None:
    """Say for one and for three projections whether they compile."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--uncompilable", action="store_true")
    if parser.parse_args().uncompilable:
        print(json.dumps({"uncompilable": int(not compiles(3))}))
        return
    for projections in (1, 3):
        print(f"{projections} projections: {'compiled' if compiles(projections) else REFUSED}")


def compiles(projections: int) -> bool:
    """Whether that many projections of one activation compile. Raises any other failure than this one."""
    import torch
    from torch import nn
    from torchao.quantization import Int8DynamicActivationInt8WeightConfig, quantize_

    class Attention(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm = nn.LayerNorm(CHANNELS, elementwise_affine=False)
            self.projections = nn.ModuleList(nn.Linear(CHANNELS, CHANNELS) for _ in range(projections))

        def forward(self, patches: torch.Tensor) -> torch.Tensor:
            normed = self.norm(patches)
            return sum((projection(normed) for projection in self.projections), torch.zeros(()))

    torch._dynamo.reset()
    attention = Attention().bfloat16().eval()
    quantize_(attention, Int8DynamicActivationInt8WeightConfig())
    patches = torch.randn(2, CHANNELS, PATCHES).bfloat16().transpose(1, 2)
    try:
        with torch.no_grad():
            torch.compile(attention)(patches)
    except Exception as error:  # inductor's own class of it has moved
        if REFUSED not in str(error):
            raise
        return False
    return True


if __name__ == "__main__":
    main()
