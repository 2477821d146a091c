"""A compiled FLUX embeds another guidance than an eager one: 3500 instead of 3504.

    python tools/repro/full_compile_rounding.py          # eager, compiled, and compiled with eager's rounding
    python tools/repro/full_compile_rounding.py --apart  # one line of JSON

FLUX multiplies guidance and timestep by 1000 in bf16, and takes sines and cosines of the product in float32.
bf16 has no 3500: eager rounds the product to 3504. Inductor keeps it in float32 inside its kernel. This one
embedding shows it; needs a C++ compiler, and no GPU.

A transformer compiled as a whole therefore answers another question than an eager one, while blocks compiled
one by one do not. `torch._inductor.config.emulate_precision_casts` brings eager's rounding back.
"""

from __future__ import annotations

import argparse
import json
import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch  # else where it is needed, so that --help is quick

GUIDANCE = 3.5
SCALE = 1000
HALF_CHANNELS = 128
LONGEST_PERIOD = 10_000


def main() -> None:
    """Print what guidance each variant embeds."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--apart", action="store_true")
    arguments = parser.parse_args()
    eager, compiled, emulated = seen()
    if arguments.apart:
        print(json.dumps({"apart": abs(eager - compiled), "emulated_apart": abs(eager - emulated)}))
        return
    print(f"eager:                             {eager:g}")
    print(f"compiled:                          {compiled:g}")
    print(f"compiled, emulate_precision_casts: {emulated:g}")


def seen() -> tuple[float, float, float]:
    """The guidance that is embedded: eager, compiled, and compiled with `emulate_precision_casts`."""
    import torch
    from torch._inductor import config

    guidance = torch.tensor([GUIDANCE], dtype=torch.bfloat16)
    eager, _ = embed(guidance)
    compiled, _ = torch.compile(embed, dynamic=False)(guidance)
    torch._dynamo.reset()
    with config.patch(emulate_precision_casts=True):
        emulated, _ = torch.compile(embed, dynamic=False)(guidance)
    return eager.item(), compiled.item(), emulated.item()


def embed(guidance: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """What FLUX does to a guidance in bf16: the product as its sinusoids see it, and the sinusoids."""
    import torch

    product = (guidance * SCALE).float()
    exponents = torch.arange(HALF_CHANNELS, dtype=torch.float32) / HALF_CHANNELS
    angles = product[:, None] * torch.exp(-math.log(LONGEST_PERIOD) * exponents)
    return product, torch.cat([angles.cos(), angles.sin()], dim=-1)


if __name__ == "__main__":
    main()
